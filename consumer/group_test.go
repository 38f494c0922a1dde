package consumer_test

import (
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
)

// The tests of this file run in real time: while a member joins, the Kafka
// client waits for a mutex, which stops the clock of a bubble.

// quick shortens what members wait for.
func quick(c *consumer.Config) {
	c.Retry.LookupDelay = 300 * time.Millisecond
	c.Heartbeat = 100 * time.Millisecond
	c.SessionTimeout = 1500 * time.Millisecond
}

// TestInRealTime is all that depends on the clock. It runs by itself, because
// the scenarios on virtual time keep the processors busy.
func TestInRealTime(t *testing.T) {
	for _, s := range inRealTime {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t, newWorld(t, s.api))
		})
	}
	t.Run("crash points", crashPoints)
	t.Run("mutant is caught", mutantIsCaught)
}

// scenario is one that runs on an embedded and on a real Kafka.
type scenario struct {
	name  string
	api   fetchtest.Config
	run   func(*testing.T, *world)
	alone bool // it needs the whole machine when the broker is a real one
}

// inRealTime are those that run in real time on both.
var inRealTime = []scenario{
	{"coming and going", fetchtest.Config{Rate: 200, Misbehave: []fetchtest.Chance{
		{Percent: 3, Fault: fetchtest.BadGateway()}, {Percent: 2, Fault: fetchtest.NotJSON()}, {Percent: 2, Fault: fetchtest.CutBody()},
	}}, comingAndGoing, true},
	{"quota is used", fetchtest.Config{Rate: 200, Latency: func(string) time.Duration { return 40 * time.Millisecond }}, quotaIsUsed, true},
	{"joins abort nothing", fetchtest.Config{}, joinsAbortNothing, true},
	{"twins", fetchtest.Config{}, twins, false},
	{"topic recreated", fetchtest.Config{}, topicRecreated(120), false},
	{"topic recreated shorter", fetchtest.Config{}, topicRecreated(24), false},
	{"log shorter than committed", fetchtest.Config{}, logShorter, false},
	{"offsets of another topic", fetchtest.Config{}, offsetsOfAnother, false},
	{"answer to produce lost", fetchtest.Config{}, answerLost(kmsg.Produce), false},
	{"answer to offsets lost", fetchtest.Config{}, answerLost(kmsg.TxnOffsetCommit), false},
	{"answer to end lost", fetchtest.Config{}, answerLost(kmsg.EndTxn), false},
	{"offsets reset", fetchtest.Config{}, offsetsReset, false},
	{"two joins", fetchtest.Config{}, twoJoins, false},
	{"unknown end that happened", fetchtest.Config{}, unknownEnd(true), false},
	{"unknown end that did not", fetchtest.Config{}, unknownEnd(false), false},
	{"expelled", fetchtest.Config{}, expelled, false},
	{"black hole", fetchtest.Config{}, blackHole, false},
	{"close in a black hole", fetchtest.Config{}, closeInHole, false},
	{"answer to produce too late", fetchtest.Config{}, heldTooLong(kmsg.Produce, true), false},
	{"end too late", fetchtest.Config{}, heldTooLong(kmsg.EndTxn, false), false},
}

// comingAndGoing: members join, leave and die under load.
func comingAndGoing(t *testing.T, w *world) {
	feeding := make(chan struct{})
	go func() {
		defer close(feeding)
		for n := range 3000 {
			w.call(int32(n%partitions), "c"+strconv.Itoa(n/2))
			<-time.After(4 * time.Millisecond)
		}
	}()
	pause := func(ms int) { <-time.After(time.Duration(ms) * time.Millisecond) }
	a := w.start("a", quick)
	pause(1500)
	b := w.start("b", quick)
	pause(1700)
	c := w.start("c", quick)
	pause(1500)
	a.die()
	pause(3000)
	b.end()
	<-a.done
	w.start("a", quick)
	pause(1300)
	c.die()
	pause(2500)
	<-c.done
	w.start("c", quick)
	<-feeding
	w.await(time.Minute)
	w.check()
	if n := w.api.MaxInAnyWindow(time.Second); n > 200 {
		t.Errorf("%d requests in one second", n)
	}
	if n := w.api.OverQuota(); n > 0 {
		t.Errorf("%d requests over the quota", n)
	}
}

