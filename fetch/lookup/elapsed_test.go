package lookup

import (
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/lookup/clocktest"
)

// What has to end during a sleep of the machine has ended; what must not end early
// because the time of day was set has not.
func TestMachineThatSleeps(t *testing.T) {
	const hour = time.Hour
	start := time.Now()
	awake := start.Add(time.Second)
	slept, setBack := clocktest.Set(awake, hour), clocktest.Set(awake, -hour)

	cache := NewCache(10, 1<<20, 30*time.Minute)
	for name, c := range map[string]struct {
		now  time.Time
		want bool
	}{"awake": {awake, true}, "slept": {slept, false}, "set back": {setBack, true}, "set back, and over": {clocktest.Set(start.Add(hour), -hour), false}} {
		cache.Put(start, "id", Entry{})
		if _, ok := cache.Get(c.now, "id"); ok != c.want {
			t.Errorf("%s: cached: %v, want %v", name, ok, c.want)
		}
	}

	for name, now := range map[string]time.Time{"slept": slept, "set back": setBack} {
		l := NewLimiter(true)
		l.SetShare(start, 1, 0)
		if slot, _ := l.Reserve(start); slot == nil {
			t.Fatal("no slot")
		} else {
			slot.Done(start.Add(500*time.Millisecond), true)
		}
		if slot, wait := l.Reserve(now); slot != nil || wait > time.Second {
			t.Errorf("%s: a slot is free half a second after its request, or in %v", name, wait)
		}
	}

	bad := fetch.Response{Verdict: fetch.Retry}
	for name, c := range map[string]struct {
		now  time.Time
		want bool
	}{"awake": {start.Add(maxQuiet / 2), false}, "slept": {slept, true}} {
		b := &Breaker{}
		b.Observe(start, start, &fetch.Response{Verdict: fetch.Found}, true)
		if b.Observe(c.now, c.now, &bad, true); b.Paused() != c.want {
			t.Errorf("%s: paused: %v, want %v", name, b.Paused(), c.want)
		}
	}

	// A pause of a second in which the machine slept for an hour.
	b := &Breaker{}
	b.Observe(start, start, &bad, true)
	b.ObserveProbe(slept, &fetch.Response{Verdict: fetch.NotYet})
	at := slept.Add(time.Minute)
	for name, c := range map[string]struct {
		from time.Time
		want time.Duration
	}{
		"the window of an event":        {start.Add(-time.Minute).Round(0), 2 * time.Minute},
		"the window of failures":        {start.Add(-time.Minute), 2 * time.Minute},
		"an event from after the pause": {slept.Round(0).Add(time.Second), 59 * time.Second},
	} {
		if got := b.Unpaused(c.from, at); got != c.want {
			t.Errorf("%s: unpaused for %v, want %v", name, got, c.want)
		}
	}
	// While awake, failures count by the clock of the process.
	if got := (&Breaker{}).Unpaused(start, slept); got != time.Second {
		t.Errorf("an hour asleep counts as %v of failures", got)
	}
}
