package lookup_test

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"enricher/fetch/lookup"
	"enricher/fetch/lookup/limitertest"
)

var (
	firstSeed = flag.Uint64("seed", 1, "the first seed of the limiter's simulations")
	seeds     = flag.Uint64("seeds", 20, "how many simulations of each kind run")
)

const ms = time.Millisecond

// eachSeed runs a simulation for every seed.
func eachSeed(t *testing.T, run func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		run(t, rand.New(rand.NewPCG(seed, 0)))
		if t.Failed() {
			t.Fatalf("repeat with -seed %d -seeds 1", seed)
		}
	}
}

// saturate runs instances with a backlog that share a rate evenly.
func saturate(net *limitertest.Network, instances int, rate float64, d time.Duration, change func(*limitertest.Loop, *limitertest.Instance)) {
	loop := limitertest.NewLoop()
	for i := range instances {
		l := lookup.NewLimiter(true)
		below := func(i int) float64 { return math.Floor(float64(i) * rate / float64(instances)) }
		share := below(i+1) - below(i)
		if rate < float64(instances) {
			share = rate / float64(instances)
		}
		l.SetShare(loop.Now(), share, 0)
		instance := limitertest.NewInstance(loop, net, l)
		if change != nil {
			change(loop, instance)
		}
	}
	loop.Run(d)
}

// randomNetwork draws the way to an API.
func randomNetwork(rng *rand.Rand) *limitertest.Network {
	way := limitertest.Between(rng, ms, 60*ms)
	return &limitertest.Network{
		Out: way, API: limitertest.Between(rng, 2*ms, 80*ms), Back: way,
		Jitter: []time.Duration{0, ms, 2 * ms}[rng.IntN(3)],
		Slow:   []float64{0, .1}[rng.IntN(2)],
		Rand:   rng,
	}
}

// freezes stops the process of an instance again and again.
func freezes(rng *rand.Rand, until time.Duration) func(*limitertest.Loop, *limitertest.Instance) {
	return func(loop *limitertest.Loop, i *limitertest.Instance) {
		for at := limitertest.Between(rng, 0, 20*time.Second); at < until; at += limitertest.Between(rng, 5*time.Second, 20*time.Second) {
			loop.After(at, func() { i.Freeze(limitertest.Between(rng, 10*ms, 8*time.Second)) })
		}
	}
}

// Stalls of the network or the API that keep the order of requests, frozen
// processes and slow responses make no second hold more requests than the rate,
// and neither does a rate of one.
func TestStallsDoNotExceedTheRate(t *testing.T) {
	eachSeed(t, func(t *testing.T, rng *rand.Rand) {
		net := randomNetwork(rng)
		net.Stalls = limitertest.RandomStalls(rng, limitertest.InOrder, 3*time.Second, 40*time.Second)
		rate := []float64{200, 200, 200, 50, 1000, 7}[rng.IntN(6)]
		instances := 1 + rng.IntN(4)
		var change func(*limitertest.Loop, *limitertest.Instance)
		if rng.IntN(2) == 0 {
			change = freezes(rng, 40*time.Second)
		}
		saturate(net, instances, rate, 50*time.Second, change)
		if most, from := net.Busiest(time.Second); float64(most) > rate {
			t.Errorf("%d instances: %d requests in the second from %v, at a rate of %v", instances, most, from, rate)
		}
	})
}

// Lost packets arrive out of order. By its own response alone a request is not
// taken for arrived too early; by those of its neighbours, for some it is.
func TestLostPacketsExceedTheRateByNeighboursOnly(t *testing.T) {
	all := append([]limitertest.StallKind{limitertest.DropRequests, limitertest.DropResponses}, limitertest.InOrder...)
	worst := map[bool]int{}
	for _, own := range []bool{true, false} {
		eachSeed(t, func(t *testing.T, rng *rand.Rand) {
			net := randomNetwork(rng)
			net.Lost = []float64{0, .001}[rng.IntN(2)]
			net.Stalls = limitertest.RandomStalls(rng, all, 3*time.Second, 40*time.Second)
			const rate = 200
			limit := rate
			if !own {
				limit = rate * 12 / 10
			}
			saturate(net, []int{1, 2, 4}[rng.IntN(3)], rate, 50*time.Second, func(_ *limitertest.Loop, i *limitertest.Instance) {
				if own {
					i.Limiter.OwnResponsesOnly()
				}
			})
			most, from := net.Busiest(time.Second)
			worst[own] = max(worst[own], most)
			if most > limit {
				t.Errorf("by own responses only %v: %d requests in the second from %v, at a rate of %d", own, most, from, rate)
			}
		})
	}
	t.Logf("at most %d requests in a second by own responses, %d by neighbours'", worst[true], worst[false])
	if worst[false] <= 200 {
		t.Error("the network dropped too little to show anything")
	}
}

