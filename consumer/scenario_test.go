package consumer_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

// inBubble runs a scenario on virtual time, next to others.
func inBubble(t *testing.T, scenario func(*testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, scenario)
}

// virtually runs a scenario on virtual time, with an embedded broker. Those
// that TestKafkaScenarios names run on a real one as well, with shorter waits.
func virtually(t *testing.T, api fetchtest.Config, scenario func(*testing.T, *world)) {
	t.Helper()
	inBubble(t, func(t *testing.T) { scenario(t, newWorld(t, api)) })
}

// TestEveryKindOfEvent feeds everything that may stand on the input topic.
func TestEveryKindOfEvent(t *testing.T) { virtually(t, fetchtest.Config{Rate: 200}, everyKindOfEvent) }

func everyKindOfEvent(t *testing.T, w *world) {
	w.start("a")
	now := time.Now()

	w.calls("plain-", 50)
	for p := range int32(partitions) { // a repeated callback: two events, two equal records
		w.call(p, "plain-1")
	}
	for i := range 20 {
		id := "late-" + strconv.Itoa(i)
		w.api.AvailableAt(id, now.Add(time.Duration(i)*w.span(5*time.Second, 150*time.Millisecond)))
		w.call(int32(i%partitions), id)
	}
	for i := range 5 {
		id := "never-" + strconv.Itoa(i)
		w.api.Never(id)
		w.letter(1, callback(id, now), schemas.NotFound)
	}
	w.feed(0, []byte(`{"CallId":"bare"}`), w.enriched("bare"))
	w.feed(0, []byte(`{"CallId":12345678901234567890123}`), w.enriched("12345678901234567890123"))
	w.feed(0, []byte(`{"Extra":[1,{"CallId":"no"}],"CallId":"extra","More":null}`), w.enriched("extra"))
	w.feed(2, []byte(`{"CallbackCommand":"Call.CallbackAfterStartCall","CallRecord":{"CallId":"x"}}`), audit.Expect{})
	w.feed(2, []byte(`{"CallbackCommand":"Call.CallbackAfterMemberChanged"}`), audit.Expect{})
	for _, bad := range []string{
		"", "null", "{}", "[]", "junk", `{"CallId":"cut`, "{\"CallId\":\"\xff\"}", `{"CallId":""}`, `{"CallId":null}`,
		`{"CallId":["a"]}`, `{"CallId":"` + strings.Repeat("x", 257) + `"}`, `{"CallId":"a","CallRecord":{"CallId":"b"}}`,
		strings.Repeat("[", 100_000), strings.Repeat("junk", 240_000),
	} {
		w.letter(3, []byte(bad), schemas.Malformed)
	}
	w.letter(3, nil, schemas.Malformed)
	w.api.Script("twice-502", fetchtest.BadGateway(), fetchtest.HTML())
	w.call(3, "twice-502")

	w.await(4 * time.Minute)
	a := w.check()
	if a.Skipped != 2 || a.DeadLetters[schemas.NotFound] != 5 || a.DeadLetters[schemas.Malformed] != 15 {
		t.Error(a)
	}
}

// TestOneRequestPerCallID: 10,000 events of 1,000 calls, shuffled over the
// partitions, make 1,000 requests, and what the schedule repeats.
func TestOneRequestPerCallID(t *testing.T) {
	for _, late := range []int{0, 200} {
		t.Run(fmt.Sprintf("%d late", late), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newWorld(t, fetchtest.Config{})
				for i := range late {
					// One answer of "no such record"; the next try is on schedule.
					w.api.Script("c"+strconv.Itoa(i*5), fetchtest.Named("record_not_found"))
				}
				var ids []string
				for i := range 10_000 {
					ids = append(ids, "c"+strconv.Itoa(i%1000))
				}
				rand.New(rand.NewPCG(1, 2)).Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
				for i, id := range ids {
					w.call(int32(i%partitions), id)
				}
				w.start("a", func(c *consumer.Config) { c.APIRate = 0 })
				w.await(time.Minute)
				w.check()
				if got, want := w.api.Requests(), 1000+late; got != want {
					t.Errorf("%d requests, want %d", got, want)
				}
			})
		})
	}
}