// quotaIsUsed: three members with a backlog on all partitions use all of it,
// all the time.
func quotaIsUsed(t *testing.T, w *world) {
	w.calls("c", 5000)
	for _, name := range []string{"a", "b", "c"} {
		w.start(name, quick)
		<-time.After(time.Second)
	}
	// Five seconds after the last share the limiter has seen how fast the API is.
	<-time.After(shareDelay + 5*time.Second)
	// The median of eleven seconds: what a machine that stops for a moment
	// costs is not the quota's.
	start := time.Now()
	<-time.After(11 * time.Second)
	seconds := make([]int, 11)
	for _, at := range w.api.Arrivals() {
		if n := int(at.Sub(start) / time.Second); !at.Before(start) && n < len(seconds) {
			seconds[n]++
		}
	}
	slices.Sort(seconds)
	if used := seconds[len(seconds)/2]; used < 200*98/100 {
		t.Errorf("%d calls in a second, want 98 %% of 200; all seconds: %v", used, seconds)
	}
	if n := w.api.MaxInAnyWindow(time.Second); n > 200 {
		t.Errorf("%d requests in one second", n)
	}
}

// joinsAbortNothing: members that join and leave in good order, and the
// partitions that they take and give, cost no transaction.
func joinsAbortNothing(t *testing.T, w *world) {
	stop := w.keepCalling(4 * time.Millisecond)
	// A rate without a limit and a short interval: there is nearly always a
	// transaction for a join to meet.
	busy := func(c *consumer.Config) {
		quick(c)
		c.APIRate, c.CommitInterval = 0, 5*time.Millisecond
	}
	instances := []*instance{w.start("a", busy), w.start("b", busy)}
	<-time.After(2 * time.Second)
	for range 5 {
		c := w.start("c", busy)
		instances = append(instances, c)
		<-time.After(1500 * time.Millisecond)
		c.end()
		<-time.After(500 * time.Millisecond)
	}
	stop()
	w.await(time.Minute)
	w.check()
	aborted, committed := 0.0, 0.0
	for _, i := range instances {
		aborted += i.metric("enricher_transactions_total", "aborted")
		committed += i.metric("enricher_transactions_total", "committed")
	}
	t.Logf("%v transactions committed, %v aborted", committed, aborted)
	// A join that begins within the few microseconds before a transaction does
	// still meets it.
	if aborted > 2 {
		t.Errorf("%v transactions were aborted by ten joins and leaves", aborted)
	}
}

// answerLost: the connection is cut after a request of a transaction went out,
// and no other one can be made for longer than the client tries: nobody here
// knows what became of it. The first one arrived, the second one did not.
func answerLost(key kmsg.Key) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		i := w.start("a", quick, func(c *consumer.Config) {
			opts := c.Kafka
			// The client tries for 30 s by itself.
			c.Kafka = func() []kgo.Opt { return append(opts(), kgo.RetryTimeout(time.Second)) }
		})
		var sent, cut atomic.Int64
		i.network.onRequest(func(k kmsg.Key) *fate {
			if k != key || sent.Add(1)%4 != 0 || cut.Load() == 2 {
				return nil
			}
			dark := func() {
				i.network.set(true)
				time.AfterFunc(3*time.Second, func() { i.network.set(false) })
			}
			if cut.Add(1) == 1 {
				return &fate{after: dark}
			}
			return &fate{before: dark}
		})
		for n := 0; cut.Load() < 2 || n < 10; n++ {
			if n > 150 {
				t.Fatal("no second transaction ends: ", w.ledger.Check(w.outputs()))
			}
			w.calls("c"+strconv.Itoa(n)+"-", partitions)
			<-time.After(200 * time.Millisecond)
		}
		w.await(time.Minute)
		w.check()
	}
}

// offsetsReset: an operator sets the group back; every event comes once more,
// and nothing says that it was done.
func offsetsReset(t *testing.T, w *world) {
	i := w.start("a", quick)
	w.calls("c", 5*partitions)
	w.await(time.Minute)
	w.check()
	i.end()
	w.setOffsets(2, "")
	w.start("a", quick)
	for deadline := time.Now().Add(20 * time.Second); len(w.outputs()) < 8*partitions; <-time.After(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d outcomes, want %d", len(w.outputs()), 8*partitions)
		}
	}
	w.checkOffsets()
	if a := w.ledger.Check(w.outputs()); len(a.Doubled) != 3*partitions || len(a.Lost)+len(a.Wrong) > 0 {
		t.Error(a)
	}
}