// With a backlog, the rate is used.
func TestRateIsUsed(t *testing.T) {
	for _, c := range []struct {
		rate      float64
		instances int
		latency   time.Duration // without jitter
		jitter    time.Duration // each way
		slow      float64
		least     float64
	}{
		{rate: 200, instances: 1, latency: 10 * ms, jitter: 2 * ms, least: .99},
		{rate: 200, instances: 1, latency: 50 * ms, jitter: 5 * ms, least: .98},
		{rate: 200, instances: 3, latency: 50 * ms, jitter: 5 * ms, least: .98},
		{rate: 200, instances: 12, latency: 50 * ms, jitter: 5 * ms, least: .98},
		{rate: 200, instances: 1, latency: 50 * ms, jitter: 5 * ms, slow: .1, least: .98},
		{rate: 200, instances: 3, latency: 50 * ms, jitter: 5 * ms, slow: .1, least: .97},
		{rate: 200, instances: 12, latency: 50 * ms, jitter: 5 * ms, slow: .1, least: .95},
		{rate: 200, instances: 1, latency: 50 * ms, jitter: 40 * ms, least: .95},
		{rate: 200, instances: 1, latency: 200 * ms, jitter: 20 * ms, least: .96},
		{rate: 50, instances: 1, latency: 50 * ms, jitter: 5 * ms, least: .97},
		{rate: 7, instances: 1, latency: 50 * ms, jitter: 5 * ms, least: .95},
	} {
		name := fmt.Sprintf("%v per second, %d instances, %v with %v of jitter, slow %v", c.rate, c.instances, c.latency, c.jitter, c.slow)
		net := &limitertest.Network{
			Out: c.latency / 8, API: c.latency * 3 / 4, Back: c.latency / 8, Jitter: c.jitter, Slow: c.slow,
			Rand: rand.New(rand.NewPCG(*firstSeed, 0)),
		}
		saturate(net, c.instances, c.rate, 100*time.Second, nil)
		used := float64(net.Count(40*time.Second, 100*time.Second)) / 60 / c.rate
		t.Logf("%s: %.1f %% used", name, 100*used)
		if used < c.least || used > 1 {
			t.Errorf("%s: %.1f %% used, want %.0f %%", name, 100*used, 100*c.least)
		}
	}
}

// Rates far from the usual are kept too, and none is taken for no limit. A share
// below one request per second is kept in the span in which it allows one.
func TestTinyAndHugeRates(t *testing.T) {
	for _, c := range []struct {
		rate   float64
		window time.Duration
		most   int
		runs   time.Duration
		least  int
	}{
		{rate: 1e-10, window: time.Hour, most: 1, runs: time.Hour, least: 1},
		{rate: .02, window: 50 * time.Second, most: 1, runs: time.Hour, least: 71},
		{rate: .5, window: 2 * time.Second, most: 1, runs: 100 * time.Second, least: 48},
		{rate: 1, window: time.Second, most: 1, runs: 100 * time.Second, least: 95},
		{rate: 1.9, window: time.Second, most: 1, runs: 100 * time.Second, least: 95},
		{rate: 3, window: time.Second, most: 3, runs: 100 * time.Second, least: 285},
		{rate: 3000, window: time.Second, most: 3000, runs: 10 * time.Second, least: 28_000},
		{rate: 1e19, window: time.Second, most: math.MaxInt, runs: 10 * time.Second, least: 45_000}, // bounded by concurrency
	} {
		net := &limitertest.Network{Out: 5 * ms, API: 40 * ms, Back: 5 * ms, Rand: rand.New(rand.NewPCG(*firstSeed, 0))}
		saturate(net, 1, c.rate, c.runs, nil)
		most, from := net.Busiest(c.window)
		if n := len(net.Arrivals); most > c.most || n < c.least {
			t.Errorf("rate %v: %d requests, %d in %v from %v", c.rate, n, most, c.window, from)
		}
	}
}

// While a second program uses a part of the same rate, nearly all of the rest is
// used, and all of it once the other has gone.
func TestPaceFollowsASecondProgram(t *testing.T) {
	const rate = 200
	for _, c := range []struct {
		other int
		least float64 // of what is free
	}{{50, .9}, {100, .9}, {150, .85}} {
		net := &limitertest.Network{Out: 5 * ms, API: 20 * ms, Back: 5 * ms, Jitter: 4 * ms, Rand: rand.New(rand.NewPCG(*firstSeed, 0))}
		const leaves = 300 * time.Second
		var accepted []time.Time
		served, refused := 0, 0
		net.Refuse = func(arrival time.Time) bool {
			other := c.other
			if arrival.Sub(limitertest.Start) > leaves {
				other = 0
			}
			for len(accepted) > 0 && arrival.Sub(accepted[0]) >= time.Second {
				accepted = accepted[1:]
			}
			if len(accepted)+other >= rate {
				refused++
				return true
			}
			accepted = append(accepted, arrival)
			if arrival.Sub(limitertest.Start) <= leaves {
				served++
			}
			return false
		}
		saturate(net, 1, rate, 400*time.Second, nil)
		used := float64(served) / leaves.Seconds() / float64(rate-c.other)
		after := float64(net.Count(360*time.Second, 400*time.Second)) / 40 / rate
		t.Logf("other uses %d: %.1f %% of the rest used, %d requests refused, %.1f %% of the rate after", c.other, 100*used, refused, 100*after)
		if used < c.least || after < .97 {
			t.Errorf("other uses %d: %.1f %% of the rest used, %.1f %% of the rate after", c.other, 100*used, 100*after)
		}
	}
}

