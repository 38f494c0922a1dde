package consumer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
	"enricher/test/harness"
)

func TestEveryKindOfEvent(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{Rate: 200}, everyKindOfEvent)
}

func TestKafkaEveryKindOfEvent(t *testing.T) {
	onKafka(t, fetchtest.Config{Rate: 200}, everyKindOfEvent)
}

// everyKindOfEvent that the input topic may hold.
func everyKindOfEvent(t *testing.T, e *env) {
	e.Start("a")
	now := time.Now()

	e.FeedCalls("plain-", 50)
	for p := range int32(partitions) { // a repeated callback: two events, two equal records
		e.FeedCall(p, "plain-1")
	}
	for i := range 20 {
		id := "late-" + strconv.Itoa(i)
		e.API.AvailableAt(id, now.Add(time.Duration(i)*e.choose(5*time.Second, 150*time.Millisecond)))
		e.FeedCall(int32(i%partitions), id)
	}
	for i := range 5 {
		id := "never-" + strconv.Itoa(i)
		e.API.Never(id)
		e.FeedDead(1, audittest.EndCall(id, now), schemas.NotFound)
	}
	e.FeedValue(0, `{"CallId":"bare"}`, "bare")
	e.FeedValue(0, `{"CallId":12345678901234567890123}`, "12345678901234567890123")
	e.FeedValue(0, `{"Extra":[1,{"CallId":"no"}],"CallId":"extra","More":null}`, "extra")
	e.Feed(2, audit.Expect{Value: []byte(`{"CallbackCommand":"Call.CallbackAfterStartCall","CallRecord":{"CallId":"x"}}`)})
	e.Feed(2, audit.Expect{Value: []byte(`{"CallbackCommand":"Call.CallbackAfterMemberChanged"}`)})
	for _, bad := range []string{
		"", "null", "{}", "[]", "junk", `{"CallId":"cut`, "{\"CallId\":\"\xff\"}", `{"CallId":""}`, `{"CallId":null}`,
		`{"CallId":["a"]}`, `{"CallId":"` + strings.Repeat("x", 257) + `"}`, `{"CallId":"a","CallRecord":{"CallId":"b"}}`,
		strings.Repeat("[", 100_000), strings.Repeat("junk", 240_000),
	} {
		e.FeedDead(3, []byte(bad), schemas.Malformed)
	}
	e.FeedDead(3, nil, schemas.Malformed)
	e.API.Script("twice-502", fetchtest.BadGateway(), fetchtest.HTML())
	e.FeedCall(3, "twice-502")

	e.Await(4 * time.Minute)
	a := e.Check()
	if a.Skipped != 2 || a.DeadLetters[schemas.NotFound] != 5 || a.DeadLetters[schemas.Malformed] != 15 {
		t.Error(a)
	}
}

func TestOversizedDeadLetter(t *testing.T)      { inVirtualTime(t, fetchtest.Config{}, oversizedDeadLetter) }
func TestKafkaOversizedDeadLetter(t *testing.T) { onKafka(t, fetchtest.Config{}, oversizedDeadLetter) }

// oversizedDeadLetter is one that the topic accepts only without its payload.
func oversizedDeadLetter(_ *testing.T, e *env) {
	big := bytes.Repeat([]byte("x"), 1_048_300) // too large together with a dead letter's headers
	e.FeedDead(0, big, schemas.Malformed)
	e.Start("a")
	e.Await(time.Minute)
	e.Check()
}

// TestSmallBatches writes to topics that accept only smaller batches than the
// client sends. A record that fits by itself is no dead letter because of the batch
// it was in.
func TestSmallBatches(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		small := "2000"
		_, err := e.Admin().AlterTopicConfigs(context.Background(),
			[]kadm.AlterConfig{{Name: "max.message.bytes", Value: &small}}, e.Enriched, e.Dead)
		if err != nil {
			t.Fatal(err)
		}
		e.FeedCalls("c", 400)
		// Incompressible, because the limit is for compressed batches.
		e.FeedDead(3, []byte(noise(4000)), schemas.Malformed)
		i := e.Start("a", func(c *consumer.Config) { c.APIRate = 0 })
		for n := range 4 {
			e.FeedCalls(strconv.Itoa(n)+"-", 100)
			<-time.After(5 * time.Second)
		}
		e.Await(5 * time.Minute)
		e.Check()
		if i.Logs.FilterMessageSnippet("max.message.bytes").Len() == 0 {
			t.Error("no batch was rejected, or no log line names the setting")
		}
		for _, l := range e.deadLetters() {
			if l.OmittedBytes < 4000 {
				t.Errorf("a dead letter of %d bytes in a topic that accepts 2000", len(l.Value))
			}
		}
	})
}

