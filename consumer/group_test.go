package consumer_test

import (
	"strconv"
	"testing"
	"time"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
)

// The tests of this file run in real time: while a member joins, the Kafka
// client waits for a mutex, which stops the clock of a bubble.

// quick shortens what members wait for.
func quick(c *consumer.Config) {
	c.Schedule.Settle = 300 * time.Millisecond
	c.Heartbeat = 100 * time.Millisecond
	c.SessionTimeout = 1500 * time.Millisecond
}

// TestComingAndGoing: members join, leave and die under load.
func TestComingAndGoing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetchtest.Config{Rate: 200, Misbehave: []fetchtest.Chance{
		{Percent: 3, Fault: fetchtest.BadGateway()}, {Percent: 2, Fault: fetchtest.NotJSON()}, {Percent: 2, Fault: fetchtest.CutBody()},
	}})
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

// TestQuotaIsUsed: three members with a backlog on all partitions use all of
// it, all the time.
func TestQuotaIsUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fetchtest.Config{Rate: 200, Latency: func(string) time.Duration { return 40 * time.Millisecond }})
	w.calls("c", 5000)
	for _, name := range []string{"a", "b", "c"} {
		w.start(name, quick)
		<-time.After(time.Second)
	}
	<-time.After(4 * time.Second)
	before := w.api.Requests()
	<-time.After(10 * time.Second)
	if used := w.api.Requests() - before; used < 200*10*97/100 {
		t.Errorf("%d calls in ten seconds, want nearly 2,000", used)
	}
	if n := w.api.MaxInAnyWindow(time.Second); n > 200 {
		t.Errorf("%d requests in one second", n)
	}
}
