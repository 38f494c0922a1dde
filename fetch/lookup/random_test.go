package lookup_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"enricher/fetch"
)

var (
	episodeRuns = flag.Int("episodes", 18, "how many random simulations TestRandomEpisodes runs, from -seed on")
)

// episode is a time in which the API does not behave.
type episode struct {
	fault    int
	from, to time.Duration
	share    float64 // of the requests that it concerns
	period   time.Duration
}

const noRecords = "no records"

// faults are what an episode can be. each says what comes of a request at t.
var faults = []struct {
	name    string
	delays  bool // records of calls in this time may be late
	respond func(e *episode, t time.Duration, k kind, hit bool, rng *rand.Rand) (fetch.Verdict, time.Duration, bool)
}{
	{"API down", true, func(*episode, time.Duration, kind, bool, *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.Retry, 0, true
	}},
	{"account rejected", true, func(*episode, time.Duration, kind, bool, *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.AccountRejected, 0, true
	}},
	{"unknown code", true, func(*episode, time.Duration, kind, bool, *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.Unknown, 0, true
	}},
	{"every request hangs", true, func(*episode, time.Duration, kind, bool, *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.Retry, forEver, true
	}},
	{"some requests fail", false, func(_ *episode, _ time.Duration, _ kind, hit bool, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.Retry, 0, hit
	}},
	{"some rejections of the account", false, func(_ *episode, _ time.Duration, _ kind, hit bool, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.AccountRejected, 0, hit
	}},
	{"some requests hang", false, func(_ *episode, _ time.Duration, _ kind, hit bool, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.Retry, forEver, hit
	}},
	{"throttled", false, func(_ *episode, _ time.Duration, _ kind, hit bool, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.Throttled, 0, hit
	}},
	{noRecords, false, func(*episode, time.Duration, kind, bool, *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.NotYet, 0, true
	}},
	{"calls fail, probes do not", false, func(_ *episode, _ time.Duration, k kind, _ bool, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.Retry, 0, k != probe
	}},
	{"flapping", false, func(e *episode, t time.Duration, _ kind, _ bool, _ *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		return fetch.Retry, 0, t/e.period%2 == 1
	}},
}

func (e episode) String() string {
	return fmt.Sprintf("%s from %v to %v (share %.2f, period %v)", faults[e.fault].name, e.from.Round(sec), e.to.Round(sec), e.share, e.period)
}

// TestRandomEpisodes runs random simulations: events of all kinds, a backlog or
// not, and episodes of every fault, all by the seed.
//
//	go test ./fetch/lookup -run TestRandomEpisodes -seeds 1000
func TestRandomEpisodes(t *testing.T) {
	for n := range uint64(*episodeRuns) {
		seed := *firstSeed + n
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			sim, episodes := randomSimulation(seed)
			r := sim.run(t, seed)
			allowed := 0
			for _, e := range episodes {
				if faults[e.fault].name == noRecords {
					allowed += sim.limit
				}
			}
			r.check(t, allowed)
			if r.healthyOpen+r.otherOpen > 0 {
				t.Errorf("open: %d healthy, %d others", r.healthyOpen, r.otherOpen)
			}
			if t.Failed() {
				t.Logf("rate %v, in flight %d, limit %d, %v\n%v", sim.rate, sim.maxInFlight, sim.limit, episodes, r)
			}
		})
	}
}

const (
	bad      = 30 * mins // episodes end before
	tailLast = 150 * mins
)

func randomSimulation(seed uint64) (*simulation, []episode) {
	rng := rand.New(rand.NewPCG(seed, 99))
	sim := &simulation{name: fmt.Sprint("seed ", seed), until: tailLast + mins, limit: 100, rate: []float64{5, 16, 66, 200}[rng.IntN(4)]}
	sim.maxInFlight = []int{100 * int(sim.rate), 20_000}[rng.IntN(2)]
	sim.exchange = time.Duration(5+rng.IntN(100)) * ms
	kinds := randomKinds(rng)
	var old []simEvent
	if rng.IntN(2) == 0 {
		old = backlog(rng.IntN(int(sim.rate)*60), time.Duration(rng.IntN(7200))*sec, kinds)
	}
	load := sim.rate * (.01 + .4*rng.Float64()*rng.Float64())
	sim.events = merge(old, live(seed, 0, bad, load, kinds), live(seed+1, bad, tailLast, .02, always(healthy)))
	episodes := randomEpisodes(rng)
	if rng.IntN(2) == 0 {
		delayRecords(rng, sim.events, episodes)
	}
	sim.respond = func(t time.Duration, k kind, rng *rand.Rand) (fetch.Verdict, time.Duration, bool) {
		for i := range episodes {
			if e := &episodes[i]; t >= e.from && t < e.to {
				return faults[e.fault].respond(e, t, k, rng.Float64() < e.share, rng)
			}
		}
		return 0, 0, false
	}
	return sim, episodes
}

func randomKinds(rng *rand.Rand) func(int) kind {
	var missingShare, badShare float64
	if rng.IntN(2) == 0 {
		missingShare = .2 * rng.Float64()
	}
	if rng.IntN(2) == 0 {
		badShare = .03 * rng.Float64()
	}
	return func(int) kind {
		switch x := rng.Float64(); {
		case x < missingShare:
			return missing
		case x < missingShare+badShare:
			return poison
		case x < missingShare+2*badShare:
			return broken
		}
		return healthy
	}
}

func randomEpisodes(rng *rand.Rand) (all []episode) {
	for from := time.Duration(rng.IntN(300)) * sec; from < bad-5*mins && rng.IntN(6) > 0; {
		lasts := time.Duration(1+rng.IntN(20)) * sec
		if rng.IntN(2) == 0 {
			lasts = time.Duration(10+rng.IntN(500)) * sec
		}
		all = append(all, episode{
			fault: rng.IntN(len(faults)), from: from, to: from + lasts,
			share: .02 + .5*rng.Float64()*rng.Float64(), period: time.Duration(200+rng.IntN(8000)) * ms,
		})
		from += lasts + time.Duration(rng.IntN(300))*sec
	}
	return all
}

// delayRecords makes the records of calls during an outage readable only some
// time after its end.
func delayRecords(rng *rand.Rand, events []simEvent, episodes []episode) {
	for i, ev := range events {
		for _, e := range episodes {
			if faults[e.fault].delays && ev.time >= e.from-4*sec && ev.time < e.to {
				events[i].ready = e.to + time.Duration(rng.IntN(80))*sec
			}
		}
	}
}
