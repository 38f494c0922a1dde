package lookup_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/lookup"
)

// step is a response that a breaker observes.
type step struct {
	at      float64 // s
	verdict fetch.Verdict
	probe   bool
	started float64 // s before the response; 0: 0.01
	paused  bool    // afterwards
}

func good(at float64) step { return step{at: at, verdict: fetch.NotYet} }

// bads are n bad responses, a hundredth of a second apart, from a time on.
func bads(n int, from float64) (all []step) {
	for i := range n {
		all = append(all, step{at: from + float64(i)/100, verdict: fetch.Retry})
	}
	return all
}

func steps(parts ...any) (all []step) {
	for _, p := range parts {
		switch p := p.(type) {
		case step:
			all = append(all, p)
		case []step:
			all = append(all, p...)
		}
	}
	return all
}

func observe(b *lookup.Breaker, s step) {
	if s.started == 0 {
		s.started = .01
	}
	r := &fetch.Response{Verdict: s.verdict}
	if s.probe {
		b.ProbeSent()
		b.ObserveProbe(at(s.at), r)
	} else {
		b.Observe(at(s.at), at(s.at-s.started), r, false)
	}
}

func TestBreakerTransitions(t *testing.T) {
	probe := func(at float64, v fetch.Verdict, paused bool) step {
		return step{at: at, verdict: v, probe: true, paused: paused}
	}
	bad := func(at float64, v fetch.Verdict, paused bool) step { return step{at: at, verdict: v, paused: paused} }
	for name, all := range map[string][]step{
		"good responses":                               {good(0), {at: 5, verdict: fetch.Found}, {at: 9, verdict: fetch.Rejected}},
		"throttled is neither good nor bad":            {good(0), bad(5, fetch.Throttled, false), bad(5.1, fetch.Retry, true)},
		"one bad response within a second":             {good(0), bad(.9, fetch.Retry, false)},
		"one bad response after a second":              {good(0), bad(1, fetch.Retry, true)},
		"one bad response before any good one":         {bad(0, fetch.AccountRejected, true)},
		"every kind of bad response: account":          {good(0), bad(1, fetch.AccountRejected, true)},
		"every kind of bad response: unknown":          {good(0), bad(1, fetch.Unknown, true)},
		"19 in a row":                                  steps(good(0), bads(19, .1)),
		"20 in a row":                                  steps(good(0), bads(19, .1), bad(.5, fetch.Retry, true)),
		"19, a good one, 19":                           steps(good(0), bads(19, .1), good(.3), bads(19, .4)),
		"a good response to a request changes nothing": {good(0), bad(1, fetch.Retry, true), {at: 1.1, verdict: fetch.Found, started: .5, paused: true}},
		"a probe: not yet":                             {good(0), bad(1, fetch.Retry, true), probe(1.1, fetch.NotYet, false)},
		"a probe: found":                               {good(0), bad(1, fetch.Retry, true), probe(1.1, fetch.Found, false)},
		"a probe: rejected":                            {good(0), bad(1, fetch.Retry, true), probe(1.1, fetch.Rejected, false)},
		"a probe: retry":                               {good(0), bad(1, fetch.Retry, true), probe(1.1, fetch.Retry, true)},
		"a probe: throttled":                           {good(0), bad(1, fetch.Retry, true), probe(1.1, fetch.Throttled, true)},
		"a probe: unknown":                             {good(0), bad(1, fetch.Retry, true), probe(1.1, fetch.Unknown, true)},
		"a request from before the last resumption":    {good(0), bad(1, fetch.Retry, true), probe(1.1, fetch.NotYet, false), {at: 4, verdict: fetch.Retry, started: 3.5}},
		"a request from after it":                      {good(0), bad(1, fetch.Retry, true), probe(1.1, fetch.NotYet, false), bad(4, fetch.Retry, true)},
		"the count begins again after a pause":         steps(good(0), bads(19, .1), bad(.5, fetch.Retry, true), probe(.6, fetch.NotYet, false), bads(19, .7)),
	} {
		t.Run(name, func(t *testing.T) {
			b := &lookup.Breaker{}
			for i, s := range all {
				observe(b, s)
				if b.Paused() != s.paused {
					t.Fatalf("paused after step %d (%v at %v s): %v", i, s.verdict, s.at, b.Paused())
				}
			}
		})
	}
}

