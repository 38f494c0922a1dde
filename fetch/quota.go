package fetch

import (
	"math"
	"sync"
	"time"
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

// Quota bounds the calls that this instance starts: its share of a rate, so
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
type Quota struct {
	rate    float64 // of the whole group; 0: no limit
	changed chan struct{}

	mu       sync.Mutex
	share    float64
	grown    float64   // the share from growAt on, if higher
	growAt   time.Time // zero: share is all there is
	calls    int       // at most so many in any window
	window   time.Duration
	arrivals arrivals  // of the last window
	onTheWay int       // taken and not sent yet: they count as sent now
	next     time.Time // when the next call is due, for even spacing
	used     uint64
}

// NewQuota makes a quota of rate calls a second for all instances together; 0
// means no limit. Before the first SetShare there is no share of it.
func NewQuota(rate float64) *Quota {
	q := &Quota{rate: rate, changed: make(chan struct{}, 1)}
	q.setShare(0)
	return q
}

// SetShare sets this instance's share of the rate, from 0 to 1. A lower share
// holds at once. A higher one holds a little later, when the calls of those
// that gave it up no longer count.
func (q *Quota) SetShare(now time.Time, share float64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.grow(now)
	if share <= q.share {
		q.growAt = time.Time{}
		q.setShare(share)
	} else if q.growAt.IsZero() || share > q.grown {
		q.grown, q.growAt = share, now.Add(growDelay)
	} else {
		q.grown = share
	}
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// Changed signals that the share changed: a wait told by Take is void then.
func (q *Quota) Changed() <-chan struct{} { return q.changed }

func (q *Quota) setShare(share float64) {
	q.share = share
	r := q.rate * share
	switch {
	case r <= 0:
		q.calls, q.window = 0, 0
	case r < 1:
		q.calls, q.window = 1, time.Duration(float64(time.Second)/r)
	default:
		// A share is a fraction of partitions; its product with the rate may
		// miss the whole number that it means by a hair.
		q.calls = int(math.Floor(r + 1e-9))
		q.window = max(time.Second+margin, time.Duration(float64(q.calls)/(utilisation*r)*float64(time.Second)))
	}
}

// grow lets a higher share hold when its time has come.
func (q *Quota) grow(now time.Time) {
	if !q.growAt.IsZero() && !now.Before(q.growAt) {
		q.growAt = time.Time{}
		q.setShare(q.grown)
	}
}

// Take asks to start a call now. If the answer is no, wait is how long it takes
// until asking again makes sense. After a yes the call must be made, and Sent
// be called once it was.
func (q *Quota) Take(now time.Time) (ok bool, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rate == 0 {
		q.used++
		return true, 0
	}
	q.grow(now)
	if q.calls == 0 {
		if !q.growAt.IsZero() {
			return false, q.growAt.Sub(now)
		}
		return false, never
	}
	sent := q.arrivals.since(now, q.window)
	space := q.window / time.Duration(q.calls)
	if excess := sent + q.onTheWay - q.calls; excess >= 0 {
		if excess < sent {
			return false, max(q.arrivals.at(excess, now).Add(q.window).Sub(now), time.Microsecond)
		}
		return false, space // until some are sent
	}
	if now.Before(q.next) {
		return false, q.next.Sub(now)
	}
	q.next = q.next.Add(space)
	if late := now.Add(-catchUp); q.next.Before(late) {
		q.next = late
	}
	q.onTheWay++
	q.used++
	return true, 0
}

// Sent tells that a call taken with Take is on the wire, or that it will never be.
func (q *Quota) Sent(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rate == 0 {
		return
	}
	q.onTheWay--
	q.arrivals.sent(now)
}

// Answered tells that the call of which Sent told at that time has its answer,
// whatever it is.
func (q *Quota) Answered(sent, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rate > 0 {
		q.arrivals.answered(sent, now)
	}
}

// PerSecond is how many calls a second this instance may start; +Inf without a
// limit.
func (q *Quota) PerSecond() float64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rate == 0 {
		return math.Inf(1)
	}
	return q.rate * q.share
}

// Used is the number of calls taken.
func (q *Quota) Used() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used
}
