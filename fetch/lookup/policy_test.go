package lookup_test

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/lookup"
)

// large runs the scenarios of a backlog at full size.
var large = flag.Bool("large", false, "run the backlog scenarios with 500,000 events instead of 50,000")

const (
	sec  = time.Second
	mins = time.Minute
)

// fails makes a share of all requests draw a verdict.
func fails(share float64, v fetch.Verdict) func(time.Duration, kind, *rand.Rand) (fetch.Verdict, time.Duration, bool) {
	return func(_ time.Duration, _ kind, rng *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return v, 0, rng.Float64() < share
	}
}

// during makes all requests of a period draw a verdict.
func during(from, to time.Duration, v fetch.Verdict) func(time.Duration, kind, *rand.Rand) (fetch.Verdict, time.Duration, bool) {
	return func(t time.Duration, _ kind, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return v, 0, t >= from && t < to
	}
}

// once makes one request in every period draw a verdict.
func once(period time.Duration, v fetch.Verdict) func(time.Duration, kind, *rand.Rand) (fetch.Verdict, time.Duration, bool) {
	next := period
	return func(t time.Duration, _ kind, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		if t < next {
			return 0, 0, false
		}
		next += period
		return v, 0, true
	}
}

// TestBadCallsCostOnlyThemselves: calls that alone draw bad responses become
// dead letters, and the healthy ones are as quick as without them.
func TestBadCallsCostOnlyThemselves(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []simEvent
		// requests is the most for one bad call. Back-off is random: the mean of the first
		// three is 14, with 17 at most in 25 runs; of the last 28, with 32 at most in 300.
		requests int
	}{
		{"1 % rejected for the account", live(1, 0, 10*mins, 100, every(100, poison)), 20},
		{"1 % always failing", live(1, 0, 10*mins, 100, every(100, broken)), 20},
		{"20 at once on a quiet topic", merge(live(1, 0, 20*mins, 1, always(healthy)), live(2, 10*sec, 10*sec+200*ms, 100, always(poison))), 20},
		{"one, and others every two minutes", merge(live(1, 0, time.Hour, 1./120, always(healthy)), []simEvent{{onTopic: mins, time: mins, kind: broken}}), 36},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			end := c.events[len(c.events)-1].onTopic
			c.events = append(c.events, live(3, end, end+30*mins, 1./30, always(healthy))...)
			r := (&simulation{name: c.name, rate: 200, until: end + time.Hour, limit: 1000, events: c.events}).run(t, 1)
			t.Log(r)
			r.check(t, 0)
			if r.otherOpen > 0 || r.healthyOpen > 0 {
				t.Errorf("open: %d bad ones, %d healthy ones", r.otherOpen, r.healthyOpen)
			}
			// One exchange, and that of a probe.
			if r.late99 > r.exchange+10*ms {
				t.Errorf("p99 of the healthy events is %v", r.late99)
			}
			if r.lateMax > 2*sec {
				t.Errorf("a healthy event was %v late", r.lateMax)
			}
			for _, k := range []kind{poison, broken} {
				if r.mostRequests[k] > c.requests {
					t.Errorf("%d requests for one bad call", r.mostRequests[k])
				}
			}
		})
	}
}

// TestThrottlingEndsEveryWindow: throttled responses slow the pace down and
// change nothing else: calls without a record are requested as often as the
// schedule says, and end on time.
func TestThrottlingEndsEveryWindow(t *testing.T) {
	for _, c := range []struct {
		name   string
		retry  lookup.RetryPolicy
		period time.Duration
		lasts  time.Duration
	}{
		{"one in 5 s, window of 10 s", lookup.RetryPolicy{LookupDelay: 5 * sec, NotFoundWindow: 10 * sec, RetryWindow: 5 * mins}, 5 * sec, 10 * mins},
		{"one a minute", productionRetry, mins, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := (&simulation{name: c.name, rate: 200, until: c.lasts + time.Hour, limit: 1000, retry: c.retry,
				events: live(1, 0, c.lasts, 5, every(10, missing)), respond: once(c.period, fetch.Throttled)}).run(t, 1)
			t.Log(r)
			r.check(t, 0)
			if r.otherOpen+r.healthyOpen > 0 || len(r.probes) > 0 {
				t.Errorf("%d open, %d probes", r.otherOpen+r.healthyOpen, len(r.probes))
			}
			if n := r.mostRequests[missing]; n > 8 { // 6 steps, and a throttled one or two
				t.Errorf("%d requests for one call without a record", n)
			}
			for _, call := range r.calls {
				if call.kind == missing && call.done > call.time+c.retry.NotFoundWindow+c.retry.NotFoundWindow/12+sec {
					t.Fatalf("a window ended %v after its event", call.done-call.time)
				}
			}
		})
	}
}

// TestRandomFailuresInABacklog: however many requests fail, no healthy event
// becomes a dead letter, and none waits behind the backlog for its next request.
func TestRandomFailuresInABacklog(t *testing.T) {
	n := 50_000
	if *large {
		n = 500_000
	}
	for _, c := range []struct {
		name         string
		n            int
		share        float64
		rate         float64
		retry        time.Duration
		took99       time.Duration
		mostRequests float64 // per call, on average
	}{
		{"3 %", n, .03, 200, 5 * mins, sec, 1.04},
		{"10 %", n, .10, 200, 5 * mins, 1500 * ms, 1.13},
		{"50 %", n, .50, 200, 5 * mins, 2 * mins, 2.1},
		{"5 %, retry window of 10 s", 8000, .05, 50, 10 * sec, 1500 * ms, 1.07},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			retry := productionRetry
			retry.RetryWindow = c.retry
			r := (&simulation{name: c.name, rate: c.rate, until: 24 * time.Hour, limit: 1000, retry: retry,
				events: backlog(c.n, 2*time.Hour, always(healthy)), respond: fails(c.share, fetch.Retry)}).run(t, 1)
			t.Log(r)
			r.check(t, 0)
			if r.healthyOpen > 0 {
				t.Errorf("%d open", r.healthyOpen)
			}
			if r.took99 > c.took99 || r.requestsPerCall[healthy] > c.mostRequests {
				t.Errorf("p99 from first to last request %v, %.2f requests per call", r.took99, r.requestsPerCall[healthy])
			}
			if c.share <= .1 {
				r.checkBackoff(t)
			}
		})
	}
}

