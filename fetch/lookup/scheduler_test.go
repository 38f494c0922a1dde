package lookup

import (
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEventsOfOneCallShareRequests(t *testing.T) {
	spec(t, "one request for all", func(e *env) {
		e.event("call", 0, 1)
		e.event("call", 0, 1)
		e.event("call", 0, 2)
		e.expect("outcomes", e.run(time.Minute), "call miss@5", "call coalesced@5", "call coalesced@5")
		e.expectRequests("call@5")
	})
	spec(t, "an event joins a request in flight", func(e *env) {
		e.took = time.Second
		e.event("call", 0, 1)
		e.run(5500 * time.Millisecond)
		e.event("call", 0, 1)
		e.expect("outcomes", e.run(time.Minute), "call miss@6", "call coalesced@6")
		e.expectRequests("call@5")
	})
	spec(t, "a later event is a cache hit", func(e *env) {
		e.event("call", 0, 1)
		e.run(10 * time.Second)
		e.event("call", 0, 1)
		e.expect("outcomes", e.run(time.Minute), "call miss@5", "call hit@10")
	})
	spec(t, "an older event of the call brings the request forward", func(e *env) {
		e.event("call", 0, 1)
		e.run(2 * time.Second)
		e.event("call", 4*time.Second, 1)
		e.expect("outcomes", e.run(time.Minute), "call miss@3", "call coalesced@3")
	})
	spec(t, "but ends no back-off", func(e *env) {
		e.script("call", "retry found")
		e.event("call", 5*time.Second, 1)
		synctest.Wait()
		e.event("call", time.Minute, 1)
		synctest.Wait()
		e.expectRequests("call@0", "probe@0")
	})
	spec(t, "each event has its own window", func(e *env) {
		e.script("call", "not_yet")
		now := time.Now()
		e.Add([]*Event{{CallID: "call", Time: now.Add(-100 * time.Second)}, {CallID: "call", Time: now}})
		e.expect("outcomes", e.run(time.Hour), "call not_found after 4@20", "call not_found after 7@120")
		e.expectRequests("call@0", "call@5", "call@10", "call@20", "call@40", "call@80", "call@120")
	})
	spec(t, "a dead letter is not cached", func(e *env) {
		e.script("call", "rejected found")
		e.event("call", 0, 1)
		e.run(10 * time.Second)
		e.event("call", 0, 1)
		e.expect("outcomes", e.run(time.Minute), "call rejected after 1@5", "call miss@15")
	})
}

func TestDropForgetsEventsOfAnAssignment(t *testing.T) {
	spec(t, "no request for them", func(e *env) {
		e.event("call", 0, 1)
		e.Drop(1)
		e.expect("outcomes", e.run(time.Minute))
		e.expectRequests()
	})
	spec(t, "others keep their request", func(e *env) {
		e.event("call", 0, 1)
		e.event("call", 0, 2)
		e.Drop(1, 7)
		e.expect("outcomes", e.run(time.Minute), "call miss@5")
	})
	spec(t, "an event of a new assignment gets its outcome", func(e *env) {
		e.event("call", 0, 1)
		e.Drop(1)
		e.event("call", 0, 2)
		e.expect("outcomes", e.run(time.Minute), "call miss@5")
	})
	spec(t, "a request in flight fills the cache", func(e *env) {
		e.took = time.Second
		e.event("call", 0, 1)
		e.run(5500 * time.Millisecond)
		e.Drop(1)
		e.expect("outcomes", e.run(time.Minute))
		e.event("call", 0, 2)
		e.expect("outcomes", e.run(time.Minute), "call hit@65.5")
		e.expectRequests("call@5")
	})
	spec(t, "an event that joins a dropped request in flight", func(e *env) {
		e.took = time.Second
		e.event("call", 0, 1)
		e.run(5500 * time.Millisecond)
		e.Drop(1)
		e.event("call", 0, 2)
		e.expect("outcomes", e.run(time.Minute), "call miss@6")
		e.expectRequests("call@5")
	})
}

// A partition that is given up waits for its requests in flight and for nothing
// else.
func TestDrainAssignments(t *testing.T) {
	isDone := func(done <-chan struct{}) bool {
		synctest.Wait()
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	spec(t, "a request in flight ends, with its outcome; the others are not made", func(e *env) {
		e.took = time.Second
		e.event("in flight", 5*time.Second, 1)
		e.event("waits", 0, 1)
		e.event("kept", 0, 2)
		e.run(500 * time.Millisecond)
		done := e.DrainAssignments(1, 3)
		if isDone(done) {
			e.t.Error("drained while a request is in flight")
		}
		e.expect("outcomes", e.run(500*time.Millisecond), "in flight miss@1")
		if !isDone(done) {
			e.t.Error("not drained after the response")
		}
		e.expect("outcomes", e.run(time.Minute), "in flight miss@1", "kept miss@6")
		e.expectRequests("in flight@0", "kept@5")
	})
	spec(t, "a request that fails is not repeated", func(e *env) {
		e.took = time.Second
		e.script("call", "not_yet")
		e.event("call", 5*time.Second, 1)
		e.run(500 * time.Millisecond)
		done := e.DrainAssignments(1)
		e.expect("outcomes", e.run(time.Minute))
		e.expectRequests("call@0")
		if !isDone(done) || len(e.calls) > 0 {
			e.t.Errorf("not drained; %d calls", len(e.calls))
		}
	})
	spec(t, "nothing in flight", func(e *env) {
		e.event("call", 0, 1)
		if done := e.DrainAssignments(1); !isDone(done) {
			e.t.Error("not drained")
		}
	})
	spec(t, "an event of another assignment keeps the call", func(e *env) {
		e.took = time.Second
		e.script("call", "retry found")
		e.event("call", 5*time.Second, 1)
		e.event("call", 5*time.Second, 2)
		e.run(500 * time.Millisecond)
		done := e.DrainAssignments(1)
		outcomes := e.run(time.Minute)
		if len(outcomes) != 1 || !isDone(done) {
			e.t.Errorf("outcomes %q", outcomes)
		}
	})
}

// A panic costs the events of one call, whose dead letters say internal.
func TestPanicCostsOneCall(t *testing.T) {
	for _, word := range []string{"panic", "broken"} { // in the client; while its record is enriched
		spec(t, word, func(e *env) {
			e.script("bad", word)
			e.event("bad", 5*time.Second, 1)
			e.event("bad", 5*time.Second, 1)
			e.event("good", 4*time.Second, 1)
			const bad = "bad internal after 0@0"
			e.expect("outcomes", e.run(time.Minute), bad, bad, "good miss@1")
		})
	}
}

func TestDrainWaitsForRequestsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnv(t)
		e.took = 2 * time.Second
		e.event("in flight", 5*time.Second, 1)
		e.event("waiting", 3*time.Second, 1)
		e.run(time.Second)
		e.Drain()
		select {
		case <-e.Drained():
			t.Error("drained with a request in flight")
		case <-time.After(500 * time.Millisecond):
		}
		<-e.Drained()
		e.expect("outcomes", e.run(time.Minute), "in flight miss@2")
		e.expectRequests("in flight@0")
	})
}