// TestManyOversizedDeadLetters: one after the other is refused, alone, and is then
// written without its payload. A topic that accepts not even that holds up only them.
func TestManyOversizedDeadLetters(t *testing.T) {
	for _, limit := range []int{2000, 100} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				setLimit := func(bytes int) {
					v := strconv.Itoa(bytes)
					_, err := e.Admin().AlterTopicConfigs(context.Background(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &v}}, e.Dead)
					if err != nil {
						t.Fatal(err)
					}
				}
				setLimit(limit)
				i := e.Start("a")
				e.FeedCalls("warm-", partitions)
				e.Await(time.Minute)
				for n := range 5 * partitions {
					e.FeedDead(int32(n%partitions), []byte(noise(4000)), schemas.Malformed)
				}
				for n := range int32(30) {
					e.FeedDead(n%partitions, []byte(noise(4000)), schemas.Malformed)
					e.FeedCalls(fmt.Sprint("healthy-", n, "-"), 2*partitions)
					<-time.After(time.Second)
				}
				e.awaitWithin(harness.LookupDelay+time.Second, func(_ audit.Source, event audit.Expect) bool { return strings.HasPrefix(event.CallID, "healthy-") })
				if limit < 1000 {
					awaitNotReady(e, i, string(consumer.OutputRefused), e.In)
					setLimit(2000)
				}
				e.Await(5 * time.Minute)
				e.Check()
				if n := i.Metric("enricher_kafka_session_restarts_total"); n != 0 {
					t.Errorf("%v sessions restarted", n)
				}
			})
		})
	}
}

// TestRefusalKeepsThePayload: a dead-letter topic refuses records for a while. A dead
// letter loses its payload only if the error is about the record, which the topic may
// accept without it: one that waits for a permission is written whole.
func TestRefusalKeepsThePayload(t *testing.T) {
	for refusal, whole := range map[*kerr.Error]bool{
		kerr.TopicAuthorizationFailed: true, kerr.NotEnoughReplicas: true, kerr.InvalidTimestamp: true,
		kerr.InvalidTopicException: true, kerr.UnknownTopicOrPartition: true,
		kerr.InvalidRecord: false, kerr.MessageTooLarge: false, kerr.PolicyViolation: false,
	} {
		t.Run(refusal.Message, func(t *testing.T) {
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				var accepted atomic.Bool
				fault := e.Cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: e.Dead, Err: refusal, Count: -1,
					When: func(kmsg.Request) bool { return !accepted.Load() }})
				e.Start("a")
				e.FeedCalls("warm-", partitions)
				e.Await(time.Minute)
				for n := range 3 {
					e.FeedDead(int32(n), []byte("junk "+strconv.Itoa(n)), schemas.Malformed)
				}
				e.FeedCalls("healthy-", 10*partitions)
				<-time.After(2 * time.Minute) // the client itself tries some of the errors again
				e.awaitWithin(2*time.Minute, func(_ audit.Source, event audit.Expect) bool { return strings.HasPrefix(event.CallID, "healthy-") })
				accepted.Store(true)
				e.Await(5 * time.Minute)
				e.Check()
				omitted := 0
				for _, r := range e.Outputs() {
					if l, ok := producer.ParseDeadLetter(r); ok && l.OmittedBytes > 0 {
						omitted++
					}
				}
				if whole && omitted > 0 || !whole && omitted != 3 || fault.Hits() < 3 {
					t.Errorf("%d of 3 dead letters without their payload after %d refusals", omitted, fault.Hits())
				}
			})
		})
	}
}

