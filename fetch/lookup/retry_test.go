package lookup_test

import (
	"fmt"
	"testing"
	"time"

	"enricher/fetch/lookup"
)

// epoch is an arbitrary time for tests of what is pure.
var epoch = time.Unix(1764000000, 0)

// at returns a time so many seconds after epoch.
func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// A call is requested 5, 10, 20, 40, 80 and 120 s after its event, and then given
// up; a late start joins in; an old event gets one confirmation.
func TestNotFoundSchedule(t *testing.T) {
	p := lookup.RetryPolicy{LookupDelay: 5 * time.Second, NotFoundWindow: 2 * time.Minute, RetryWindow: 5 * time.Minute}
	for name, c := range map[string]struct {
		first float64 // s after the event
		want  []float64
	}{
		"in time":                           {5, []float64{5, 10, 20, 40, 80, 120}},
		"lookup delay of 0":                 {0, []float64{0, 5, 10, 20, 40, 80, 120}},
		"first requested after 30 s":        {30, []float64{30, 40, 80, 120}},
		"first requested just at the end":   {120, []float64{120, 130}},
		"first requested after the window":  {500, []float64{500, 510}},
		"first requested days later":        {86400, []float64{86400, 86410}},
		"first requested just before it is": {119, []float64{119, 120}},
	} {
		t.Run(name, func(t *testing.T) {
			var requested []float64
			age := time.Duration(c.first * float64(time.Second))
			for n := 1; ; n++ {
				requested = append(requested, age.Seconds())
				wait, again := p.NextNotFound(age, n)
				if !again {
					break
				}
				if wait <= 0 || n > 20 {
					t.Fatalf("requested at %v, next after %v", requested, wait)
				}
				age += wait
			}
			if fmt.Sprint(requested) != fmt.Sprint(c.want) {
				t.Errorf("requested at %v, want %v", requested, c.want)
			}
		})
	}
	for window, want := range map[time.Duration][]float64{
		24 * time.Second: {1, 2, 4, 8, 16, 24},
		30 * time.Minute: {5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800},
	} {
		p.NotFoundWindow = window
		var ages []float64
		for age := time.Duration(0); age < window; {
			wait, again := p.NextNotFound(age, 9)
			if !again {
				t.Fatalf("window %v: given up at %v", window, age)
			}
			age += wait
			ages = append(ages, age.Seconds())
		}
		if fmt.Sprint(ages) != fmt.Sprint(want) {
			t.Errorf("window %v: requested again at %v, want %v", window, ages, want)
		}
	}
	if got := p.FirstLookup(epoch); got != at(5) {
		t.Errorf("first lookup at %v", got.Sub(epoch))
	}
}

func TestBackoff(t *testing.T) {
	var p lookup.RetryPolicy
	for n := 1; n <= 40; n++ {
		limit := time.Minute
		if n <= 7 {
			limit = 500 * time.Millisecond << (n - 1)
		}
		var sum, most time.Duration
		for range 2000 {
			d := p.Backoff(n)
			if d < limit/2 || d >= limit {
				t.Fatalf("after %d failures: %v, want %v to %v", n, d, limit/2, limit)
			}
			sum, most = sum+d, max(most, d)
		}
		if mean := sum / 2000; mean < limit*7/10 || mean > limit*8/10 || most < limit*9/10 {
			t.Errorf("after %d failures: mean %v, most %v of %v", n, mean, most, limit)
		}
	}
}

func TestGiveUpNeedsEveryReason(t *testing.T) {
	p := lookup.RetryPolicy{RetryWindow: 5 * time.Minute}
	for _, c := range []struct {
		failing    time.Duration
		evidence   float64
		othersWork bool
		want       bool
	}{
		{5 * time.Minute, 16, true, true},
		{5*time.Minute - 1, 16, true, false},
		{5 * time.Minute, 15.9, true, false},
		{5 * time.Minute, 16, false, false},
	} {
		if got := p.GiveUp(c.failing, c.evidence, c.othersWork); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestEventTime(t *testing.T) {
	now := time.UnixMilli(1_764_000_000_000)
	const ms = 1_763_999_000_000
	for name, c := range map[string]struct {
		candidates []int64
		want       int64 // ms
	}{
		"none":                             {nil, now.UnixMilli()},
		"the first one":                    {[]int64{ms, ms - 1}, ms},
		"not given":                        {[]int64{0, ms}, ms},
		"negative":                         {[]int64{-1, ms}, ms},
		"a small number":                   {[]int64{1, ms}, ms},
		"uptime in ms":                     {[]int64{864_000_000, ms}, ms},
		"just before 2015":                 {[]int64{1_420_070_399_999, ms}, ms},
		"the beginning of 2015":            {[]int64{1_420_070_400_000, ms}, 1_420_070_400_000},
		"seconds":                          {[]int64{1_763_999_000, 5}, ms},
		"seconds: just before 2015":        {[]int64{1_420_070_399, ms}, ms},
		"seconds: the beginning of 2015":   {[]int64{1_420_070_400, ms}, 1_420_070_400_000},
		"seconds in the future":            {[]int64{99_999_999_999, ms}, now.UnixMilli()},
		"ms of 1973":                       {[]int64{100_000_000_000, ms}, ms},
		"the future":                       {[]int64{now.UnixMilli() + 1, ms}, now.UnixMilli()},
		"microseconds":                     {[]int64{ms * 1000, ms}, now.UnixMilli()},
		"nothing but numbers that are not": {[]int64{0, -1, 17}, now.UnixMilli()},
	} {
		if got := lookup.EventTime(now, c.candidates...); got.UnixMilli() != c.want {
			t.Errorf("%s: %v, want %v", name, got.UnixMilli(), c.want)
		}
	}
}

func TestGuardLimit(t *testing.T) {
	const limit = 100
	g := lookup.NewGuard(limit)
	take := func() (n int) {
		for g.Allow(epoch, g.Round()) == lookup.Allowed {
			n++
		}
		return n
	}
	if n := take(); n != 20 {
		t.Errorf("%d dead letters before the first record, want 20", n)
	}
	if !g.Withholding() || !g.Found() || g.Withholding() {
		t.Error("a record does not release")
	}
	if n := take(); n != limit {
		t.Errorf("%d dead letters after a record, want %d", n, limit)
	}
	round := g.Round()
	g.Found()
	if g.Allow(epoch, round) != lookup.Outdated {
		t.Error("a request from before the record ended a lookup")
	}
	if g.Found() {
		t.Error("released, though nothing was withheld")
	}
	if n := lookup.NewGuard(5); n.Allow(epoch, 0) != lookup.Allowed {
		t.Error("a limit below 20 allows nothing at first")
	}
	off := lookup.NewGuard(0)
	for range 5000 {
		if off.Allow(epoch, 0) != lookup.Allowed {
			t.Fatal("0 is not off")
		}
	}
}
