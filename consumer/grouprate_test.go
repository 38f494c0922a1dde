package consumer

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"enricher/fetch/lookup/limitertest"
)

var (
	firstShareSeed = flag.Uint64("share-seed", 1, "the first seed of TestGroupKeepsTheRate")
	shareSeeds     = flag.Uint64("share-seeds", 25, "how many simulations it runs")
)

// groupRun is a simulation of a group whose members all have a backlog.
type groupRun struct {
	net    *limitertest.Network
	limit  rateLimit // of the members
	silent bool      // members state no surplus and leave with one
	most   int
	from   time.Duration
	events []string
}

// runGroup draws a group and what happens to it, for two minutes and a half.
func runGroup(seed uint64, change func(*groupRun)) *groupRun {
	rng := rand.New(rand.NewPCG(seed, 0))
	loop := limitertest.NewLoop()
	way := limitertest.Between(rng, time.Millisecond, 40*time.Millisecond)
	r := &groupRun{
		net:   &limitertest.Network{Out: way, API: 20 * time.Millisecond, Back: way, Rand: rng},
		limit: rateLimit{[]float64{200, 200, 60}[rng.IntN(3)], limitertest.Timeout, simSessionTimeout},
	}
	const d = 150 * time.Second
	if rng.IntN(3) > 0 {
		r.net.Stalls = limitertest.RandomStalls(rng, limitertest.InOrder, 3*time.Second, d)
	}
	group := newCoordinator(loop, rng, 1+rng.Int32N(6))
	if change != nil {
		change(r)
	}
	var all []*process
	start := func() { all = append(all, startProcess(loop, group, r)) }
	for range 1 + rng.IntN(4) {
		loop.After(limitertest.Between(rng, 0, 5*time.Second), start)
	}
	note := func(format string, args ...any) {
		r.events = append(r.events, fmt.Sprintf("%8.3f ", loop.Elapsed().Seconds())+fmt.Sprintf(format, args...))
	}
	for at := 10 * time.Second; at < d; at += limitertest.Between(rng, time.Second, 15*time.Second) {
		loop.After(at, func() {
			i := rng.IntN(len(all))
			p, long := all[i], limitertest.Between(rng, 100*time.Millisecond, 25*time.Second)
			switch rng.IntN(8) {
			case 0:
				note("%d is killed, its next start in %v", i, long/3)
				p.Stop()
				loop.After(long/3, func() { all[i] = startProcess(loop, group, r) })
			case 1:
				note("%d leaves and comes back", i)
				p.leave()
				loop.After(time.Second, func() { all[i] = startProcess(loop, group, r) })
			case 2, 3:
				if p.hears() {
					note("%d is cut off from Kafka for %v", i, long)
					p.cutUntil = loop.Now().Add(long)
				}
			case 4:
				if p.hears() {
					note("%d is stopped for %v", i, long)
					p.FreezeBetweenRequests(long)
				}
			case 5, 6:
				if group.partitions < 40 {
					group.partitions += 1 + rng.Int32N(2*group.partitions)
					note("%d partitions", group.partitions)
					for _, p := range all {
						loop.After(limitertest.Between(rng, 0, 8*time.Second), p.seeTopic)
					}
				}
			case 7:
				if len(all) < 5 {
					note("%d starts", len(all))
					start()
				}
			}
		})
	}
	loop.Run(d)
	r.most, r.from = r.net.Busiest(time.Second)
	return r
}

// Instances join, leave, crash, are stopped and cut off, partitions are added
// while instances are on standby, and the network to the API stalls: no
// second holds more requests than the rate.
func TestGroupKeepsTheRate(t *testing.T) {
	requests, room := 0, 0.0
	for seed := *firstShareSeed; seed < *firstShareSeed+*shareSeeds; seed++ {
		r := runGroup(seed, nil)
		requests += len(r.net.Arrivals)
		room += 150 * r.limit.perSecond
		if float64(r.most) > r.limit.perSecond {
			t.Fatalf("-share-seed %d: %d requests in the second from %v, at a rate of %v\n%s", seed, r.most, r.from, r.limit.perSecond, strings.Join(r.events, "\n"))
		}
	}
	used := float64(requests) / room
	t.Logf("%.0f %% of the rate used", 100*used)
	if used < .3 {
		t.Errorf("%.0f %% of the rate used: this shows nothing", 100*used)
	}
}

// The simulation sees each precaution that is missing.
func TestGroupExceedsTheRateWithoutAPrecaution(t *testing.T) {
	for name, change := range map[string]func(*groupRun){
		"members do not state what they still use, and leave": func(r *groupRun) { r.silent = true },
		"leases last as long as the broker waits":             func(r *groupRun) { r.limit.sessionTimeout += r.limit.counts() },
		"requests end when they like":                         func(r *groupRun) { r.limit.apiTimeout = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(400) {
				if r := runGroup(seed, change); float64(r.most) > r.limit.perSecond {
					t.Logf("seed %d: %d requests in a second", seed, r.most)
					return
				}
			}
			t.Error("no simulation exceeds the rate")
		})
	}
}
