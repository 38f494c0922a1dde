package lookup

import (
	"math/rand/v2"
	"time"
)

// APIRetention is how long the API keeps a record. Source: the Call API's own page.
const APIRetention = 7 * 24 * time.Hour

// Back-off after a bad response.
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = time.Minute
)

// minEvidence is the sum of Breaker.Evidence at which a call that keeps failing is
// given up: by then its failures are chance in one case of nine million. With a
// healthy API that takes 7 failures, while a tenth of all requests fails 10, and
// while half of them fail 32.
const minEvidence = 16

// minNotYet is the number of not_yet responses that an event needs to be given
// up: an event that is older than its window has not been requested in time.
const minNotYet = 2

// maxFirstStep is when a record that was late the first time is requested again:
// most exist five seconds after the end of the call.
const maxFirstStep = 5 * time.Second

// RetryPolicy says when a call is looked up and when to give up. It is pure: every
// time is the caller's. Windows are unpaused time, see Breaker.Unpaused.
type RetryPolicy struct {
	// LookupDelay is how long after the event's time the first lookup waits: the
	// record is not there at once.
	LookupDelay time.Duration
	// NotFoundWindow is how long after the event's time a record that is not
	// there is requested again.
	NotFoundWindow time.Duration
	// RetryWindow is how long a call may keep failing while others succeed.
	RetryWindow time.Duration
}

// FirstLookup returns when to look up an event of that time first.
func (p RetryPolicy) FirstLookup(event time.Time) time.Time { return event.Add(p.LookupDelay) }

// NextNotFound returns how long to wait before the next request for a record
// that was not there for the nth time, when the event had that age; and whether
// to make one at all.
//
// The steps double, up to the window's end: 5, 10, 20, 40, 80 and 120 s of two
// minutes. A shorter window has as many, a longer one more. An event that was past its window from the start gets one
// confirmation.
func (p RetryPolicy) NextNotFound(age time.Duration, n int) (wait time.Duration, again bool) {
	w := p.NotFoundWindow
	for step := min(w/24, maxFirstStep); step < w; step *= 2 {
		if step > age {
			return step - age, true
		}
	}
	if age < w {
		return w - age, true
	}
	return w / 12, n < minNotYet
}

// Backoff returns the pause after the nth bad response in a row: half to all of
// 0.5 s × 2ⁿ⁻¹, at most a minute.
func (p RetryPolicy) Backoff(n int) time.Duration {
	d := maxBackoff
	if n <= 7 { // 0.5 s << 7 exceeds it
		d = min(d, minBackoff<<(n-1))
	}
	return d/2 + rand.N(d/2)
}

// GiveUp reports whether a call that keeps failing becomes a dead letter: it has
// failed for the whole window, its failures are no chance, and the API works for
// other calls, since one got a good response between its last two failures.
func (p RetryPolicy) GiveUp(failing time.Duration, evidence float64, othersWork bool) bool {
	return failing >= p.RetryWindow && evidence >= minEvidence && othersWork
}
