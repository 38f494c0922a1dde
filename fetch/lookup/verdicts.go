package lookup

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/schemas"
)

// handleResponse applies a response: to what is known of the API, and to the
// events that wait for it. The table in doc.go shows what each verdict does.
func (s *Scheduler) handleResponse(r *response, now time.Time) {
	s.inFlight--
	if r.withheld {
		s.onWithheld(r, now)
		return
	}
	if r.panic != "" {
		s.Log.Error("panic in a request", zap.String("panic", r.panic))
		r.Response = fetch.Response{Verdict: fetch.Retry}
		r.Message, _, _ = strings.Cut(r.panic, "\n")
	} else {
		s.Metrics.Responses.WithLabelValues(r.Verdict.String(), r.Label).Inc()
		s.Metrics.RequestSeconds.Observe(r.ended.Sub(r.started).Seconds())
	}
	s.observeClock(r)
	s.observeThrottling(&r.Response, now)
	switch r.kind {
	case forProbe:
		s.breaker.ObserveProbe(now, &r.Response)
	case forScout:
		s.onScoutResponse(r, now)
	case forCall:
		s.onCallResponse(r, now)
	case forVerification:
		s.onVerified(r, now)
	}
}

// onWithheld handles a request that was not made.
func (s *Scheduler) onWithheld(r *response, now time.Time) {
	switch r.kind {
	case forProbe:
		s.breaker.ProbeWithheld()
	case forScout:
		s.scouted = r.callID
	case forCall:
		s.onCallResponse(r, now)
	case forVerification:
		s.onVerified(r, now)
	}
}

// observeClock compares this machine's clock with the API's. A difference that
// the exchange itself may explain is none.
func (s *Scheduler) observeClock(r *response) {
	if r.Date.IsZero() {
		return
	}
	s.clockAhead = 0
	if ahead := r.started.Sub(r.Date.Add(time.Second)); ahead > 0 { // Date is cut to seconds
		s.clockAhead = ahead
	} else if behind := r.Date.Sub(r.ended); behind > 0 {
		s.clockAhead = -behind
	}
	s.Metrics.ClockAhead.Set(s.clockAhead.Seconds())
	switch {
	case s.clockAhead.Abs() <= maxClockError:
		s.clockWrong = time.Time{}
	case s.clockWrong.IsZero():
		s.clockWrong = r.ended
	}
}

// observeThrottling slows the limiter down. Nothing else happens: a throttled
// response says nothing about any call, nor about the account.
func (s *Scheduler) observeThrottling(r *fetch.Response, now time.Time) {
	if r.Verdict != fetch.Throttled {
		s.throttled.since = time.Time{}
		return
	}
	s.Limiter.Throttled(now, r.RetryAfter)
	s.throttled.detail = r.Message
	if s.throttled.since.IsZero() {
		s.throttled.since = now
	}
}

func (s *Scheduler) onScoutResponse(r *response, now time.Time) {
	s.scouting = false
	s.breaker.Observe(now, r.started, &r.Response, true)
	if r.Verdict != fetch.Found {
		s.guard.ScoutFailed(now)
		return
	}
	s.Cache.Put(now, r.callID, Entry{r.encoded, r.RequestID})
	s.release(now)
}

// release notes that a record was found. Lookups that the guard withheld are
// requested once more.
func (s *Scheduler) release(now time.Time) {
	if !s.guard.Found() {
		return
	}
	for c := range s.withheld {
		s.requestAgain(c, now)
	}
}

