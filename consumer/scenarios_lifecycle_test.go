package consumer_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/harness"
)

func TestBrokerUnavailable(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, brokerUnavailable)
}

func TestKafkaBrokerUnavailable(t *testing.T) {
	onKafka(t, fetchtest.Config{}, brokerUnavailable)
}

// brokerUnavailable cuts the instance off from the broker at the start and then
// several times under load.
func brokerUnavailable(t *testing.T, e *env) {
	e.FeedCalls("early", 100)
	i := e.Start("a")
	i.Proxy.SetOffline(true)
	e.pause(time.Minute, 3*time.Second)
	if len(i.Ready()) == 0 {
		t.Error("ready without Kafka")
	}
	i.Proxy.SetOffline(false)
	e.Await(time.Minute)
	for range 5 {
		e.FeedCalls("mid"+strconv.Itoa(e.Fed)+"-", 100)
		e.pause(harness.LookupDelay, 300*time.Millisecond)
		i.Proxy.SetOffline(true)
		e.pause(15*time.Second, 3*time.Second)
		i.Proxy.SetOffline(false)
		e.pause(3*time.Second, time.Second)
	}
	e.Await(2 * time.Minute)
	e.Check()
	if len(i.Ready()) > 0 {
		t.Errorf("not ready afterwards: %v", i.Ready())
	}
}

// Slow APIs.
var (
	slowAPI = fetchtest.Config{Latency: func(string) time.Duration { return 3 * time.Second }}
	lateAPI = fetchtest.Config{Latency: func(string) time.Duration { return 100 * time.Millisecond }}
)

func TestDrainCompletesRequestsInFlight(t *testing.T) {
	inVirtualTime(t, slowAPI, drainCompletesRequestsInFlight)
}

func TestKafkaDrainCompletesRequestsInFlight(t *testing.T) {
	onKafka(t, slowAPI, drainCompletesRequestsInFlight)
}

// drainCompletesRequestsInFlight and commits their outcomes. It does not wait for
// an event whose next request is not due.
func drainCompletesRequestsInFlight(t *testing.T, e *env) {
	i := e.Start("a")
	e.FeedCalls("c", 40)
	e.API.Never("never")
	e.FeedDead(0, audittest.EndCall("never", time.Now()), schemas.NotFound)
	e.Eventually(30*time.Second, func() error { // until they are in flight
		if n := e.API.Requests(); n < 40 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	start := time.Now()
	i.Drain()
	if i.Err != nil {
		t.Fatal(i.Err)
	}
	if took := time.Since(start); took < time.Second || took > 6*time.Second {
		t.Errorf("drain took %v", took)
	}
	if n := len(e.Outputs()); n != 40 {
		t.Errorf("%d outputs after the drain, want 40", n)
	}
	requests := e.API.RequestsFor("c1")
	e.Start("b")
	e.Await(3 * time.Minute)
	e.Check()
	if e.API.RequestsFor("c1") != requests {
		t.Error("a call that was looked up before the drain was looked up again")
	}
}

func TestDrainEndsWithoutBroker(t *testing.T)      { inVirtualTime(t, lateAPI, drainEndsWithoutBroker) }
func TestKafkaDrainEndsWithoutBroker(t *testing.T) { onKafka(t, lateAPI, drainEndsWithoutBroker) }

// drainEndsWithoutBroker within DrainTimeout.
func drainEndsWithoutBroker(t *testing.T, e *env) {
	i := e.Start("a")
	e.FeedCalls("c", 200)
	e.pause(shareDelay, shareDelay)
	i.Proxy.SetOffline(true)
	start := time.Now()
	i.Drain()
	if took := time.Since(start); i.Err != nil || took > 21*time.Second {
		t.Errorf("ended after %v: %v", took, i.Err)
	}
	e.Start("b")
	e.Await(time.Minute)
	e.Check()
	i.Proxy.SetOffline(false) // a process would be gone; here its goroutines have to end
	e.pause(time.Minute, 0)
}