// checkBackoff checks that a failed call is requested again within its back-off
// and a second.
func (r *simResult) checkBackoff(t *testing.T) {
	t.Helper()
	for _, c := range r.calls {
		for i := 1; i < len(c.attempts); i++ {
			backoff := min(500*ms<<(i-1), mins)
			if wait := c.attempts[i].start - c.attempts[i-1].end; wait < backoff/2 || wait > backoff+sec {
				t.Fatalf("request %d of a call %v after the one before, want %v to %v", i+1, wait, backoff/2, backoff+sec)
			}
		}
	}
}

// TestOutages: nothing healthy becomes a dead letter, and work goes on soon
// after the end.
func TestOutages(t *testing.T) {
	for _, c := range []struct {
		name    string
		respond func(time.Duration, kind, *rand.Rand) (fetch.Verdict, time.Duration, bool)
		after   time.Duration // the last healthy event of the outage, after its end
		probes  int
	}{
		{"the API fails for half an hour", during(10*mins, 40*mins, fetch.Retry), 8 * mins, 370},
		{"the account is rejected for half an hour", during(10*mins, 40*mins, fetch.AccountRejected), 8 * mins, 70},
		{"a code that is not in the table for half an hour", during(10*mins, 40*mins, fetch.Unknown), 8 * mins, 370},
		{"every request hangs for ten minutes", func(t time.Duration, _ kind, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
			return fetch.Found, forEver, t >= 10*mins && t < 20*mins
		}, 2 * mins, 70},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := (&simulation{name: c.name, rate: 200, until: 3 * time.Hour, limit: 1000,
				events: live(1, 0, 50*mins, 10, always(healthy)), respond: c.respond}).run(t, 1)
			t.Log(r)
			r.check(t, 0)
			if len(r.probes) > c.probes || len(r.pauses) != 1 {
				t.Errorf("%d probes in %d pauses, want at most %d in 1", len(r.probes), len(r.pauses), c.probes)
			}
			if n := r.requestsPerCall[healthy]; n > 1.02 {
				t.Errorf("%.3f requests per call", n)
			}
		})
	}
}

// TestFlappingAPI: an API that works half of the time delays events; every
// window ends, and repeats stay at what the schedule says.
func TestFlappingAPI(t *testing.T) {
	for _, half := range []time.Duration{sec, 5 * sec, 30 * sec} {
		t.Run(half.String(), func(t *testing.T) {
			t.Parallel()
			r := (&simulation{name: half.String(), rate: 200, until: time.Hour, limit: 1000,
				events: live(1, 0, 10*mins, 50, every(50, missing)),
				respond: func(t time.Duration, _ kind, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
					return fetch.Retry, 0, t < 15*mins && t/half%2 == 1
				},
			}).run(t, 1)
			t.Log(r)
			r.check(t, 0)
			if r.healthyOpen+r.otherOpen > 0 {
				t.Errorf("%d open", r.healthyOpen+r.otherOpen)
			}
			if r.late99 > 2*half+5*sec {
				t.Errorf("p99 %v", r.late99)
			}
			if r.requestsPerCall[healthy] > 1.4 || r.requestsPerCall[missing] > 10.5 { // random back-off: 9.7 to 10.03 in 120 runs
				t.Errorf("%.2f requests per healthy call, %.2f per call without a record", r.requestsPerCall[healthy], r.requestsPerCall[missing])
			}
		})
	}
}

// TestNothingFound: dead letters are withheld, within the limit, and released by
// the first record, wherever it is: in flight, new, or far behind in the topic.
func TestNothingFound(t *testing.T) {
	for _, c := range []struct {
		name        string
		events      []simEvent
		respond     func(time.Duration, kind, *rand.Rand) (fetch.Verdict, time.Duration, bool)
		maxInFlight int
		healthyDead int
		over        time.Duration // all events are done by then
	}{
		{"three times in flight without a record, healthy ones behind",
			merge(live(1, 0, mins, 20, always(healthy)), live(2, mins, 3*mins, 50, always(missing)), live(3, 3*mins, 20*mins, 20, always(healthy))), nil, 2000, 0, 25 * mins},
		{"no records for a quarter of an hour", live(1, 0, 30*mins, 10, always(healthy)), during(5*mins, 20*mins, fetch.NotYet), 20_000, 100, 35 * mins},
		{"the wrong region from the start", live(1, 0, 30*mins, 10, always(healthy)), during(0, 20*mins, fetch.NotYet), 20_000, 20, 35 * mins},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := (&simulation{name: c.name, rate: 200, until: 3 * time.Hour, limit: 100, maxInFlight: c.maxInFlight, events: c.events, respond: c.respond}).run(t, 1)
			t.Log(r)
			r.check(t, c.healthyDead)
			if r.healthyOpen+r.otherOpen > 0 || r.lastDone > c.over {
				t.Errorf("%d open, the last one done after %v, want %v", r.healthyOpen+r.otherOpen, r.lastDone, c.over)
			}
			if len(r.pauses) > 0 {
				t.Errorf("%d pauses", len(r.pauses))
			}
		})
	}
}
