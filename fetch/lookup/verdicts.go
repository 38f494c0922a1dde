package lookup

import (
	"container/heap"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/schemas"
)

// maxAccountErrors is how many AccountRejected responses one call may get,
// with good responses to other calls in between, before the call itself is
// taken for the cause.
const maxAccountErrors = 3

// handleResponse applies a response to the events that wait for it. The table
// in doc.go shows what each verdict does. A panic becomes the dead letter of
// just these events.
func (s *Scheduler) handleResponse(r *response, now time.Time) {
	c := r.call
	s.inFlight--
	s.lookingUp -= len(c.waiters)
	defer func() {
		if v := recover(); v != nil {
			s.Log.Error("panic while handling a response", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
			s.failAll(c, &fetch.Response{Message: fmt.Sprintf("panic: %v", v)}, now, schemas.Internal)
		}
		s.requeueOrRemove(c)
	}()
	if r.withheld {
		return
	}
	if r.panic != "" {
		s.Log.Error("panic in a request", zap.String("panic", r.panic))
		first, _, _ := strings.Cut(r.panic, "\n")
		s.failAll(c, &fetch.Response{Message: first}, now, schemas.Internal)
		return
	}
	s.Metrics.Responses.WithLabelValues(r.Verdict.String(), r.Label).Inc()
	s.Metrics.RequestSeconds.Observe(r.ended.Sub(r.started).Seconds())
	c.escalate(&r.Response)
	s.Breaker.Observe(r.ended, r.started, c.id, &r.Response)
	if r.Verdict.Good() {
		s.goodResponses++
	}
	c.nextAttempt = now
	s.countAttempt(c, r)
	switch r.Verdict {
	case fetch.Found:
		s.onFound(c, &r.Response, now)
	case fetch.NotYet:
		s.onNotYet(c, &r.Response, r.started, now)
	case fetch.Retry:
		s.onRetry(c, &r.Response, now)
	case fetch.Unknown:
		s.onUnknown(c, &r.Response, now)
	case fetch.Throttled: // all lookups pause; this call has lost nothing
	case fetch.AccountRejected:
		s.onAccountRejected(c, &r.Response, now)
	case fetch.Rejected:
		s.tryFailAll(c, &r.Response, now, schemas.Rejected)
	}
}

// escalate turns a Retry response into AccountRejected once its code, which
// may mean that, has come EscalateAfter times in a row for this call.
func (c *call) escalate(r *fetch.Response) {
	if r.EscalateAfter == 0 {
		c.suspectCount = 0
		return
	}
	if c.suspectCount++; c.suspectCount >= r.EscalateAfter {
		r.Verdict = fetch.AccountRejected
	}
}

// countAttempt counts an attempt for every waiter, if the verdict is one.
func (s *Scheduler) countAttempt(c *call, r *response) {
	if !r.Verdict.CountsAsAttempt() {
		return
	}
	for i := range c.waiters {
		w := &c.waiters[i]
		if w.attempts++; w.attempts == 1 {
			w.first = r.started
		}
		w.last = r.started
	}
	if r.Verdict != fetch.Retry {
		c.failures = 0
	}
	if r.Verdict != fetch.Unknown {
		c.unknowns = 0
	}
	if c.failures+c.unknowns == 0 {
		c.failingSince, c.goodAtFailure = r.started, s.goodResponses
	}
	if r.Verdict.Good() {
		c.accountErrors = 0
	}
}

func (s *Scheduler) onFound(c *call, r *fetch.Response, now time.Time) {
	value := schemas.Enrich(r.Record).Encode()
	s.Cache.Put(now, c.id, Entry{Value: value, RequestID: r.RequestID})
	s.complete(c, now, func(i int, _ *waiter) (Outcome, bool) {
		source := Coalesced
		if i == 0 {
			source = Requested
		}
		return Outcome{Value: value, RequestID: r.RequestID, Source: source}, true
	})
}

// onNotYet schedules the next attempt: each event has its own window, and those
// whose window is over become dead letters.
func (s *Scheduler) onNotYet(c *call, r *fetch.Response, asked, now time.Time) {
	next := asked.Add(idleWait)
	over := make([]bool, len(c.waiters))
	anyOver := false
	allExpired := true // of those that are over
	for i := range c.waiters {
		w := &c.waiters[i]
		w.notYet++
		at, again := s.Retry.NextNotFound(s.windowStart(w.event.Time), asked, w.notYet)
		if s.Retry.Expired(w.event.Time, asked) {
			again = false
		} else if !again {
			allExpired = false
		}
		if again && at.Before(next) {
			next = at
		}
		over[i] = !again
		anyOver = anyOver || !again
	}
	c.nextAttempt = next
	if !anyOver {
		return
	}
	// That the API has no record of old calls says nothing about the API, so
	// they do not count for the guard.
	if !allExpired && !s.Breaker.TakeDeadLetter(asked) {
		c.nextAttempt = asked
		return
	}
	s.fail(c, r, now, func(i int, w *waiter) schemas.Reason {
		switch {
		case !over[i]:
			return ""
		case s.Retry.Expired(w.event.Time, asked):
			return schemas.Expired
		case r.NotEnded:
			return schemas.NotEnded
		}
		return schemas.NotFound
	})
}

// windowStart is when a window that began at t begins: not before lookups were
// last resumed.
func (s *Scheduler) windowStart(t time.Time) time.Time {
	if resumed := s.Breaker.ResumedAt(); resumed.After(t) {
		return resumed
	}
	return t
}

// onRetry backs off. Events whose call has kept failing for the whole retry
// window, while the API answered other calls well, become dead letters.
func (s *Scheduler) onRetry(c *call, r *fetch.Response, now time.Time) {
	c.failures++
	c.nextAttempt = now.Add(s.Retry.Backoff(c.failures))
	if s.goodResponses == c.goodAtFailure { // no other call got a good response: an outage
		return
	}
	over := make([]bool, len(c.waiters))
	anyOver := false
	for i, w := range c.waiters {
		from := c.failingSince
		if w.added.After(from) {
			from = w.added
		}
		over[i] = now.Sub(s.windowStart(from)) >= s.Retry.RetryWindow
		anyOver = anyOver || over[i]
	}
	if anyOver && s.Breaker.TakeDeadLetter(now) {
		s.fail(c, r, now, func(i int, _ *waiter) schemas.Reason {
			if over[i] {
				return schemas.LookupFailed
			}
			return ""
		})
	}
}

func (s *Scheduler) onUnknown(c *call, r *fetch.Response, now time.Time) {
	c.unknowns++
	c.nextAttempt = now.Add(s.Retry.Backoff(c.unknowns))
	if c.unknowns >= MaxUnknownAttempts && s.goodResponses > c.goodAtFailure {
		s.tryFailAll(c, r, now, schemas.UnknownCode)
	}
}

// onAccountRejected: the breaker has paused lookups. A call that alone gets
// such responses, again and again, is the cause itself.
func (s *Scheduler) onAccountRejected(c *call, r *fetch.Response, now time.Time) {
	if c.accountErrors == 0 || s.goodResponses > c.goodAtAccount {
		c.accountErrors++
	}
	c.goodAtAccount = s.goodResponses
	if c.accountErrors >= maxAccountErrors {
		s.Log.Warn("dead-lettering call: repeated account errors for this CallId only", zap.String("call_id", c.id))
		s.failAll(c, r, now, schemas.LookupFailed)
	}
}

// tryFailAll makes dead letters of all waiters, if the breaker lets it.
func (s *Scheduler) tryFailAll(c *call, r *fetch.Response, now time.Time, reason schemas.Reason) {
	if s.Breaker.TakeDeadLetter(now) {
		s.failAll(c, r, now, reason)
	}
}

func (s *Scheduler) failAll(c *call, r *fetch.Response, now time.Time, reason schemas.Reason) {
	s.fail(c, r, now, func(int, *waiter) schemas.Reason { return reason })
}

// requeueOrRemove puts a call that events still wait for back into the queue.
func (s *Scheduler) requeueOrRemove(c *call) {
	if len(c.waiters) == 0 {
		delete(s.calls, c.id)
		return
	}
	heap.Push(&s.queue, c)
}
