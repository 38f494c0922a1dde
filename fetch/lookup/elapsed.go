package lookup

import "time"

// Elapsed returns the time between two moments by the clock of the process or by
// the time of day, whichever is more: the former stands still while a machine
// sleeps, the latter can be set back. It is for what must have ended after a sleep,
// such as a lease.
//
// What must not end early, because the time of day was set forward, is measured by
// the clock of the process alone: the slots of the rate limiter, back-offs and the
// retry window. A sleep prolongs those.
func Elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}
