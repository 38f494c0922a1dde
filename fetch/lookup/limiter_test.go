package lookup_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"enricher/fetch/lookup"

	"pgregory.net/rapid"
)

// caller is an instance with a backlog that never ends.
type caller struct {
	quota *lookup.Limiter
	next  time.Time   // when it asks again
	sends []time.Time // of what is on its way to the wire, ascending
}

// most is the largest number of times within any span shorter than a second.
func most(times []time.Time) int {
	slices.SortFunc(times, func(a, b time.Time) int { return a.Compare(b) })
	most, first := 0, 0
	for last, t := range times {
		for t.Sub(times[first]) >= time.Second {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// TestQuotaAcrossInstances: with at least one call a second for each partition,
// whatever the shares, how they move, and how long
// calls take to the wire, no window of a second holds more calls than the rate.
func TestQuotaAcrossInstances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom([]float64{13, 13.5, 50, 200}).Draw(t, "rate")
		partitions := rapid.IntRange(1, 13).Draw(t, "partitions")
		n := rapid.IntRange(1, 5).Draw(t, "instances")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))

		callers := make([]*caller, n)
		held := make([]int, n)
		for i := range callers {
			callers[i] = &caller{quota: lookup.NewLimiter(rate), next: epoch}
		}
		free := partitions
		var arrivals []time.Time
		moved := epoch
		end := epoch.Add(12 * time.Second)
		for now := epoch; now.Before(end); {
			// Partitions move as the group moves them: given up, then received.
			if !now.Before(moved) {
				moved = now.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
				i := rng.IntN(n)
				if give := rng.IntN(held[i] + 1); give > 0 {
					held[i] -= give
					free += give
					callers[i].quota.SetShare(now, float64(held[i])/float64(partitions))
				}
				j := rng.IntN(n)
				if take := rng.IntN(free + 1); take > 0 {
					held[j] += take
					free -= take
					callers[j].quota.SetShare(now, float64(held[j])/float64(partitions))
				}
			}
			soonest := moved
			for _, c := range callers {
				for len(c.sends) > 0 && !c.sends[0].After(now) {
					c.quota.Sent(c.sends[0])
					arrivals = append(arrivals, c.sends[0])
					c.sends = c.sends[1:]
				}
				for !c.next.After(now) {
					ok, wait := c.quota.Reserve(now)
					if !ok {
						if wait <= 0 {
							t.Fatalf("no, but ask again in %v", wait)
						}
						c.next = now.Add(wait)
						break
					}
					delay := time.Duration(0)
					if rng.IntN(4) == 0 { // a connection has to be opened
						delay = time.Duration(rng.IntN(200)) * time.Millisecond
					}
					c.sends = append(c.sends, now.Add(delay))
					slices.SortFunc(c.sends, func(a, b time.Time) int { return a.Compare(b) })
				}
				if c.next.Before(soonest) {
					soonest = c.next
				}
				if len(c.sends) > 0 && c.sends[0].Before(soonest) {
					soonest = c.sends[0]
				}
			}
			// A share that changed voids the waits.
			for _, c := range callers {
				select {
				case <-c.quota.Changed():
					c.next = now
					soonest = now
				default:
				}
			}
			now = later(now, soonest)
		}
		if got := most(arrivals); float64(got) > rate {
			t.Fatalf("%d calls in one second, at a rate of %v", got, rate)
		}
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestQuotaInStalls: the network, or the API, stops for a while; what was sent
// meanwhile arrives all at once, and still no window of a second holds more
// calls than the rate. Calls that take long to answer are not held against it.
func TestQuotaInStalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const rate = 200
		usual := time.Duration(rapid.IntRange(1, 300).Draw(t, "latency ms")) * time.Millisecond
		slow := rapid.IntRange(0, 10).Draw(t, "slow percent")
		stalls := rapid.Bool().Draw(t, "stalls")
		n := rapid.SampledFrom([]int{1, 2, 4}).Draw(t, "instances")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		type call struct{ sent, answered time.Time }
		quotas := make([]*lookup.Limiter, n)
		asked := make([][]call, n) // by the time of the answer
		next := make([]time.Time, n)
		for i := range quotas {
			quotas[i] = lookup.NewLimiter(rate)
			quotas[i].SetShare(epoch, 1/float64(n))
			next[i] = epoch
		}
		var arrivals []time.Time
		stall, resume := at(5), at(5)
		start, end := at(4), at(24)
		for now := epoch; now.Before(end); {
			if stalls && now.After(resume) {
				stall = now.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
				resume = stall.Add(time.Duration(rng.IntN(400)) * time.Millisecond)
			}
			soonest := end
			for i, q := range quotas {
				for len(asked[i]) > 0 && !asked[i][0].answered.After(now) {
					q.Responded(asked[i][0].sent, asked[i][0].answered)
					asked[i] = asked[i][1:]
					next[i] = now // an answer wakes the scheduler
				}
				for !next[i].After(now) {
					ok, wait := q.Reserve(now)
					if !ok {
						next[i] = now.Add(wait)
						break
					}
					q.Sent(now)
					arrived := now
					if !now.Before(stall) && now.Before(resume) {
						arrived = resume
					}
					arrivals = append(arrivals, arrived)
					c := call{now, arrived.Add(usual)}
					if rng.IntN(100) < slow {
						c.answered = c.answered.Add(time.Duration(1000+rng.IntN(3000)) * time.Millisecond)
					}
					at, _ := slices.BinarySearchFunc(asked[i], c, func(a, b call) int { return a.answered.Compare(b.answered) })
					asked[i] = slices.Insert(asked[i], at, c)
				}
				if next[i].Before(soonest) {
					soonest = next[i]
				}
				if len(asked[i]) > 0 && asked[i][0].answered.Before(soonest) {
					soonest = asked[i][0].answered
				}
			}
			now = soonest
		}
		if got := most(arrivals); got > rate {
			t.Fatalf("%d calls in one second, at a rate of %d", got, rate)
		}
		if stalls {
			return
		}
		used := 0
		for _, a := range arrivals {
			if !a.Before(start) {
				used++
			}
		}
		if share := float64(used) / end.Sub(start).Seconds() / rate; share < .975 {
			t.Fatalf("%.3f of the rate used", share)
		}
	})
}