func TestRequestsAreLimited(t *testing.T) {
	many := func(e *env) {
		e.took = time.Second
		for n := range 9 {
			e.event(strconv.Itoa(n), 5*time.Second, 1)
		}
	}
	spec(t, "by concurrency", func(e *env) {
		many(e)
		for second, want := range []int{3, 6, 9} {
			if e.run(0); len(e.requested()) != want {
				e.t.Errorf("%d requests after %d s, want %d", len(e.requested()), second, want)
			}
			e.run(time.Second)
		}
	}, func(cfg *Config) { cfg.Concurrency = 3 })
	spec(t, "by the rate limiter", func(e *env) {
		many(e)
		for range 20 {
			before := len(e.requested())
			e.run(time.Second)
			if n := len(e.requested()) - before; n > 2 {
				e.t.Errorf("%d requests in one second", n)
			}
		}
		if len(e.requested()) != 9 {
			e.t.Errorf("%d requests", len(e.requested()))
		}
	}, func(cfg *Config) {
		cfg.Limiter = NewLimiter(true)
		cfg.Limiter.SetShare(time.Now(), 2, 0)
	})
	var valid atomic.Bool
	spec(t, "by the lease", func(e *env) {
		e.event("call", 5*time.Second, 1)
		e.run(10050 * time.Millisecond)
		e.expectRequests()
		valid.Store(true)
		e.run(time.Second)
		e.expectRequests("call@10.1")
	}, func(cfg *Config) { cfg.Lease = leaseFunc(valid.Load) })
}
