package lookup

import (
	"math"
	"sync"
	"time"

	"enricher/fetch/mailbox"
)

const (
	// margin is by how much the requests of one window may come closer together
	// on their way than they were sent.
	margin = 5 * time.Millisecond
	// utilisation is how much of the rate is aimed at where the margin leaves
	// a choice: the rest is more margin.
	utilisation = 0.99
	// growDelay is how long after a raise the calls of those who had the share
	// before still count: one window of the API, and the way there.
	growDelay = 1100 * time.Millisecond
	// catchUp is how late a call may be without the next ones being late too.
	catchUp = 50 * time.Millisecond
	// never is a wait that only a change of the share ends.
	never = time.Hour
)

// Limiter bounds the calls that this instance starts: its share of a rate, so
// that in no second the API sees more than the rate from all instances
// together.
//
// It keeps the calls of the last window, one second and a margin long, in which
// there are never more than the whole number of calls below the share's rate.
// Whole numbers add up: were every instance to round its own rate up, or to
// save unused calls for later, the sum would overrun. What rounding down costs
// is small unless the share is (200 calls over 3 instances: 1 %; over 12: 4 %).
// A share below one call a second cannot be rounded down: it is kept by calls
// that are further apart, so instances with such shares may coincide.
//
// A call counts from when it arrived, which is not when it was sent: when the
// network or the API stalls, the calls sent meanwhile arrive all at once, and
// those after them within the same second. See arrivals.
//
// It is safe for use by many goroutines. The clock is the caller's.
type Limiter struct {
	rate    float64 // of the whole group; 0: no limit
	changed mailbox.Signal

	mu       sync.Mutex
	share    float64
	grown    float64   // the share from growAt on, if higher
	growAt   time.Time // zero: share is all there is
	limit    int       // at most so many in any window
	window   time.Duration
	arrivals arrivals  // of the last window
	reserved int       // taken and not sent yet: they count as sent now
	next     time.Time // when the next call is due, for even spacing

	pausedUntil time.Time
}

// NewLimiter makes a quota of rate calls a second for all instances together; 0
// means no limit. Before the first SetShare there is no share of it.
func NewLimiter(rate float64) *Limiter {
	l := &Limiter{rate: rate, changed: mailbox.NewSignal()}
	l.setShare(0)
	return l
}

// SetShare sets this instance's share of the rate, from 0 to 1. A lower share
// holds at once. A higher one holds a little later, when the calls of those
// that gave it up no longer count.
func (l *Limiter) SetShare(now time.Time, share float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grow(now)
	if share <= l.share {
		l.growAt = time.Time{}
		l.setShare(share)
	} else if l.growAt.IsZero() || share > l.grown {
		l.grown, l.growAt = share, now.Add(growDelay)
	} else {
		l.grown = share
	}
	l.changed.Set()
}

// Changed signals that the share changed: a wait told by Reserve is void then.
func (l *Limiter) Changed() <-chan struct{} { return l.changed }

func (l *Limiter) setShare(share float64) {
	l.share = share
	r := l.rate * share
	switch {
	case r <= 0:
		l.limit, l.window = 0, 0
	case r < 1:
		l.limit, l.window = 1, time.Duration(float64(time.Second)/r)
	default:
		// A share is a fraction of partitions; its product with the rate may
		// miss the whole number that it means by a hair.
		l.limit = int(math.Floor(r + 1e-9))
		l.window = max(time.Second+margin, time.Duration(float64(l.limit)/(utilisation*r)*float64(time.Second)))
	}
}

// grow lets a higher share hold when its time has come.
func (l *Limiter) grow(now time.Time) {
	if !l.growAt.IsZero() && !now.Before(l.growAt) {
		l.growAt = time.Time{}
		l.setShare(l.grown)
	}
}

// Reserve asks to start a call now. If the answer is no, wait is how long it takes
// until asking again makes sense. After a yes the call must be made, and Sent
// be called once it was.
func (l *Limiter) Reserve(now time.Time) (ok bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.pausedUntil.Sub(now); wait > 0 {
		return false, wait
	}
	if l.rate == 0 {
		return true, 0
	}
	l.grow(now)
	if l.limit == 0 {
		if !l.growAt.IsZero() {
			return false, l.growAt.Sub(now)
		}
		return false, never
	}
	sent := l.arrivals.since(now, l.window)
	space := l.window / time.Duration(l.limit)
	if excess := sent + l.reserved - l.limit; excess >= 0 {
		if excess < sent {
			return false, max(l.arrivals.at(excess, now).Add(l.window).Sub(now), time.Microsecond)
		}
		return false, space // until some are sent
	}
	if now.Before(l.next) {
		return false, l.next.Sub(now)
	}
	l.next = l.next.Add(space)
	if late := now.Add(-catchUp); l.next.Before(late) {
		l.next = late
	}
	l.reserved++
	return true, 0
}

// Sent tells that a call taken with Reserve is on the wire, or that it will never be.
func (l *Limiter) Sent(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return
	}
	l.reserved--
	l.arrivals.sent(now)
}

// Responded tells that the call of which Sent told at that time has its answer,
// whatever it is.
func (l *Limiter) Responded(sent, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate > 0 {
		l.arrivals.responded(sent, now)
	}
}

// PerSecond is how many calls a second this instance may start; +Inf without a
// limit.
func (l *Limiter) PerSecond() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return math.Inf(1)
	}
	return l.rate * l.share
}