// TestQuotaIsUsed: with a backlog, nearly all of the rate is used and evenly
// spaced; in small shares the rounding costs what the comment of Quota says.
func TestQuotaIsUsed(t *testing.T) {
	for _, c := range []struct {
		rate      float64
		instances int
		least     float64
	}{{200, 1, .98}, {200, 2, .98}, {200, 3, .97}, {200, 12, .94}, {50, 1, .97}, {7, 1, .97}} {
		var arrivals []time.Time
		for range c.instances {
			q := lookup.NewLimiter(c.rate)
			q.SetShare(epoch, 1/float64(c.instances))
			for now := at(5); now.Before(at(25)); {
				ok, wait := q.Reserve(now)
				if ok {
					q.Sent(now)
					arrivals = append(arrivals, now)
					continue
				}
				now = now.Add(wait)
			}
		}
		if used := float64(len(arrivals)) / 20 / c.rate; used < c.least || used > 1.001 {
			t.Errorf("%v a second over %d instances: %.3f of it used", c.rate, c.instances, used)
		}
		if n := most(arrivals); float64(n) > c.rate {
			t.Errorf("%v a second over %d instances: %d in one second", c.rate, c.instances, n)
		}
	}
}

func TestQuotaShares(t *testing.T) {
	q := lookup.NewLimiter(200)
	if ok, wait := q.Reserve(epoch); ok || wait < time.Minute {
		t.Errorf("without a share: %v, %v", ok, wait)
	}
	q.SetShare(epoch, .5)
	if ok, _ := q.Reserve(at(1)); ok {
		t.Error("a higher share holds at once, while the calls of those who had it before still count")
	}
	if ok, _ := q.Reserve(at(1.2)); !ok || q.PerSecond() != 100 {
		t.Errorf("after a while: %v a second", q.PerSecond())
	}
	q.Sent(at(1.2))
	q.SetShare(at(2), 1)
	q.SetShare(at(2.5), .25)
	if got := q.PerSecond(); got != 50 {
		t.Errorf("a lower share does not hold at once: %v a second", got)
	}
	if ok, _ := q.Reserve(at(5)); !ok || q.PerSecond() != 50 {
		t.Error("the raise before it comes back")
	}
	q.SetShare(at(6), 0)
	if ok, _ := q.Reserve(at(10)); ok {
		t.Error("calls with no share")
	}
	select {
	case <-q.Changed():
	default:
		t.Error("nobody is told")
	}
	free := lookup.NewLimiter(0)
	for range 100_000 {
		if ok, _ := free.Reserve(epoch); !ok {
			t.Fatal("no limit is a limit")
		}
		free.Sent(epoch)
	}
	if !math.IsInf(free.PerSecond(), 1) {
		t.Errorf("%v requests per second", free.PerSecond())
	}
}

