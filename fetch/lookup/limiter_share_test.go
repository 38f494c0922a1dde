package lookup_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"enricher/fetch/lookup"
	"enricher/fetch/lookup/limitertest"
)

// Shares move between saturated instances, some of which have none at times: what
// is lost is given up at once, what is gained holds after a request's timeout and
// a second. No second holds more requests than the rate, and with one second
// instead it would.
func TestSharesMove(t *testing.T) {
	const rate, partitions, instances = 200, 12, 4
	worth := func(p int) float64 { return float64((p+1)*rate/partitions - p*rate/partitions) }
	worst := map[time.Duration]int{}
	for _, wait := range []time.Duration{limitertest.Timeout + time.Second, time.Second} {
		eachSeed(t, func(t *testing.T, rng *rand.Rand) {
			net := randomNetwork(rng)
			net.Stalls = limitertest.RandomStalls(rng, limitertest.InOrder, 3*time.Second, 80*time.Second)
			loop := limitertest.NewLoop()
			var all []*limitertest.Instance
			shares := make([]float64, instances)
			for range instances {
				all = append(all, limitertest.NewInstance(loop, net, lookup.NewLimiter(true)))
			}
			set := func(i int) {
				all[i].Limiter.SetShare(loop.Now(), shares[i], wait)
				all[i].Wake()
			}
			owner := make([]int, partitions)
			for p := range owner {
				owner[p] = rng.IntN(instances)
				shares[owner[p]] += worth(p)
			}
			for i := range all {
				set(i)
			}
			for at := 10 * time.Second; at < 80*time.Second; at += limitertest.Between(rng, 2*time.Second, 20*time.Second) {
				loop.After(at, func() {
					moved := map[int]int{} // partition to new owner
					without := rng.IntN(2 * instances)
					for p := range owner {
						to := rng.IntN(instances)
						if to != without && (owner[p] == without || rng.IntN(2) == 0) {
							moved[p] = to
							shares[owner[p]] -= worth(p)
						}
					}
					for i := range all {
						set(i)
					}
					// The next owner hears of it later, in another round.
					loop.After(limitertest.Between(rng, ms, 500*ms), func() {
						for p, to := range moved {
							owner[p] = to
							shares[to] += worth(p)
						}
						for i := range all {
							set(i)
						}
					})
				})
			}
			loop.Run(90 * time.Second)
			most, from := net.Busiest(time.Second)
			worst[wait] = max(worst[wait], most)
			if most > rate && wait > time.Second {
				t.Errorf("%d requests in the second from %v, at a rate of %d", most, from, rate)
			}
		})
	}
	if worst[time.Second] <= rate {
		t.Error("a shorter wait would have done: the simulation shows nothing")
	}
}
