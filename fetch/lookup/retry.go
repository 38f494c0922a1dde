package lookup

import (
	"math/rand/v2"
	"time"
)

// APIRetention is how long the API keeps a record. Source: the Call API's own page.
const APIRetention = 7 * 24 * time.Hour

// MaxUnknownAttempts is how often a code that is not in the table is tried.
const MaxUnknownAttempts = 5

// Back-off after failures that are expected to pass.
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// RetryPolicy says when a call is looked up and when to give up. It is pure: every
// time is the caller's.
type RetryPolicy struct {
	// LookupDelay is how long after the event's time the first lookup waits: the
	// record is not there at once.
	LookupDelay time.Duration
	// NotFoundWindow is how long after the event's time a record that is not
	// there is asked for again.
	NotFoundWindow time.Duration
	// RetryWindow is how long a call may keep failing while others succeed.
	RetryWindow time.Duration
}

// FirstLookup returns when to look up an event of that time first.
func (s RetryPolicy) FirstLookup(event time.Time) time.Time { return event.Add(s.LookupDelay) }

// Expired says that an event is older than what the API keeps.
func (s RetryPolicy) Expired(event, now time.Time) bool { return now.Sub(event) > APIRetention }

// NextNotFound returns when to ask again for a record that was not there when asked for
// the nth time, and whether to ask again at all. from is where the window
// begins: the later of the event's time and the gate's last opening.
//
// The steps double, up to the window's end: 5, 10, 20, 40, 80 and 120 s of two
// minutes. An event that was past its window from the start gets one
// confirmation.
func (s RetryPolicy) NextNotFound(from, asked time.Time, n int) (next time.Time, again bool) {
	for _, part := range [...]time.Duration{24, 12, 6, 3} {
		if next = from.Add(s.NotFoundWindow / part); next.After(asked) {
			return next, true
		}
	}
	if next = from.Add(s.NotFoundWindow * 2 / 3); next.After(asked) {
		return next, true
	}
	if next = from.Add(s.NotFoundWindow); next.After(asked) {
		return next, true
	}
	return asked.Add(s.NotFoundWindow / 12), n == 1
}

// Backoff is the pause after the nth failure in a row: 0.5 s × 2ⁿ⁻¹, at most
// 30 s, with full jitter.
func (s RetryPolicy) Backoff(n int) time.Duration {
	d := maxBackoff
	if n < 7 {
		d = min(d, minBackoff<<(n-1))
	}
	return rand.N(d)
}
