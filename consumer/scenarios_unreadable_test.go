package consumer_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
	"enricher/test/harness"
)

// The invariant of these scenarios: a producer that changes how it serialises
// cannot turn its calls into dead letters without an end. Between two events that
// can be parsed, an assignment of a partition dead-letters at most as many as the
// guard allows. Nothing else waits for it, and nothing is lost or duplicated.

// brokenPartition is the one that FeedAll feeds.
const brokenPartition = 0

// limit is --max-consecutive-dead-letters in these scenarios, unproven how many
// malformed events an assignment dead-letters before the first that can be parsed.
const (
	limit    = 1000
	unproven = 20
)

// malformedEvents are as a producer writes them that encodes JSON twice.
func malformedEvents(n int) []audit.Expect {
	all := make([]audit.Expect, n)
	for i := range all {
		all[i] = audit.Expect{Value: fmt.Appendf(nil, `"{\"CallId\":\"m%d\"}"`, i), Reasons: []schemas.Reason{schemas.Malformed}}
	}
	return all
}

// feedOthers feeds a call to every partition but brokenPartition at every interval,
// until the caller calls stop.
func (e *env) feedOthers(every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
			for p := range int32(partitions) {
				if p != brokenPartition {
					e.FeedCall(p, fmt.Sprintf("other-%d-%d", n, p))
				}
			}
		}
	}()
	return func() { cancel(); <-done }
}

// checkOthers fails the test unless the events of every partition but
// brokenPartition were enriched without a delay.
func (e *env) checkOthers() {
	e.T.Helper()
	n, slowest := 0, time.Duration(0)
	for _, r := range e.Read(e.Enriched) {
		source, err := audit.SourceOf(r)
		if err != nil {
			e.T.Fatal(err)
		}
		if source.Partition == brokenPartition {
			continue
		}
		for _, h := range r.Headers {
			if h.Key == schemas.HeaderOriginalTimestamp {
				ms, _ := strconv.ParseInt(string(h.Value), 10, 64)
				n, slowest = n+1, max(slowest, r.Timestamp.Sub(time.UnixMilli(ms)))
			}
		}
	}
	if slowest > harness.LookupDelay+e.choose(time.Second, 3*time.Second) || n == 0 {
		e.T.Errorf("%d events of other partitions enriched, the slowest after %v", n, slowest)
	}
}

// countDead returns the number of dead letters of malformed events.
func (e *env) countDead() int {
	e.T.Helper()
	n := 0
	for _, r := range e.Read(e.Dead) {
		if l, ok := producer.ParseDeadLetter(r); ok && l.Reason == schemas.Malformed {
			n++
		}
	}
	return n
}

func (e *env) checkBlocked(i *harness.Instance, blocked, dead int) {
	e.T.Helper()
	if n := i.Metric("enricher_blocked_partitions", string(consumer.UnreadableEvents)); n != float64(blocked) {
		e.T.Errorf("%v partitions blocked, want %d", n, blocked)
	}
	if n := strings.Count(i.NotReady(), string(consumer.UnreadableEvents)+": "+e.In); n != blocked {
		e.T.Errorf("not ready for %q, want %d partitions with unreadable events", i.NotReady(), blocked)
	}
	if n := e.countDead(); n != dead {
		e.T.Errorf("%d dead letters, want %d", n, dead)
	}
}

func TestUnreadableEventsBlockTheirPartition(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, unreadableEvents)
}

func TestKafkaUnreadableEventsBlockTheirPartition(t *testing.T) {
	onKafka(t, fetchtest.Config{}, unreadableEvents)
}

// unreadableEvents: a producer changes its serialiser, and 50,000 events later it is
// repaired. Meanwhile the instance is restarted, drained and killed.
func unreadableEvents(t *testing.T, e *env) {
	i := e.Start("a")
	<-time.After(shareDelay)
	stop := e.feedOthers(300 * time.Millisecond)
	e.FeedCall(brokenPartition, "before")
	e.pause(harness.LookupDelay+time.Second, 3*time.Second)

	e.FeedAll(malformedEvents(50_000)...)
	e.pause(time.Minute, 15*time.Second) // the backlog is counted every ten seconds
	e.checkBlocked(i, 1, limit)
	if r := i.NotReady(); !strings.Contains(r, "a string that contains JSON") || !strings.Contains(r, fmt.Sprintf("%s[%d] at offset %d", e.In, brokenPartition, limit+1)) {
		t.Errorf("not ready for %q, want what the events look like, and where", r)
	}
	if n := i.Metric("enricher_backlog_events"); n < 49_000 {
		t.Errorf("a backlog of %v events, want those that are withheld", n)
	}
	stop()
	e.pause(harness.LookupDelay+time.Second, 3*time.Second)
	e.checkOthers()

	i.Drain()
	i = e.Start("a")
	e.pause(time.Minute, 10*time.Second)
	e.checkBlocked(i, 1, limit+unproven)
	i.CutOff()
	i = e.Start("b")
	e.pause(time.Minute, 10*time.Second)
	e.checkBlocked(i, 1, limit+2*unproven)

	stop = e.feedOthers(300 * time.Millisecond)
	repaired := time.Now()
	e.FeedCall(brokenPartition, "repaired")
	e.Eventually(time.Minute, func() error {
		if n := len(e.Audit().Lost); n > 50*partitions {
			return fmt.Errorf("%d events without outcome", n)
		}
		return nil
	})
	stop()
	e.Await(time.Minute)
	e.Check()
	for _, r := range e.Read(e.Enriched) {
		if string(r.Key) == "repaired" && r.Timestamp.Sub(repaired) > harness.ResumeAfterUnreadable {
			t.Errorf("the repaired producer's event was enriched after %v", r.Timestamp.Sub(repaired))
		}
	}
	<-time.After(2 * time.Second)
	e.checkBlocked(i, 0, 50_000)
	if r := i.NotReady(); r != "" {
		t.Errorf("not ready afterwards: %s", r)
	}
}