// noise is text that does not compress to less than three quarters.
func noise(n int) string {
	var b strings.Builder
	for x := uint64(1); b.Len() < n; x = x*6364136223846793005 + 1442695040888963407 {
		b.WriteByte('!' + byte(x>>33%90))
	}
	return b.String()
}

// panicky panics for some calls, as a defect of ours would, with a message that
// quotes the request.
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

func (e *env) panicky(c *consumer.Config) {
	client, err := harness.NewAPIClient("http://127.0.0.1", panicky{fetchtest.Transport(e.API)})
	if err != nil {
		e.T.Fatal(err)
	}
	c.Client = client
}

// TestPanicIsIsolated checks that a panic turns one event into a dead letter and is
// logged with its stack.
func TestPanicIsIsolated(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		i := e.Start("a", e.panicky)
		e.FeedCalls("c", 50)
		e.FeedDead(3, audittest.EndCall("panic", time.Now()), schemas.Internal)
		e.FeedCalls("d", 50)
		e.Await(time.Minute)
		e.Check()
		logs := i.Logs.FilterMessageSnippet("panic").All()
		if len(logs) != 1 || !strings.Contains(fmt.Sprint(logs[0].ContextMap()), "panicky.RoundTrip") {
			t.Errorf("the log does not show the stack: %v", logs)
		}
	})
}

// TestSecretsInSinks takes failing paths with an API that echoes the request. No
// secret may be in any log, metric, header, value, or readiness reason, and a secret
// planted in any of these must be detected.
func TestSecretsInSinks(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		core, logs := observer.New(zapcore.DebugLevel)
		i := e.Start("a", e.panicky, func(c *consumer.Config) { c.Log = zap.New(core) })
		e.FeedCalls("warm", 10)
		e.Await(time.Minute)

		e.FeedDead(0, []byte(e.API.Secrets().URLs[0]), schemas.Malformed) // a dead letter repeats its event, secret or not
		reasons := ""
		for _, row := range fetch.Codes() {
			id := "echo-" + strconv.Itoa(row.Code)
			e.API.Script(id, fetchtest.Echo(row.Code), fetchtest.Echo(424242), fetchtest.Reset(), fetchtest.HTML())
			e.API.Script(fetch.ProbeCallID, fetchtest.Echo(row.Code), fetchtest.Echo(row.Code))
			e.FeedCall(int32(row.Code%partitions), id)
			<-time.After(5500 * time.Millisecond) // the probe at once has failed, and the one a second later
			reasons += i.NotReady()
			<-time.After(5 * time.Second)
		}
		e.API.Script("dead", fetchtest.Echo(101002))
		e.FeedDead(1, audittest.EndCall("dead", time.Now()), schemas.Rejected)
		e.FeedDead(2, audittest.EndCall("panic", time.Now()), schemas.Internal)
		e.Await(time.Hour)

		sinks := map[string]string{"reasons": reasons}
		for _, l := range logs.All() {
			sinks["logs"] += l.Message + " " + fmt.Sprintf("%+v", l.ContextMap()) + "\n"
		}
		families, err := i.Registry.Gather()
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
		for _, r := range e.Outputs() {
			if l, ok := producer.ParseDeadLetter(r); ok && l.Reason == schemas.Malformed {
				continue // it repeats its event
			}
			sinks["values"] += string(r.Key) + string(r.Value) + "\n"
			for _, h := range r.Headers {
				sinks["headers"] += h.Key + "=" + string(h.Value) + "\n"
			}
		}
		secrets := e.API.Secrets()
		for sink, text := range sinks {
			if text == "" {
				t.Errorf("nothing in %s", sink)
			}
			secrets.AssertAbsent(t, sink, []byte(text))
			for _, leak := range []string{secrets.Key, secrets.UserSigs[0], secrets.URLs[0]} {
				var caught failures
				secrets.AssertAbsent(&caught, sink, []byte(text+leak))
				if caught == 0 {
					t.Errorf("a secret planted in %s is not detected", sink)
				}
			}
		}
	})
}

type failures int

func (*failures) Helper()                 {}
func (f *failures) Errorf(string, ...any) { *f++ }
