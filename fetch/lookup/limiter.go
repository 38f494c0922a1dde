package lookup

import (
	"math"
	"slices"
	"sync"
	"time"

	"enricher/fetch/mailbox"
)

const (
	// window is the span in which the API counts requests.
	window = time.Second
	// jitter is how much the time to the API and back may fall below the shortest
	// seen, and how much requests may overtake each other on their way.
	jitter = 5 * time.Millisecond
	// The shortest exchange is a floor once others came within nearFloor of it in
	// floorSeconds different seconds. A number of them alone shows nothing: in a new
	// process all may have been through the same stall.
	nearFloor    = 2 * jitter
	floorSeconds = 5
	// confirmByNeighbours lets confirmations of the neighbours requests written
	// next free a slot before its own response does. Without it, arrivals need not
	// keep order, but while 10 % of responses take seconds only 79 % of the rate
	// can be used instead of 98 %.
	confirmByNeighbours       = true
	neighbours, confirmations = 4, 2
	// catchUp is how late a request may be without the next ones being late too.
	catchUp = 50 * time.Millisecond
	// A throttled response takes a tenth off the pace; in a second without one 3 %
	// of it come back. With a second program on the same rate, 95 % of what that
	// leaves free was used in simulations.
	paceStep, paceRecovery = 0.9, 0.03
	// unlimitedPause is the least pause after a throttled response where there is
	// no rate whose pace could be slowed down.
	unlimitedPause = time.Second
	// never is a wait that only a change of the share or a response ends.
	never = time.Hour
	// maxHold bounds the slot time of tiny rates, which would overflow.
	maxHold = 100 * 365 * 24 * time.Hour
)

// Limiter bounds the requests of this instance to its share of a rate, so that in
// no second the API counts more than the rate from all instances together.
// docs/architecture.md has the argument and its assumptions.
//
// A share of n requests per second is n slots. A request takes a slot before it
// is written, and occupies it until one second after the last moment at which
// the API can have counted it. So whatever arrives within a second occupies as
// many slots at the end of it, and the slots of all instances add up to the rate.
//
// The last moment at which a request can have arrived is
//
//   - when a good response to it came, less the shortest time that a request has
//     taken from its connection to a good response;
//   - or when it ended in another way;
//   - or, earlier, when 2 of the 4 requests written next had good responses: the
//     network keeps order, so this one has arrived and only its response is slow.
//
// A share below one request per second is a single slot that is held longer, so
// instances with such shares may coincide.
//
// It is safe for use by many goroutines. The clock is the caller's, and only that of
// the process counts: it stands still while a machine sleeps, so that slots stay
// taken for longer, and setting the time of day does not free them.
type Limiter struct {
	limited             bool
	confirmByNeighbours bool
	changed             mailbox.Signal

	mu     sync.Mutex
	share  float64 // requests per second
	raises []raise // to come, ascending in share
	slots  int
	hold   time.Duration // for which a slot stays taken after the arrival

	open    int         // slots of requests that may yet arrive
	taken   time.Time   // when the last slot was
	arrived []time.Time // when those with another taken slot had arrived, ascending
	written []*Slot     // written, and fewer than neighbours connected since
	next    time.Time   // when the next request is due, for even spacing

	fastest   time.Duration // from connection to good response, of all requests
	nearSeen  int           // seconds in which an exchange was nearly as fast
	nearSince time.Time     // when the last of those began

	pace        float64   // part of the share in use
	paceAt      time.Time // when it was computed
	slowedAt    time.Time
	pausedUntil time.Time
}

// raise is a higher share that takes effect later.
type raise struct {
	share float64
	at    time.Time
}

// NewLimiter returns a Limiter that allows nothing before the first SetShare, or
// one without a limit.
func NewLimiter(limited bool) *Limiter {
	return &Limiter{
		limited: limited, confirmByNeighbours: confirmByNeighbours, changed: mailbox.NewSignal(),
		hold: window, pace: 1,
	}
}

