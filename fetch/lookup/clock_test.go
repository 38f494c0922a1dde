package lookup

import (
	"context"
	"fmt"
	"testing"
	"time"

	"enricher/fetch"
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
