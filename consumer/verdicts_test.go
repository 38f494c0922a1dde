package consumer_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
)

// letters are the dead letters so far, by the event's value.
func (w *world) letters() map[string]*producer.DeadLetter {
	m := map[string]*producer.DeadLetter{}
	for _, r := range w.outputs() {
		if l, ok := producer.ParseDeadLetter(r); ok {
			m[string(l.Value)] = l
		}
	}
	return m
}

// TestOneBadCall: a call that alone draws bad answers, while others are
// answered well, becomes a dead letter of the right kind, and holds nobody up.
func TestOneBadCall(t *testing.T) {
	type want struct {
		reason   schemas.Reason
		code     int
		attempts int // 0: some
		message  string
	}
	many := func(f fetchtest.Fault) []fetchtest.Fault {
		var all []fetchtest.Fault
		for range 200 {
			all = append(all, f)
		}
		return all
	}
	cases := map[string]struct {
		faults []fetchtest.Fault
		age    time.Duration
		want   want
	}{
		"keeps failing":          {many(fetchtest.BadGateway()), 0, want{schemas.LookupFailed, 502, 0, "HTTP 502"}},
		"keeps breaking off":     {many(fetchtest.CutBody()), 0, want{schemas.LookupFailed, 0, 0, "cut short"}},
		"is another's":           {many(fetchtest.WrongCallID()), 0, want{schemas.LookupFailed, 0, 0, "another CallId"}},
		"halts alone":            {many(fetchtest.Named("not_administrator")), 0, want{schemas.LookupFailed, 60010, 0, "administrator"}},
		"bad signature, or is":   {many(fetchtest.Named("bad_account_or_signature")), 0, want{schemas.LookupFailed, 60004, 0, "signature"}},
		"unknown code":           {many(fetchtest.Code(424242)), 0, want{schemas.UnknownCode, 424242, 0, "not in the error table"}},
		"rejected":               {many(fetchtest.Named("bad_call_id")), 0, want{schemas.Rejected, 101002, 1, "parameters"}},
		"never ends":             {many(fetchtest.NotEnded()), 0, want{schemas.NotEnded, 0, 6, "end time"}},
		"is never found":         {many(fetchtest.Named("record_not_found")), 0, want{schemas.NotFound, 101050, 6, "no record"}},
		"old and not found":      {many(fetchtest.Named("record_not_found")), time.Hour, want{schemas.NotFound, 101050, 2, "no record"}},
		"older than the API's 7": {many(fetchtest.Named("record_not_found")), 8 * 24 * time.Hour, want{schemas.Expired, 101050, 2, "no record"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newWorld(t, fetchtest.Config{})
				w.start("a")
				w.api.Script(name, c.faults...)
				at := time.Now().Add(-c.age)
				w.feedAt(0, at, callback(name, at), audit.Expect{Reasons: []schemas.Reason{c.want.reason}})
				begin := time.Now()
				for n := range 8 * 60 { // the others
					w.call(int32(n%partitions), "well-"+strconv.Itoa(n))
					<-time.After(time.Second)
				}
				w.await(5 * time.Minute)
				w.check()
				for _, l := range w.letters() {
					if l.Code != c.want.code || c.want.attempts > 0 && l.Attempts != c.want.attempts || !strings.Contains(l.Message, c.want.message) {
						t.Errorf("code %d after %d attempts: %s", l.Code, l.Attempts, l.Message)
					}
					if l.Attempts > 0 && (l.First.Before(begin) || l.Last.Before(l.First)) {
						t.Errorf("first attempt %v, last %v", l.First, l.Last)
					}
				}
			})
		})
	}
}

// An EventTime in seconds is the same time in milliseconds: it expires no event
// and takes nothing from its window.
func TestEventTimeInSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, fetchtest.Config{})
		w.start("a")
		for n := range 300 {
			id := "c" + strconv.Itoa(n)
			w.api.Script(id, fetchtest.Named("record_not_found")) // readable only for the second request
			w.feed(int32(n%partitions), fmt.Appendf(nil, `{"CallId":%q,"EventTime":%d}`, id, time.Now().Unix()), w.enriched(id))
		}
		w.await(time.Minute)
		if a := w.check(); a.Enriched != 300 {
			t.Error(a)
		}
	})
}

// panicky panics for some calls, as a defect of ours would, and quotes what it
// was asked.
type panicky struct{ http.RoundTripper }

func (p panicky) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(body, []byte("panic")) {
		panic("a defect at " + r.URL.String())
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return p.RoundTripper.RoundTrip(r)
}