// onCallResponse applies a response to the events that wait for it. A panic
// becomes the dead letter of just these events.
func (s *Scheduler) onCallResponse(r *response, now time.Time) {
	c := r.call
	s.lookingUp -= len(c.waiters)
	c.due, c.unpaused = now, 0
	withhold := false
	defer func() {
		if v := recover(); v != nil {
			s.Log.Error("panic while handling a response", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
			s.failAll(c, &fetch.Response{Message: fmt.Sprintf("panic: %v", v)}, now, schemas.Internal)
		}
		switch {
		case len(c.waiters) == 0:
			delete(s.calls, c.id)
		case withhold:
			s.withheld[c] = struct{}{}
		default:
			s.queue.push(c)
		}
	}()
	if r.withheld {
		return
	}
	if r.panic != "" {
		s.failAll(c, &r.Response, now, schemas.Internal)
		return
	}
	s.breaker.Observe(now, r.started, &r.Response, !c.responded)
	s.countAttempt(c, r)
	switch r.Verdict {
	case fetch.Found:
		s.onFound(c, r, now)
	case fetch.NotYet:
		withhold = s.onNotYet(c, r, now)
	case fetch.Retry, fetch.AccountRejected, fetch.Unknown:
		withhold = s.onBad(c, r, now)
	case fetch.Rejected:
		withhold = s.end(c, r, now, func(*waiter) schemas.Reason { return schemas.Rejected })
	case fetch.Throttled: // due again at once, at the limiter's pace
	}
}

// countAttempt counts an attempt for every waiter, if the verdict is one.
func (s *Scheduler) countAttempt(c *call, r *response) {
	if !r.Verdict.CountsAsAttempt() {
		return
	}
	c.responded = true
	for i := range c.waiters {
		w := &c.waiters[i]
		if w.attempts++; w.attempts == 1 {
			w.first = r.started
		}
		w.last = r.started
	}
	if r.Verdict.Good() {
		c.failures, c.evidence = 0, 0
	}
}

func (s *Scheduler) onFound(c *call, r *response, now time.Time) {
	s.release(now)
	s.Cache.Put(now, c.id, Entry{r.encoded, r.RequestID})
	source := Requested
	s.complete(c, now, func(*waiter) (Outcome, bool) {
		o := Outcome{Entry: Entry{r.encoded, r.RequestID}, Source: source}
		source = Coalesced // the others
		return o, true
	})
}

// onNotYet schedules the next attempt: each event has its own window, and those
// whose window is over become dead letters.
func (s *Scheduler) onNotYet(c *call, r *response, now time.Time) (withhold bool) {
	anyOver, allOver := false, true
	for i := range c.waiters {
		w := &c.waiters[i]
		w.notYet++
		wait, again := s.Retry.NextNotFound(s.age(w, r.started), w.notYet)
		if again && (c.unpaused == 0 || wait < c.unpaused) {
			c.unpaused, c.unpausedSince, c.due = wait, r.started, r.started.Add(wait)
		}
		w.over = !again
		anyOver, allOver = anyOver || !again, allOver && !again
	}
	if !anyOver {
		return false
	}
	withhold = s.end(c, r, now, func(w *waiter) schemas.Reason {
		switch {
		case !w.over:
			return ""
		case s.isExpired(w.event, r.started):
			return schemas.Expired
		case r.NotEnded:
			return schemas.NotEnded
		}
		return schemas.NotFound
	})
	return withhold && allOver
}

// age returns how much of the time since an event lookups were not paused, by
// the API's clock if this machine's is ahead of it: with that one, a window would
// be over before it began. A clock that is behind does no harm, because events of
// the future count as new.
func (s *Scheduler) age(w *waiter, at time.Time) time.Duration {
	age := s.breaker.Unpaused(w.event.Time, at) - max(0, s.clockAhead)
	return max(age, s.breaker.Unpaused(w.added, at)) // whatever the clocks say
}

// isExpired reports whether the API has forgotten the call, by both times of the
// event, as one alone may be wrong, and by the API's clock.
func (s *Scheduler) isExpired(ev *Event, at time.Time) bool {
	at = at.Add(-s.clockAhead)
	return at.Sub(ev.Time) > APIRetention && at.Sub(ev.Recorded) > APIRetention
}

// onBad backs off, and gives a call up that keeps failing while others do not.
func (s *Scheduler) onBad(c *call, r *response, now time.Time) (withhold bool) {
	if c.failures == 0 {
		c.failingSince = now
	}
	c.failures++
	// A failure says something against the call only if others worked meanwhile.
	othersWork := s.breaker.LastGood().After(c.lastFailure)
	if othersWork {
		c.evidence += s.breaker.Evidence()
	}
	c.lastFailure = now
	c.due = now.Add(s.Retry.Backoff(c.failures))
	if !s.Retry.GiveUp(s.breaker.Unpaused(c.failingSince, now), c.evidence, othersWork) {
		return false
	}
	return s.end(c, r, now, func(*waiter) schemas.Reason {
		if r.Verdict == fetch.Unknown {
			return schemas.UnknownCode
		}
		return schemas.LookupFailed
	})
}

// end makes dead letters of the waiters for which reason returns one, if they do not
// carry a record and the guard allows it.
func (s *Scheduler) end(c *call, r *response, now time.Time, reason func(*waiter) schemas.Reason) (withhold bool) {
	s.useOwnRecords(c, now, reason)
	if !slices.ContainsFunc(c.waiters, func(w waiter) bool { return reason(&w) != "" }) {
		return false
	}
	switch s.guard.Allow(now, r.round) {
	case Allowed:
		s.fail(c, &r.Response, now, reason)
	case Outdated:
		c.due, c.unpaused = now, 0
	case Withheld:
		return true
	}
	return false
}

func (s *Scheduler) failAll(c *call, r *fetch.Response, now time.Time, reason schemas.Reason) {
	s.fail(c, r, now, func(*waiter) schemas.Reason { return reason })
}