// TestCacheAgainstModel: any sequence of puts, gets and time passing is like a
// plain list would have it.
func TestCacheAgainstModel(t *testing.T) {
	const overhead = 256
	type entry struct {
		id      string
		value   byte
		size    int64
		expires time.Time
	}
	rapid.Check(t, func(t *rapid.T) {
		maxEntries := rapid.IntRange(0, 6).Draw(t, "entries")
		maxBytes := rapid.Int64Range(0, 3000).Draw(t, "bytes")
		ttl := time.Duration(rapid.IntRange(1, 20).Draw(t, "ttl")) * time.Second
		c := lookup.NewCache(maxEntries, maxBytes, ttl)
		var model []entry // most recently used first
		now := epoch
		find := func(id string) int { return slices.IndexFunc(model, func(e entry) bool { return e.id == id }) }
		ids := rapid.SampledFrom([]string{"a", "bb", "ccc", "dddd", "eeeee", "ffffff", "g", "h"})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := ids.Draw(t, "id")
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				value := make([]byte, rapid.IntRange(1, 900).Draw(t, "size"))
				value[0] = byte(rapid.IntRange(0, 255).Draw(t, "value"))
				c.Put(now, id, lookup.Entry{Value: value, RequestID: "r"})
				size := int64(len(id)+len(value)+1) + overhead
				if maxEntries == 0 || size > maxBytes {
					break
				}
				if i := find(id); i >= 0 {
					model = slices.Delete(model, i, i+1)
				}
				model = slices.Insert(model, 0, entry{id, value[0], size, now.Add(ttl)})
				total := int64(0)
				for i, e := range model {
					if total += e.size; total > maxBytes || i >= maxEntries {
						model = model[:i]
						break
					}
				}
			case 2, 3:
				got, ok := c.Get(now, id)
				i := find(id)
				if i >= 0 && !now.Before(model[i].expires) {
					model = slices.Delete(model, i, i+1)
					i = -1
				}
				if ok != (i >= 0) || ok && got.Value[0] != model[i].value {
					t.Fatalf("%s: %v", id, ok)
				}
				if i > 0 {
					e := model[i]
					model = slices.Insert(slices.Delete(model, i, i+1), 0, e)
				}
			case 4:
				now = now.Add(time.Duration(rapid.IntRange(0, 8000).Draw(t, "ms")) * time.Millisecond)
			}
			bytes := int64(0)
			for _, e := range model {
				bytes += e.size
			}
			if c.Len() != len(model) || c.Bytes() != bytes {
				t.Fatalf("%d entries of %d bytes, want %d of %d", c.Len(), c.Bytes(), len(model), bytes)
			}
		}
	})
}
