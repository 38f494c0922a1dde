package lookup

import "time"

// Throttled is a stub until the new limiter is merged.
func (l *Limiter) Throttled(now time.Time, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		retryAfter = max(retryAfter, time.Second)
	}
	l.pausedUntil = latest(l.pausedUntil, now.Add(retryAfter))
}

// Pace is a stub until the new limiter is merged.
func (l *Limiter) Pace(time.Time) float64 { return 1 }
