package lookup

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"enricher/fetch"
	"enricher/schemas"
)

// request is one request in flight.
type request struct {
	kind    requestKind
	callID  string
	call    *call               // of a request for a call
	verify  *schemas.CallRecord // of a request for a verification
	round   int                 // of the guard, when it began
	started time.Time
}

type requestKind uint8

const (
	forCall         requestKind = iota // for a call that events wait for
	forProbe                           // for a call that does not exist: does the API work?
	forScout                           // for a call whose event is not in flight yet: does the API have records?
	forVerification                    // for a call whose event carried a record: is the API's the same?
)

// response is what came of one request.
type response struct {
	request
	fetch.Response
	encoded schemas.Encoded // of a record that was found
	ended   time.Time
	// withheld: no request was made, because the lease had ended since the request
	// was started. It is no attempt.
	withheld bool
	panic    string // not "": the request panicked, with its stack
}

// startRequests starts every request that may start now, and returns how long
// to wait until the next may.
func (s *Scheduler) startRequests(ctx context.Context) time.Duration {
	for !s.draining {
		now := s.Now() // again for every request: the process may have been frozen
		s.startScout(ctx, now)
		r, wait := s.next(now)
		switch {
		case wait > 0:
			return wait
		case !s.Lease.Valid(now):
			return leaseCheckInterval
		case s.inFlight >= s.Concurrency:
			return idleWait // until a response comes
		}
		slot, wait := s.Limiter.Reserve(now)
		if slot == nil {
			return wait
		}
		s.request(ctx, &r, slot)
	}
	return idleWait
}

// next returns the request whose turn it is, or how long it is until one's turn.
func (s *Scheduler) next(now time.Time) (request, time.Duration) {
	r := request{started: now, round: s.guard.Round()}
	if s.breaker.Paused() {
		r.kind, r.callID = forProbe, fetch.ProbeCallID
		return r, min(s.breaker.ProbeDelay(now), keyCheckInterval)
	}
	if s.scouted != "" {
		r.kind, r.callID = forScout, s.scouted
		return r, 0
	}
	c, wait := s.nextCall(now)
	if c == nil {
		if !s.scouting {
			wait = min(wait, s.guard.ScoutDelay(now))
		}
		verify := s.nextVerification(now)
		if verify == 0 {
			r.kind, r.verify = forVerification, s.verifications[0].record
			r.callID = r.verify.CallID
		}
		return r, min(wait, verify)
	}
	r.call, r.callID = c, c.id
	return r, 0
}

// nextCall returns the call whose turn it is, or how long it is until one's turn.
func (s *Scheduler) nextCall(now time.Time) (*call, time.Duration) {
	for {
		c, wait := s.queue.next(now)
		if c == nil || c.unpaused == 0 {
			return c, wait
		}
		left := c.unpaused - s.breaker.Unpaused(c.unpausedSince, now)
		if left <= 0 {
			return c, 0
		}
		s.queue.move(c, now.Add(left))
	}
}

// watchKey reads the secret key from time to time: while lookups are paused, a new
// one may be what the API waits for, and one that cannot be read should show before
// the old one stops working. It has a goroutine of its own, because a file system
// may hang.
func (s *Scheduler) watchKey(now time.Time) {
	if s.keyCheck.running || s.draining || now.Before(s.keyCheck.next) {
		return
	}
	s.keyCheck.running = true
	s.requests.Go(func() {
		var m keyCheck
		m.changed, m.problem = s.API.CheckKey(now)
		s.inbox.Put(message{keyCheck: &m})
	})
}

func (s *Scheduler) onKeyCheck(m *keyCheck, now time.Time) {
	s.keyCheck.running, s.keyCheck.next = false, now.Add(keyCheckInterval)
	s.keyProblem = m.problem
	if m.changed {
		s.Log.Info("secret key changed")
		s.breaker.ProbeNow(now)
	}
}

// startScout reads an event ahead if it is time for it. If there is none, it has
// one of the withheld calls requested again: the API may have its records by now.
func (s *Scheduler) startScout(ctx context.Context, now time.Time) {
	if s.scouting || s.breaker.Paused() || s.guard.ScoutDelay(now) > 0 {
		return
	}
	if s.Scout == nil {
		s.scoutWithheld(now)
		return
	}
	s.scouting = true
	s.requests.Go(func() {
		var m scouted
		m.callID, m.ok = s.Scout.Next(ctx)
		s.inbox.Put(message{scouted: &m})
	})
}

// onScouted takes in the event that was read ahead.
func (s *Scheduler) onScouted(m *scouted, now time.Time) {
	if _, known := s.calls[m.callID]; !m.ok || known {
		s.scouting = false
		s.scoutWithheld(now)
		return
	}
	s.scouted = m.callID
}

func (s *Scheduler) scoutWithheld(now time.Time) {
	s.guard.ScoutFailed(now)
	for c := range s.withheld { // any one
		s.requestAgain(c, now)
		return
	}
}

// requestAgain has a withheld call requested once more.
func (s *Scheduler) requestAgain(c *call, due time.Time) {
	delete(s.withheld, c)
	c.due, c.unpaused = due, 0
	s.queue.push(c)
}

// request starts a request in a slot of the rate.
func (s *Scheduler) request(ctx context.Context, q *request, slot *Slot) {
	switch q.kind {
	case forProbe:
		s.breaker.ProbeSent()
	case forScout:
		s.scouted = ""
	case forCall:
		s.queue.take(q.call)
		s.lookingUp += len(q.call.waiters)
	case forVerification:
		s.verifications = s.verifications[1:]
	}
	s.inFlight++
	s.requests.Go(func() {
		r := &response{request: *q}
		at := &attempt{scheduler: s, slot: slot}
		defer func() {
			if v := recover(); v != nil {
				r.panic = fmt.Sprintf("panic: %v\n%s", v, debug.Stack())
			}
			if r.ended.IsZero() {
				r.ended = s.Now()
			}
			r.withheld = at.withheld
			if at.begun {
				slot.Done(r.ended, r.panic == "" && r.Verdict.Good())
			} else {
				slot.Cancel()
			}
			s.inbox.Put(message{response: r})
		}()
		r.Response = s.API.Lookup(ctx, q.callID, at)
		r.ended = s.Now()
		if r.Verdict == fetch.Found {
			// Here, so that a large record holds up nothing but itself.
			r.encoded = s.Encode(r.Record)
		}
	})
}

// attempt reports the progress of one request to the limiter. It implements
// fetch.Observer.
type attempt struct {
	scheduler *Scheduler
	slot      *Slot
	begun     bool
	withheld  bool // for lack of a lease
}

// Begin checks the lease with a fresh clock: since the request got its slot, the
// process may have been stopped and its partitions given to another instance.
func (a *attempt) Begin() bool {
	a.begun = a.scheduler.Lease.Valid(a.scheduler.Now())
	a.withheld = !a.begun
	if a.begun {
		a.scheduler.Metrics.Requests.Inc()
	}
	return a.begun
}

// Connected implements fetch.Observer.
func (a *attempt) Connected() { a.slot.Connected(a.scheduler.Now()) }

// Written implements fetch.Observer.
func (a *attempt) Written() { a.slot.Written() }