// TestAPIOutage: while the API fails everybody, events wait; afterwards they
// are all enriched, at full rate within two seconds.
func TestAPIOutage(t *testing.T) {
	for name, fault := range map[string]fetchtest.Fault{
		"502":               fetchtest.BadGateway(),
		"reset":             fetchtest.Reset(),
		"hang":              fetchtest.Hang(),
		"backend busy":      fetchtest.Named("call_backend_busy"),
		"rate limited":      fetchtest.Named("rate_limited"),
		"too many requests": fetchtest.TooManyRequests("7"),
		"unknown code":      fetchtest.Code(999999),
		"cut body":          fetchtest.CutBody(),
	} {
		t.Run(name, func(t *testing.T) { virtually(t, fetchtest.Config{}, outage(name, fault)) })
	}
}

func outage(name string, fault fetchtest.Fault) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		w.api.SetOutage(fault)
		i := w.start("a")
		w.calls("c", 1000)
		<-time.After(w.span(20*time.Minute, 12*time.Second)) // far longer than any window
		if n := len(w.outputs()); n != 0 {
			t.Fatalf("%d outputs during the outage: %v", n, w.ledger.Check(w.outputs()))
		}
		if why := i.notReady(); !strings.Contains(why, "API") {
			t.Errorf("ready, or for another reason not: %q", why)
		}
		w.api.ClearOutage()
		recovered := time.Now()
		w.await(time.Minute)
		w.check()
		// 1,000 calls take 5 s at full rate, which must be reached 2 s
		// after the recovery and whatever pause was still on.
		limit := 2*time.Second + 5200*time.Millisecond + w.span(0, 2*time.Second)
		switch name {
		case "too many requests":
			limit += 7 * time.Second
		case "rate limited":
			limit += 5 * time.Second // the longest pause of its own
		}
		arrivals := w.api.Arrivals()
		if last := arrivals[len(arrivals)-1].Sub(recovered); last > limit {
			t.Errorf("the last of 1,000 requests came %v after the recovery, want at most %v", last, limit)
		}
		if n := w.api.MaxInAnyWindow(time.Second); n > 200 && !w.real { // in real time requests catch up with each other
			t.Errorf("%d requests in one second", n)
		}
		if len(i.Ready()) > 0 {
			t.Errorf("not ready afterwards: %v", i.Ready())
		}
	}
}

// TestWrongKey: nothing is dead-lettered, one line says what to check, and it
// goes on by itself.
func TestWrongKey(t *testing.T) { virtually(t, fetchtest.Config{}, wrongKey) }

func wrongKey(t *testing.T, w *world) {
	w.api.SetKey("0123456789abcdef")
	i := w.start("a")
	w.calls("c", 300)
	<-time.After(w.span(30*time.Minute, 5*time.Second))
	if n := len(w.outputs()); n != 0 {
		t.Fatalf("%d outputs with a wrong key", n)
	}
	if n := w.api.Requests(); n > 400 {
		t.Errorf("%d requests with a wrong key in 30 minutes", n)
	}
	if why := i.notReady(); !strings.Contains(why, "key") {
		t.Errorf("readiness does not say what to check: %q", why)
	}
	w.api.SetKey(fetchtest.DemoKey)
	w.await(2 * time.Minute)
	w.check()
}

// TestEverythingMissing: an API that has no record at all (a wrong region) may
// cost flood-guard events, not more.
func TestEverythingMissing(t *testing.T) { virtually(t, fetchtest.Config{}, everythingMissing) }

func everythingMissing(t *testing.T, w *world) {
	w.api.SetOutage(fetchtest.Named("record_not_found"))
	i := w.start("a", func(c *consumer.Config) { c.MaxConsecutiveDeadLetters = 100 })
	for n := range 1000 {
		id := "c" + strconv.Itoa(n)
		e := w.enriched(id)
		e.Reasons = []schemas.Reason{schemas.NotFound}
		w.feed(int32(n%partitions), callback(id, time.Now()), e)
	}
	<-time.After(w.span(time.Hour, 15*time.Second))
	if n := len(w.outputs()); n == 0 || n > 100 {
		t.Fatalf("%d dead letters, want at most 100 and some", n)
	}
	if len(i.Ready()) == 0 {
		t.Error("ready, though everything is missing")
	}
	w.api.ClearOutage()
	w.await(5 * time.Minute)
	if a := w.check(); a.Enriched < 900 {
		t.Error(a)
	}
}

