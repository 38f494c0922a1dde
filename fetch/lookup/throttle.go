package lookup

import "time"

// Throttled is a stub until the new limiter is merged.
func (l *Limiter) Throttled(now time.Time, retryAfter time.Duration) {}

// Pace is a stub until the new limiter is merged.
func (l *Limiter) Pace(now time.Time) float64 { return 1 }