// SetShare sets this instance's share, in requests per second. A lower share
// takes effect at once. A higher one takes effect after wait, when no request
// counts any more that another instance made with what it has given up.
func (l *Limiter) SetShare(now time.Time, perSecond float64, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applyRaises(now)
	if perSecond <= l.share {
		l.raises = nil
		l.setShare(perSecond)
	} else {
		i := slices.IndexFunc(l.raises, func(r raise) bool { return r.share >= perSecond })
		if i < 0 {
			l.raises = append(l.raises, raise{perSecond, now.Add(wait)})
		} else {
			l.raises = l.raises[:i+1]
			l.raises[i].share = perSecond
		}
		l.applyRaises(now)
	}
	l.changed.Set()
}

// Changed signals that the share changed: a wait that Reserve returned is void then.
func (l *Limiter) Changed() <-chan struct{} { return l.changed }

func (l *Limiter) setShare(perSecond float64) {
	l.share = perSecond
	switch {
	case perSecond <= 0:
		l.slots = 0
	case perSecond < 1:
		l.slots, l.hold = 1, time.Duration(min(float64(window)/perSecond, float64(maxHold)))
	default:
		// A sum of fractions may miss the whole number that it means by a hair.
		l.slots, l.hold = int(min(perSecond+1e-9, math.MaxInt32)), window
	}
}

// applyRaises lets higher shares take effect whose time has come, and returns how
// long it is until the next one's.
func (l *Limiter) applyRaises(now time.Time) time.Duration {
	for len(l.raises) > 0 {
		if wait := l.raises[0].at.Sub(now); wait > 0 {
			return wait
		}
		l.setShare(l.raises[0].share)
		l.raises = l.raises[1:]
	}
	return never
}

// Reserve takes a slot for a request. Without a free one it returns nil, and how
// long it is until asking again makes sense, unless a response comes before.
// The caller must call the slot's Done or Cancel.
func (l *Limiter) Reserve(now time.Time) (*Slot, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.pausedUntil.Sub(now); wait > 0 {
		return nil, wait
	}
	if !l.limited {
		return &Slot{limiter: l}, 0
	}
	wait := l.applyRaises(now)
	for len(l.arrived) > 0 && now.Sub(l.arrived[0]) >= l.hold {
		l.arrived = l.arrived[1:]
	}
	if excess := l.open + len(l.arrived) - l.slots; excess >= 0 {
		if l.slots > 0 && excess < len(l.arrived) {
			wait = min(wait, l.arrived[excess].Add(l.hold).Sub(now))
		}
		return nil, wait
	}
	if wait := l.next.Sub(now); wait > 0 {
		return nil, wait
	}
	l.recoverPace(now)
	space := time.Duration(float64(l.hold) / (float64(l.slots) * l.pace))
	l.next = latest(l.next.Add(space), now.Add(-catchUp))
	l.open++
	l.taken = now
	return &Slot{limiter: l, taken: now}, 0
}

// Surplus returns for how long at most more slots are occupied than the share has,
// as when it has become lower. timeout is that of one request.
func (l *Limiter) Surplus(now time.Time, timeout time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	surplus := l.open + len(l.arrived) - l.slots
	switch {
	case surplus <= 0:
		return 0
	case surplus <= len(l.arrived):
		return max(0, l.arrived[surplus-1].Add(l.hold).Sub(now))
	}
	return max(0, l.taken.Add(timeout+l.hold).Sub(now))
}

// Throttled reports a response that asks for a slower pace. Refusals within one
// second count as one. No request starts before retryAfter has passed.
func (l *Limiter) Throttled(now time.Time, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.limited {
		retryAfter = max(retryAfter, unlimitedPause)
	}
	l.pausedUntil = latest(l.pausedUntil, now.Add(retryAfter))
	if now.Sub(l.slowedAt) < window {
		return
	}
	l.slowedAt = now
	l.recoverPace(now)
	l.pace = max(l.pace*paceStep, 1/float64(max(l.slots, 1)))
}

