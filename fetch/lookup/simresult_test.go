package lookup_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/schemas"
)

// simResult is what became of the events of a simulation.
type simResult struct {
	*simulation
	deadLetters             map[string]int // by kind and reason
	healthyDead             int
	healthyOpen, otherOpen  int
	late50, late99, lateMax time.Duration // healthy events, after they could have been enriched
	took99                  time.Duration // the same, from the first request
	pausedFor               time.Duration
	requestsPerCall         map[kind]float64
	mostRequests            map[kind]int // for one call
	lastDone                time.Duration
	deadAt                  []time.Duration
}

func (sim *simulation) result() *simResult {
	r := &simResult{simulation: sim, deadLetters: map[string]int{}, requestsPerCall: map[kind]float64{}, mostRequests: map[kind]int{}}
	var late, took []time.Duration
	calls := map[kind]int{}
	for _, c := range sim.calls {
		calls[c.kind]++
		r.requestsPerCall[c.kind] += float64(len(c.attempts))
		r.mostRequests[c.kind] = max(r.mostRequests[c.kind], len(c.attempts))
		switch {
		case c.done == 0 && c.kind == healthy:
			r.healthyOpen++
		case c.done == 0:
			r.otherOpen++
		case c.failure != nil:
			r.deadLetters[string(c.kind)+"/"+string(c.failure.Reason)]++
			r.deadAt = append(r.deadAt, c.done)
			if c.kind == healthy {
				r.healthyDead++
			}
		default:
			late = append(late, c.done-max(c.onTopic, c.time+sim.retry.LookupDelay, c.ready))
			took = append(took, c.done-c.attempts[0].start)
		}
		r.lastDone = max(r.lastDone, c.done)
	}
	for _, e := range sim.events[sim.next:] {
		if e.kind == healthy {
			r.healthyOpen++
		} else {
			r.otherOpen++
		}
	}
	for k, n := range calls {
		r.requestsPerCall[k] /= float64(n)
	}
	if len(late) > 0 {
		slices.Sort(late)
		slices.Sort(took)
		r.late50, r.late99, r.lateMax = late[len(late)/2], late[len(late)*99/100], late[len(late)-1]
		r.took99 = took[len(took)*99/100]
	}
	for _, p := range sim.pauses {
		r.pausedFor += p[1] - p[0]
	}
	slices.Sort(r.deadAt)
	return r
}

func (r *simResult) String() string {
	per := ""
	for _, k := range []kind{healthy, missing, poison, broken} {
		if n := r.requestsPerCall[k]; n > 0 {
			per += fmt.Sprintf(" %c %.2f (most %d)", k, n, r.mostRequests[k])
		}
	}
	ms := time.Millisecond
	return fmt.Sprintf("%d events, %d requests, %d probes, %d scouts, per call%s | healthy: late p50 %v p99 %v max %v, took p99 %v, dead letters %d, open %d | others open %d | dead letters %v | paused %v in %d pauses | done after %v",
		len(r.events), r.requests, len(r.probes), r.scouts, per, r.late50.Round(ms), r.late99.Round(ms), r.lateMax.Round(ms), r.took99.Round(ms),
		r.healthyDead, r.healthyOpen, r.otherOpen, r.deadLetters, r.pausedFor.Round(ms), len(r.pauses), r.lastDone.Round(time.Second))
}

// check checks the invariants that hold in every simulation. healthyDead is the
// number of healthy events that may become dead letters.
func (r *simResult) check(t *testing.T, healthyDead int) {
	t.Helper()
	if r.healthyDead > healthyDead {
		r.bad("%d healthy dead letters, want at most %d", r.healthyDead, healthyDead)
	}
	for _, c := range r.calls {
		if c.failure != nil {
			r.checkEvidence(c)
		}
	}
	r.checkLimit()
	if len(r.problems) > 0 {
		for _, p := range r.problems[:min(5, len(r.problems))] {
			t.Errorf("%s: %s", r.name, p)
		}
		t.Errorf("%s: %d problems; %v", r.name, len(r.problems), r)
	}
}

// checkEvidence checks that a dead letter has its reasons.
func (r *simResult) checkEvidence(c *simCall) {
	last := c.attempts[len(c.attempts)-1]
	switch c.failure.Reason {
	case schemas.LookupFailed, schemas.UnknownCode:
		var row []attempt // of failures
		for _, a := range c.attempts {
			if a.verdict.Good() {
				row = nil
			} else if a.verdict.Bad() {
				row = append(row, a)
			}
		}
		if len(row) < 7 {
			r.bad("%v after %d failures", c.failure.Reason, len(row))
			return
		}
		if u := r.unpaused(row[0].end, c.done); u < r.retry.RetryWindow {
			r.bad("%v after %v of unpaused time", c.failure.Reason, u)
		}
		from, to := row[len(row)-2].end, last.end
		i, _ := slices.BinarySearch(r.goods, from)
		if i == len(r.goods) || r.goods[i] > to {
			r.bad("%v, though no other call got a good response from %v to %v", c.failure.Reason, from, to)
		}
	case schemas.NotFound, schemas.NotEnded, schemas.Expired:
		n := 0
		for _, a := range c.attempts {
			if a.verdict == fetch.NotYet {
				n++
			}
		}
		if u := r.unpaused(c.time, last.start); n < 2 || u < r.retry.NotFoundWindow {
			r.bad("%v after %d responses and %v of unpaused time", c.failure.Reason, n, u)
		}
	case schemas.Rejected:
	default:
		r.bad("dead letter %v", c.failure.Reason)
	}
}

// checkLimit checks the limit of dead letters between two records found.
func (r *simResult) checkLimit() {
	if r.limit == 0 {
		return
	}
	slices.Sort(r.founds)
	count, limit, i := 0, min(r.limit, 20), 0
	for _, at := range r.deadAt {
		for i < len(r.founds) && r.founds[i] <= at {
			count, limit, i = 0, r.limit, i+1
		}
		if count++; count > limit {
			r.bad("%d dead letters in a row at %v, want at most %d", count, at, limit)
			return
		}
	}
}

// Makers of events.

func always(k kind) func(int) kind { return func(int) kind { return k } }

// every makes every nth call one of kind k, and the others healthy.
func every(n int, k kind) func(int) kind {
	return func(i int) kind {
		if i%n == n-1 {
			return k
		}
		return healthy
	}
}

// live makes events as they happen, so many a second on average.
func live(seed uint64, from, to time.Duration, perSecond float64, kinds func(i int) kind) (events []simEvent) {
	rng := rand.New(rand.NewPCG(seed, 3))
	for at := float64(from); at < float64(to); at += rng.ExpFloat64() / perSecond * 1e9 {
		t := time.Duration(math.Round(at))
		events = append(events, simEvent{onTopic: t, time: t, kind: kinds(len(events))})
	}
	return events
}

// backlog makes n events that are that old.
func backlog(n int, age time.Duration, kinds func(i int) kind) (events []simEvent) {
	for i := range n {
		t := -age + time.Duration(i)
		events = append(events, simEvent{time: t, kind: kinds(i), ready: t})
	}
	return events
}

// merge merges events by when they are on the topic.
func merge(all ...[]simEvent) []simEvent {
	events := slices.Concat(all...)
	slices.SortStableFunc(events, func(a, b simEvent) int { return int(a.onTopic - b.onTopic) })
	return events
}