func TestRetryAfterHoldsRequests(t *testing.T) {
	for _, limited := range []bool{true, false} {
		l := lookup.NewLimiter(limited)
		l.SetShare(epoch, 10, 0)
		l.Throttled(at(1), 5*time.Second)
		if slot, wait := l.Reserve(at(2)); slot != nil || wait != 4*time.Second {
			t.Errorf("limited %v: slot %v, wait %v during the pause", limited, slot, wait)
		}
		if slot, _ := l.Reserve(at(6)); slot == nil {
			t.Errorf("limited %v: no slot after the pause", limited)
		}
	}
	// Throttled responses within one second slow down once, and not below one
	// request per second.
	l := lookup.NewLimiter(true)
	l.SetShare(epoch, 10, 0)
	l.Throttled(at(1), 0)
	l.Throttled(at(1.5), 0)
	if pace := l.Pace(at(1.5)); pace < .9 || pace > .92 {
		t.Errorf("pace %v after one second of refusals", pace)
	}
	for s := 2; s < 100; s++ {
		l.Throttled(at(float64(s)), 0)
	}
	if pace, perSecond := l.Pace(at(99)), l.PerSecond(at(99)); pace < .1 || pace > .11 || perSecond != 10*pace {
		t.Errorf("pace %v, %v per second after many refusals", pace, perSecond)
	}
	if pace := l.Pace(at(300)); pace != 1 {
		t.Errorf("pace %v long after", pace)
	}
	free := lookup.NewLimiter(false)
	free.Throttled(epoch, 0)
	if slot, _ := free.Reserve(at(.5)); slot != nil {
		t.Error("without a limit, a throttled request is repeated at once")
	}
}

func TestLowerSharesHoldAtOnceAndHigherOnesLater(t *testing.T) {
	l := lookup.NewLimiter(true)
	if slot, wait := l.Reserve(epoch); slot != nil || wait < time.Minute {
		t.Errorf("without a share: %v, %v", slot, wait)
	}
	l.SetShare(epoch, 100, 6*time.Second)
	if slot, wait := l.Reserve(at(5)); slot != nil || wait != time.Second {
		t.Errorf("before the raise: %v, %v", slot, wait)
	}
	slot, _ := l.Reserve(at(6))
	if slot == nil || l.PerSecond(at(6)) != 100 {
		t.Errorf("after the raise: %v per second", l.PerSecond(at(6)))
	}
	l.SetShare(at(7), 200, 6*time.Second)
	l.SetShare(at(8), 50, 6*time.Second)
	if got := l.PerSecond(at(8)); got != 50 {
		t.Errorf("a lower share does not hold at once: %v per second", got)
	}
	if got := l.PerSecond(at(20)); got != 50 {
		t.Errorf("the raise before it comes back: %v per second", got)
	}
	// A further raise does not delay the one before it, and a smaller one is what
	// remains of it.
	l.SetShare(at(20), 100, 6*time.Second)
	l.SetShare(at(23), 150, 6*time.Second)
	if got := l.PerSecond(at(26)); got != 100 {
		t.Errorf("the first of two raises: %v per second", got)
	}
	l.SetShare(at(27), 120, 6*time.Second)
	if got := l.PerSecond(at(28.9)); got != 100 {
		t.Errorf("before the second raise: %v per second", got)
	}
	if got := l.PerSecond(at(29)); got != 120 {
		t.Errorf("after the second raise: %v per second", got)
	}
	l.SetShare(at(30), 0, 0)
	if slot, _ := l.Reserve(at(40)); slot != nil {
		t.Error("a request without a share")
	}
	select {
	case <-l.Changed():
	default:
		t.Error("no signal of a change")
	}
}

func TestCancelledRequestFreesItsSlotAtOnce(t *testing.T) {
	l := lookup.NewLimiter(true)
	l.SetShare(epoch, 1, 0)
	slot, _ := l.Reserve(at(1))
	if other, _ := l.Reserve(at(2)); slot == nil || other != nil {
		t.Fatalf("slots %v and %v of one", slot, other)
	}
	slot.Cancel()
	if slot, _ = l.Reserve(at(2)); slot == nil {
		t.Fatal("no slot after the request was cancelled")
	}
	slot.Done(at(2.1), false)
	if other, wait := l.Reserve(at(2.2)); other != nil || wait.Round(ms) != 900*ms {
		t.Errorf("%v, %v after the request failed", other, wait)
	}
}

func TestNoLimit(t *testing.T) {
	l := lookup.NewLimiter(false)
	for range 100_000 {
		slot, _ := l.Reserve(epoch)
		if slot == nil {
			t.Fatal("no limit is a limit")
		}
		slot.Connected(epoch)
		slot.Written()
	}
	if !math.IsInf(l.PerSecond(epoch), 1) {
		t.Errorf("%v requests per second", l.PerSecond(epoch))
	}
}