func (l *Limiter) recoverPace(now time.Time) {
	if l.pace < 1 {
		l.pace = min(1, l.pace*math.Exp(paceRecovery*now.Sub(l.paceAt).Seconds()))
	}
	l.paceAt = now
}

// Pace returns the part of the share that is in use, from 0 to 1: less than 1
// while the API throttles.
func (l *Limiter) Pace(now time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recoverPace(now)
	return l.pace
}

// PerSecond returns how many requests per second this instance may make at its
// present pace; +Inf without a limit.
func (l *Limiter) PerSecond(now time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.limited {
		return math.Inf(1)
	}
	l.applyRaises(now)
	l.recoverPace(now)
	return l.share * l.pace
}

// Slot is what one request takes of the rate.
type Slot struct {
	limiter   *Limiter
	taken     time.Time
	connected time.Time // zero: not yet
	freed     bool      // its request has arrived or ended
	arrived   time.Time // by when, once it is freed

	isWritten  bool
	followers  int     // requests connected since it was written
	confirmed  int     // good responses of those
	confirming []*Slot // those of which it is a follower, until it has ended
}

// Connected reports that the request has its connection: it is written next.
func (s *Slot) Connected(now time.Time) {
	l := s.limiter
	if !l.limited {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	first := s.connected.IsZero()
	// The time is taken here and not when the request is written: a process that
	// is stopped after the writing would measure too short an exchange.
	s.connected = now
	if !first || !l.confirmByNeighbours || s.freed {
		return
	}
	l.written = slices.DeleteFunc(l.written, func(w *Slot) bool {
		if !w.freed {
			s.confirming = append(s.confirming, w)
		}
		w.followers++
		return w.followers == neighbours
	})
}

// Written reports that the request is written.
func (s *Slot) Written() {
	l := s.limiter
	if !l.limited {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.confirmByNeighbours && !s.isWritten && !s.freed {
		s.isWritten = true
		l.written = append(l.written, s)
	}
}

// Done reports that the request has ended. good means that the API responded as
// it does to any healthy request.
func (s *Slot) Done(now time.Time, good bool) {
	l := s.limiter
	if !l.limited {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	by := now
	if good {
		if !s.connected.IsZero() {
			l.measure(now, now.Sub(s.connected))
		}
		if l.nearSeen >= floorSeconds {
			by = now.Add(-max(0, l.fastest-jitter))
		}
		for _, w := range s.confirming {
			if w.confirmed++; w.confirmed == confirmations && !w.freed {
				l.free(w, now)
			}
		}
	}
	s.confirming = nil
	switch {
	case !s.freed:
		l.free(s, by)
	case by.Before(s.arrived): // the neighbours were quicker, but say less
		if i, found := slices.BinarySearchFunc(l.arrived, s.arrived, time.Time.Compare); found {
			l.arrived = slices.Delete(l.arrived, i, i+1)
			l.insert(s, by)
		}
	}
}

// measure keeps the shortest exchange.
func (l *Limiter) measure(now time.Time, took time.Duration) {
	if took < l.fastest-nearFloor {
		l.nearSeen = 0
	}
	if l.fastest == 0 || took < l.fastest {
		l.fastest = took
	}
	if took <= l.fastest+nearFloor && now.Sub(l.nearSince) >= time.Second {
		l.nearSeen++
		l.nearSince = now
	}
}

// Cancel reports that the request is not made.
func (s *Slot) Cancel() {
	l := s.limiter
	if !l.limited {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.freed = true
	l.open--
}

// free notes that the request of a slot had arrived by then.
func (l *Limiter) free(s *Slot, by time.Time) {
	s.freed = true
	l.open--
	l.insert(s, by)
}

func (l *Limiter) insert(s *Slot, by time.Time) {
	s.arrived = latest(by, s.taken)
	i := len(l.arrived)
	for i > 0 && l.arrived[i-1].After(s.arrived) {
		i--
	}
	l.arrived = slices.Insert(l.arrived, i, s.arrived)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