// TestBrokerAway: at the start and in between.
func TestBrokerAway(t *testing.T) { virtually(t, fetchtest.Config{}, brokerAway) }

func brokerAway(t *testing.T, w *world) {
	w.calls("early", 100)
	var i *instance
	cut := make(chan struct{})
	i = w.start("a", func(*consumer.Config) { close(cut) })
	<-cut
	i.network.set(true)
	<-time.After(w.span(time.Minute, 3*time.Second))
	if len(i.Ready()) == 0 {
		t.Error("ready without Kafka")
	}
	i.network.set(false)
	w.await(time.Minute)
	for range 5 {
		w.calls("mid"+strconv.Itoa(w.fed)+"-", 100)
		<-time.After(w.span(settleDelay, 300*time.Millisecond))
		i.network.set(true)
		<-time.After(w.span(15*time.Second, 3*time.Second))
		i.network.set(false)
		<-time.After(w.span(3*time.Second, time.Second))
	}
	w.await(2 * time.Minute)
	w.check()
	if len(i.Ready()) > 0 {
		t.Errorf("not ready afterwards: %v", i.Ready())
	}
}

// APIs that take their time.
var (
	slowAPI = fetchtest.Config{Latency: func(string) time.Duration { return 3 * time.Second }}
	lateAPI = fetchtest.Config{Latency: func(string) time.Duration { return 100 * time.Millisecond }}
)

// TestDrain: SIGTERM waits for what is on the wire, not for what waits.
func TestDrain(t *testing.T) { virtually(t, slowAPI, drain) }

func drain(t *testing.T, w *world) {
	i := w.start("a")
	<-time.After(shareDelay)
	w.calls("c", 40)
	w.api.Never("never")
	w.letter(0, callback("never", time.Now()), schemas.NotFound)
	<-time.After(w.span(settleDelay, 300*time.Millisecond) + time.Second) // on the wire
	start := time.Now()
	i.end()
	if i.err != nil {
		t.Fatal(i.err)
	}
	if took := time.Since(start); took < time.Second || took > 6*time.Second {
		t.Errorf("drain took %v", took)
	}
	if n := len(w.outputs()); n != 40 {
		t.Errorf("%d outputs after the drain, want 40", n)
	}
	requests := w.api.RequestsFor("c1")
	w.start("b")
	w.await(3 * time.Minute)
	w.check()
	if w.api.RequestsFor("c1") != requests {
		t.Error("what was drained was asked for again")
	}
}

// TestDrainBudget: a broker that never answers does not keep the process.
func TestDrainBudget(t *testing.T) { virtually(t, lateAPI, drainBudget) }

func drainBudget(t *testing.T, w *world) {
	i := w.start("a")
	<-time.After(shareDelay)
	w.calls("c", 200)
	<-time.After(w.span(settleDelay, time.Second))
	i.network.set(true)
	start := time.Now()
	i.end()
	if took := time.Since(start); i.err != nil || took > 21*time.Second {
		t.Errorf("ended after %v: %v", took, i.err)
	}
	w.start("b")
	w.await(time.Minute)
	w.check()
	i.network.set(false) // a process would be gone; here its goroutines have to end
	<-time.After(w.span(time.Minute, 0))
}

// TestOversize: records that the output topics do not take.
func TestOversize(t *testing.T) { virtually(t, fetchtest.Config{}, oversize) }

func oversize(_ *testing.T, w *world) {
	big := bytes.Repeat([]byte("x"), 1_048_300) // with a letter's headers too large to copy
	w.letter(0, big, schemas.Malformed)
	w.start("a")
	w.await(time.Minute)
	w.check()
}
