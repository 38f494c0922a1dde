package lookup

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/lookup/clocktest"
	"enricher/schemas"
)

// datedAPI is an API whose clock is behind this machine's, or ahead if negative.
type datedAPI struct {
	API
	behind time.Duration
}

// Lookup implements API.
func (a datedAPI) Lookup(ctx context.Context, callID string, o fetch.Observer) fetch.Response {
	r := a.API.Lookup(ctx, callID, o)
	r.Date = time.Now().Add(-a.behind).Truncate(time.Second)
	return r
}

// A clock that is wrong, by minutes or days, gives a record no less time to
// appear than the window, and makes no event expired.
func TestClockThatIsWrong(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, 0, time.Minute, 3 * time.Minute, time.Hour, 8 * 24 * time.Hour} {
		clock := func(cfg *Config) { cfg.API = datedAPI{cfg.API, ahead} }
		spec(t, fmt.Sprintf("ahead by %v, a late record", ahead), func(e *env) {
			e.script("call", "not_yet not_yet not_yet found")
			e.event("call", max(0, ahead), 1)
			e.run(time.Minute)
			if n := len(e.completed); n != 1 || e.completed[0] != "call miss@40" && ahead <= 0 {
				e.t.Errorf("outcomes %q, requests %q", e.completed, e.requested())
			}
		}, clock)
		spec(t, fmt.Sprintf("ahead by %v, no record", ahead), func(e *env) {
			e.script("call", "not_yet")
			e.Add([]*Event{{CallID: "call", Time: time.Now().Add(-max(0, ahead)), Recorded: time.Now()}})
			e.run(118 * time.Second) // the header Date has whole seconds
			if len(e.completed) > 0 {
				e.t.Errorf("outcomes %q before the window is over", e.completed)
			}
			e.run(2 * time.Minute)
			if n := len(e.completed); n != 1 || len(e.requested()) > 8 {
				e.t.Errorf("outcomes %q, requests %q", e.completed, e.requested())
			}
			if got := gauge(e, e.Metrics.ClockAhead); got < ahead.Seconds()-1 || got > ahead.Seconds()+1 {
				e.t.Errorf("%v s ahead, want %v", got, ahead)
			}
		}, clock)
	}
	spec(t, "an old event has expired by the API's clock alone", func(e *env) {
		e.script("call", "not_yet")
		e.event("call", 8*24*time.Hour, 1)
		e.run(time.Hour)
		if len(e.completed) != 1 || e.completed[0][:14] != "call not_found" {
			e.t.Errorf("outcomes %q", e.completed)
		}
	}, func(cfg *Config) { cfg.API = datedAPI{cfg.API, 5 * 24 * time.Hour} })
}

// hostClock is the clock of a machine: it can be set while time goes on.
type hostClock struct {
	base  time.Time // with a reading of the clock of the process, which times in a bubble lack
	began time.Time
	ahead atomic.Int64
}

func (c *hostClock) right() time.Time { return c.base.Add(time.Since(c.began)) }

func (c *hostClock) now() time.Time { return clocktest.Set(c.right(), time.Duration(c.ahead.Load())) }

// A clock that is wrong from the start, and one that is set while events wait, by
// minutes or days, in either direction: no event with a record becomes a dead
// letter, none waits longer for its record than the schedule says, and none without
// a record is given up before its window is over.
func TestClockIsSetWhileRunning(t *testing.T) {
	base := time.Now()
	for _, atFirst := range []bool{true, false} {
		for _, d := range []time.Duration{
			-8 * 24 * time.Hour, -time.Hour, -3 * time.Minute, -time.Minute, -time.Second, time.Second, time.Minute, 110 * time.Second,
			3 * time.Minute, time.Hour, 26 * time.Hour, 8 * 24 * time.Hour,
		} {
			clock := &hostClock{base: base}
			type call struct {
				ended  time.Time     // by the right clock
				exists time.Duration // after the end; 0: never
			}
			calls := map[string]call{}
			var mu sync.Mutex // guards calls
			name := fmt.Sprintf("by %v", d)
			if atFirst {
				name = fmt.Sprintf("wrong by %v, then right", d)
			}
			spec(t, name, func(e *env) {
				set := []time.Duration{0, d, 0}
				if atFirst {
					set = []time.Duration{d, 0, d}
				}
				done := 0
				check := func() {
					mu.Lock()
					defer mu.Unlock()
					for _, o := range e.Outcomes().Take() {
						done++
						c := calls[o.Event.CallID]
						age := clock.right().Sub(c.ended)
						switch {
						case c.exists > 0 && o.Failure != nil:
							e.t.Errorf("%s: %s after %d attempts", o.Event.CallID, o.Failure.Reason, o.Failure.Attempts)
						case c.exists > 0 && age > max(2*c.exists+5*time.Second, 12*time.Second):
							e.t.Errorf("%s: record after %v, enriched after %v", o.Event.CallID, c.exists, age)
						case c.exists == 0 && (age < 118*time.Second || age > 140*time.Second):
							e.t.Errorf("%s: given up after %v", o.Event.CallID, age)
						}
					}
				}
				for i := range 540 {
					if i%180 == 0 {
						clock.ahead.Store(int64(set[i/180]))
					}
					c := call{clock.right(), 4 * time.Second}
					switch {
					case i%50 == 7:
						c.exists = 0
					case i%10 == 0:
						c.exists = 20 * time.Second
					case i%10 == 1:
						c.exists = 100 * time.Second
					}
					id := fmt.Sprintf("call-%d", i)
					mu.Lock()
					calls[id] = c
					mu.Unlock()
					now := clock.now()
					e.Add([]*Event{{CallID: id, Time: EventTime(now, c.ended.UnixMilli()), Recorded: EventTime(now, c.ended.UnixMilli())}})
					<-time.After(time.Second)
					check()
				}
				for range 150 {
					<-time.After(time.Second)
					check()
				}
				if done != 540 {
					e.t.Errorf("%d of 540 events have an outcome", done)
				}
			}, func(cfg *Config) {
				clock.began = time.Now()
				cfg.Now = clock.now
				cfg.API = apiFunc(func(_ context.Context, callID string) fetch.Response {
					mu.Lock()
					defer mu.Unlock()
					r := responses["not_yet"]
					if c := calls[callID]; c.exists > 0 && clock.right().Sub(c.ended) >= c.exists {
						r = fetch.Response{Verdict: fetch.Found, Record: &schemas.CallRecord{CallID: callID, End: 1}}
					}
					r.Date = clock.right().Truncate(time.Second)
					return r
				})
			})
		}
	}
}