func TestNothingIsReportedBeforeAProbeFailed(t *testing.T) {
	b := &lookup.Breaker{}
	observe(b, step{at: 1, verdict: fetch.Retry})
	if _, _, reported := b.Reason(); reported || !b.Paused() {
		t.Error("reported before a probe has failed")
	}
	observe(b, step{at: 2, verdict: fetch.Retry, probe: true})
	if r, _, reported := b.Reason(); !reported || r != lookup.APIDown {
		t.Errorf("reported: %v, %v", reported, r)
	}
	observe(b, step{at: 3, verdict: fetch.NotYet, probe: true})
	if _, _, reported := b.Reason(); reported {
		t.Error("reported after the pause")
	}
}

// Unpaused against a plain sum, with more pauses than are kept one by one.
func TestUnpausedTime(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	b := &lookup.Breaker{}
	var pauses [][2]float64
	now := 0.0
	check := func(from, to float64) {
		t.Helper()
		want := to - from
		for _, p := range pauses {
			want -= max(0, min(to, p[1])-max(from, p[0]))
		}
		if got := b.Unpaused(at(from), at(to)).Seconds(); math.Abs(got-want) > .001 {
			t.Fatalf("after %d pauses: %v s between %v and %v, want %v", len(pauses), got, from, to, want)
		}
	}
	for range 1000 {
		now += 1.5 + 10*rng.Float64()
		from := now
		observe(b, step{at: now, verdict: fetch.Retry})
		pauses = append(pauses, [2]float64{from, math.Inf(1)})
		now += rng.ExpFloat64()
		check(from-3, now) // during a pause
		observe(b, step{at: now, verdict: fetch.NotYet, probe: true})
		pauses[len(pauses)-1][1] = now
		recent := pauses[max(0, len(pauses)-250)][0]
		a, z := recent+(now-recent)*rng.Float64(), recent+(now-recent)*rng.Float64()
		check(min(a, z), max(a, z))
		check(-5, now) // all of them: the total is exact, however old they are
	}
	if got := b.Unpaused(at(now), at(now-5)); got != 0 {
		t.Errorf("%v backwards", got)
	}
}

func TestEvidenceFollowsTheShareOfFailures(t *testing.T) {
	for _, c := range []struct {
		share    float64
		failures int // until they are evidence enough
	}{{0, 7}, {.1, 10}, {.5, 32}, {1, 526}} {
		b := &lookup.Breaker{}
		rng := rand.New(rand.NewPCG(1, 2))
		sum, n := 0.0, 5000
		for i := range 2 * n {
			v := fetch.Found
			if rng.Float64() < c.share {
				v = fetch.Retry
			}
			b.Observe(at(float64(i)), at(float64(i)), &fetch.Response{Verdict: v}, true)
			b.Observe(at(float64(i)), at(float64(i)), &fetch.Response{Verdict: fetch.Retry}, false) // of a repeat: no matter
			b.Observe(at(float64(i)), at(float64(i)), &fetch.Response{Verdict: fetch.Throttled}, true)
			if i >= n {
				sum += b.Evidence() / float64(n)
			}
		}
		if got := 16 / sum; got < float64(c.failures)*.9-1 || got > float64(c.failures)*1.1 {
			t.Errorf("with %v failing: %.1f failures are evidence enough, want %d", c.share, got, c.failures)
		}
	}
}

// A new key may be what the API waits for.
func TestProbeNow(t *testing.T) {
	b := &lookup.Breaker{}
	observe(b, step{at: 0, verdict: fetch.AccountRejected})
	for i := range 6 {
		observe(b, step{at: float64(i), verdict: fetch.AccountRejected, probe: true})
	}
	if wait := b.ProbeDelay(at(10)); wait != 25*time.Second {
		t.Errorf("next probe in %v", wait)
	}
	b.ProbeNow(at(10))
	if wait := b.ProbeDelay(at(10)); wait != 0 {
		t.Errorf("next probe in %v", wait)
	}
	b.ProbeSent()
	if wait := b.ProbeDelay(at(10)); wait == 0 {
		t.Error("a second probe, while one is in flight")
	}
}