func (w *world) panicky(c *consumer.Config) {
	cfg, err := config("a", "http://127.0.0.1", panicky{fetchtest.Transport(w.api)}, prometheus.NewRegistry())
	if err != nil {
		w.t.Fatal(err)
	}
	c.Client = cfg.Client
}

// TestPanic: it costs the one event, which becomes a dead letter, and is logged
// with its stack.
func TestPanic(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, fetchtest.Config{})
		i := w.start("a", w.panicky)
		w.calls("c", 50)
		w.letter(3, callback("panic", time.Now()), schemas.Internal)
		w.calls("d", 50)
		w.await(time.Minute)
		w.check()
		logs := i.logs.FilterMessageSnippet("panic").All()
		if len(logs) != 1 || !strings.Contains(fmt.Sprint(logs[0].ContextMap()), "panicky.RoundTrip") {
			t.Errorf("the log does not show the stack: %v", logs)
		}
	})
}

// TestManyNeverFound: a tenth of one partition's events is never found, in a
// flood: back-pressure holds, and nothing is lost or doubled.
func TestManyNeverFound(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, fetchtest.Config{})
		for n := range 15_000 {
			id := "c" + strconv.Itoa(n)
			if n%10 == 0 {
				w.api.Never(id)
				w.letter(0, callback(id, time.Now()), schemas.NotFound)
			} else {
				w.call(0, id)
			}
		}
		i := w.start("a", func(c *consumer.Config) { c.APIRate, c.MaxInFlight, c.MaxConsecutiveDeadLetters = 0, 1000, 0 })
		w.await(time.Hour)
		w.check()
		if n := i.metric("enricher_offset_metadata_max_bytes"); n > 4096 {
			t.Errorf("metadata of %v bytes", n)
		}
	})
}

// TestSecretsInSinks: on failing paths, with an API that repeats what it was
// sent, no secret is in any log, metric, header, value, or reason; and a secret
// planted in any of these sinks is found.
func TestSecretsInSinks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, fetchtest.Config{})
		core, logs := observer.New(zapcore.DebugLevel)
		i := w.start("a", w.panicky, func(c *consumer.Config) { c.Log = zap.New(core) })
		w.calls("warm", 10)
		w.await(time.Minute)

		w.letter(0, []byte(w.api.Secrets().URLs[0]), schemas.Malformed) // an event that somebody pasted it into keeps it
		reasons := ""
		for _, row := range fetch.Codes() {
			id := "echo-" + strconv.Itoa(row.Code)
			w.api.Script(id, fetchtest.Echo(row.Code), fetchtest.Echo(424242), fetchtest.Reset(), fetchtest.HTML())
			w.api.Script(fetch.ProbeCallID, fetchtest.Echo(row.Code), fetchtest.Echo(row.Code))
			w.call(int32(row.Code%partitions), id)
			<-time.After(5500 * time.Millisecond) // the probe at once has failed, and the one a second later
			reasons += i.notReady()
			<-time.After(5 * time.Second)
		}
		w.api.Script("dead", fetchtest.Echo(101002))
		w.letter(1, callback("dead", time.Now()), schemas.Rejected)
		w.letter(2, callback("panic", time.Now()), schemas.Internal)
		w.await(time.Hour)

		sinks := map[string]string{"reasons": reasons}
		for _, e := range logs.All() {
			sinks["logs"] += e.Message + " " + fmt.Sprintf("%+v", e.ContextMap()) + "\n"
		}
		families, err := i.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var metrics bytes.Buffer
		for _, f := range families {
			if _, err := expfmt.MetricFamilyToText(&metrics, f); err != nil {
				t.Fatal(err)
			}
		}
		sinks["metrics"] = metrics.String()
		for _, r := range w.outputs() {
			if l, ok := producer.ParseDeadLetter(r); ok && l.Reason == schemas.Malformed {
				continue // byte for byte what came
			}
			sinks["values"] += string(r.Key) + string(r.Value) + "\n"
			for _, h := range r.Headers {
				sinks["headers"] += h.Key + "=" + string(h.Value) + "\n"
			}
		}
		secrets := w.api.Secrets()
		for sink, text := range sinks {
			if text == "" {
				t.Errorf("nothing in %s", sink)
			}
			secrets.AssertAbsent(t, sink, []byte(text))
			for _, leak := range []string{secrets.Key, secrets.UserSigs[0], secrets.URLs[0]} {
				var caught failures
				secrets.AssertAbsent(&caught, sink, []byte(text+leak))
				if caught == 0 {
					t.Errorf("a secret planted in %s is not found", sink)
				}
			}
		}
	})
}

type failures int

func (*failures) Helper()                 {}
func (f *failures) Errorf(string, ...any) { *f++ }