// TestUnreadableEventsOfAllPartitions: everything that the producers write is
// malformed from the start.
func TestUnreadableEventsOfAllPartitions(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(_ *testing.T, e *env) {
		i := e.Start("a")
		for n, event := range malformedEvents(50 * partitions) {
			e.Feed(int32(n%partitions), event)
		}
		<-time.After(time.Minute)
		e.checkBlocked(i, partitions, unproven*partitions)
		e.FeedCalls("repaired-", partitions)
		e.Await(time.Minute)
		e.Check()
		<-time.After(2 * time.Second)
		e.checkBlocked(i, 0, 50*partitions)
	})
}

// TestSomeMalformedEventsBlockNothing: one of two producers of a partition is
// broken, in several proportions, with callbacks of other types in between. No
// malformed event waits for one that can be parsed.
func TestSomeMalformedEventsBlockNothing(t *testing.T) {
	const limit = 100
	for name, malformed := range map[string]int{"every other one": 1, "nineteen of twenty": 19, "just the limit": limit} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				i := e.Start("a", func(c *consumer.Config) { c.MaxConsecutiveDeadLetters = limit })
				<-time.After(shareDelay)
				for n := range 3 * limit / malformed {
					e.FeedCall(brokenPartition, "good-"+strconv.Itoa(n))
					e.FeedAll(append(malformedEvents(malformed), audit.Expect{Value: []byte(`{"CallbackCommand":"Call.CallbackAfterStartCall"}`)})...)
					<-time.After(time.Second)
				}
				<-time.After(time.Second)
				e.checkBlocked(i, 0, 3*limit/malformed*malformed)
				e.Await(time.Minute)
				e.Check()
				if n := i.Logs.FilterMessage("partition blocked").Len(); n > 0 {
					t.Errorf("blocked %d times", n)
				}
			})
		})
	}
}

// TestLongRunsOfMalformedEventsPass: each row is longer than the limit, but an event
// that can be parsed is behind it already.
func TestLongRunsOfMalformedEventsPass(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(_ *testing.T, e *env) {
		for n := range 4 {
			e.FeedAll(malformedEvents(5 * limit)...)
			e.FeedCall(brokenPartition, "good-"+strconv.Itoa(n))
		}
		i := e.Start("a")
		<-time.After(shareDelay)
		stop := e.feedOthers(300 * time.Millisecond)
		<-time.After(30 * time.Second)
		stop()
		e.Await(30 * time.Second)
		e.Check()
		e.checkOthers()
		e.checkBlocked(i, 0, 4*5*limit)
	})
}

// TestOtherCallbacksReleaseNothing: a producer's other callbacks can be parsed, but
// those of calls that have ended cannot.
func TestOtherCallbacksReleaseNothing(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(_ *testing.T, e *env) {
		i := e.Start("a")
		var events []audit.Expect
		for _, m := range malformedEvents(5 * unproven) {
			events = append(events, m, audit.Expect{Value: []byte(`{"CallbackCommand":"Call.CallbackAfterStartCall"}`)})
		}
		e.FeedAll(events...)
		<-time.After(time.Minute)
		e.checkBlocked(i, 1, unproven)
		e.FeedCall(brokenPartition, "repaired")
		e.Await(time.Minute)
		e.Check()
	})
}

func TestUnlimitedMalformedEvents(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(_ *testing.T, e *env) {
		i := e.Start("a", func(c *consumer.Config) { c.MaxConsecutiveDeadLetters = 0 })
		e.FeedAll(malformedEvents(3 * limit)...)
		e.Await(time.Minute)
		e.Check()
		e.checkBlocked(i, 0, 3*limit)
	})
}

// TestWithheldEventsDeletedByRetention: those that retention deletes are counted,
// once, and the others have their outcomes.
func TestWithheldEventsDeletedByRetention(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		i := e.Start("a")
		for range 10 * unproven { // they have no outcome, so they are not in the ledger
			e.Produce(&kgo.Record{Topic: e.In, Partition: brokenPartition, Value: []byte("junk")})
		}
		<-time.After(time.Minute)
		e.checkBlocked(i, 1, unproven)
		var before kadm.Offsets
		before.Add(kadm.Offset{Topic: e.In, Partition: brokenPartition, At: 10 * unproven})
		if _, err := e.Admin().DeleteRecords(context.Background(), before); err != nil {
			t.Fatal(err)
		}
		for _, m := range malformedEvents(unproven) {
			e.Feed(brokenPartition, m)
			<-time.After(time.Second)
		}
		e.checkBlocked(i, 1, unproven)
		e.FeedCall(brokenPartition, "repaired")
		e.Eventually(time.Minute, func() error {
			if a := e.Audit(); len(a.Lost) > 0 {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
		e.CheckOffsets()
		if n := i.Metric("enricher_events_deleted_by_retention_total"); n != 9*unproven {
			t.Errorf("%v events deleted by retention, want %d", n, 9*unproven)
		}
		<-time.After(2 * time.Second)
		e.checkBlocked(i, 0, 2*unproven)
	})
}
