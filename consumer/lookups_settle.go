package consumer

import (
	"container/heap"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/producer"
	"enricher/schemas"
)

// maxHalts is how many halt answers one call may draw, with good answers to
// others in between, before it is taken for the cause.
const maxHalts = 3

// settle decides what an answer means for those who wait for it. A panic is
// the dead letter of just these events.
func (l *lookups) settle(got *answered, now time.Time) {
	lk := got.l
	defer func() {
		if v := recover(); v != nil {
			l.log.Error("panic while handling an answer", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
			l.failAll(lk, &fetch.Answer{Message: fmt.Sprintf("panic: %v", v)}, schemas.Internal)
		}
		l.requeue(lk)
	}()
	if got.panic != "" {
		l.log.Error("panic while asking", zap.String("panic", got.panic))
		first, _, _ := strings.Cut(got.panic, "\n")
		l.failAll(lk, &fetch.Answer{Message: first}, schemas.Internal)
		return
	}
	a := &got.answer
	l.metrics.Lookups.WithLabelValues(a.Verdict.String(), a.Label).Inc()
	l.metrics.LookupSeconds.Observe(got.ended.Sub(got.started).Seconds())
	l.suspect(lk, a)
	l.gate.Observe(got.ended, got.started, lk.callID, a)
	if a.Verdict == fetch.Found || a.Verdict == fetch.NotYet {
		l.good++
	}
	lk.at = now
	l.attempt(lk, a, got)
	switch a.Verdict {
	case fetch.Found:
		l.found(lk, a, now)
	case fetch.NotYet:
		l.notYet(lk, a, got.started)
	case fetch.Retry:
		l.retry(lk, a, now)
	case fetch.Unknown:
		l.unknown(lk, a, now)
	case fetch.SlowDown: // everybody pauses; this one has lost nothing
	case fetch.Halt:
		l.halt(lk, a)
	case fetch.Reject:
		l.mayFailAll(lk, a, schemas.Rejected, now)
	}
}

// suspect turns a retry answer whose code means halt when it comes again and
// again for one call into that.
func (l *lookups) suspect(lk *lookup, a *fetch.Answer) {
	if a.HaltAfter == 0 {
		lk.suspects = 0
		return
	}
	if lk.suspects++; lk.suspects >= a.HaltAfter {
		a.Verdict = fetch.Halt
	}
}

// attempt counts an answer for all who wait, unless it is none: slow-down and
// halt are not about the call.
func (l *lookups) attempt(lk *lookup, a *fetch.Answer, got *answered) {
	if a.Verdict == fetch.SlowDown || a.Verdict == fetch.Halt {
		return
	}
	for i := range lk.waiters {
		w := &lk.waiters[i]
		if w.attempts++; w.attempts == 1 {
			w.first = got.started
		}
		w.last = got.started
	}
	if a.Verdict != fetch.Retry {
		lk.failures = 0
	}
	if a.Verdict != fetch.Unknown {
		lk.unknowns = 0
	}
	if lk.failures+lk.unknowns == 0 {
		lk.failing, lk.failGood = got.started, l.good
	}
	if a.Verdict == fetch.Found || a.Verdict == fetch.NotYet {
		lk.halts = 0
	}
}

func (l *lookups) found(lk *lookup, a *fetch.Answer, now time.Time) {
	value := schemas.Enrich(a.Record).Encode()
	l.cache.Put(now, lk.callID, fetch.Entry{Value: value, RequestID: a.RequestID})
	for i, w := range lk.waiters {
		l.done = append(l.done, result{event: w.ev, value: value, requestID: a.RequestID, hit: i > 0})
	}
	l.events -= len(lk.waiters)
	lk.waiters = nil
}

// notYet asks again on schedule, each event by its own window; those whose
// window is over fail.
func (l *lookups) notYet(lk *lookup, a *fetch.Answer, asked time.Time) {
	next := asked.Add(longWait)
	over := make([]bool, len(lk.waiters))
	any := false
	expired := true // whether all that fail do so for their age
	for i := range lk.waiters {
		w := &lk.waiters[i]
		w.missing++
		at, again := l.schedule.NotYet(l.windowStart(w.ev.time), asked, w.missing)
		if l.schedule.Expired(w.ev.time, asked) {
			again = false
		} else if !again {
			expired = false
		}
		if again && at.Before(next) {
			next = at
		}
		over[i] = !again
		any = any || !again
	}
	lk.at = next
	if !any {
		return
	}
	// Old events say nothing about the API: the guard does not count them.
	if !expired && !l.gate.MayFail(asked) {
		lk.at = asked
		return
	}
	l.fail(lk, a, over, func(w *waiter) schemas.Reason {
		switch {
		case l.schedule.Expired(w.ev.time, asked):
			return schemas.Expired
		case a.NotEnded:
			return schemas.NotEnded
		}
		return schemas.NotFound
	})
}

// windowStart is from when an event's window counts: no time runs while the
// gate is shut.
func (l *lookups) windowStart(t time.Time) time.Time {
	if opened := l.gate.Opened(); opened.After(t) {
		return opened
	}
	return t
}

// retry backs off. Events whose call has kept failing for the whole window,
// while the API answered others well, fail.
func (l *lookups) retry(lk *lookup, a *fetch.Answer, now time.Time) {
	lk.failures++
	lk.at = now.Add(l.schedule.Backoff(lk.failures))
	if l.good == lk.failGood { // nobody else got a good answer: an outage
		return
	}
	over := make([]bool, len(lk.waiters))
	any := false
	for i, w := range lk.waiters {
		from := lk.failing
		if w.added.After(from) {
			from = w.added
		}
		over[i] = now.Sub(l.windowStart(from)) >= l.schedule.RetryWindow
		any = any || over[i]
	}
	if any && l.gate.MayFail(now) {
		l.fail(lk, a, over, func(*waiter) schemas.Reason { return schemas.LookupFailed })
	}
}

func (l *lookups) unknown(lk *lookup, a *fetch.Answer, now time.Time) {
	lk.unknowns++
	lk.at = now.Add(l.schedule.Backoff(lk.unknowns))
	if lk.unknowns >= fetch.UnknownAttempts && l.good > lk.failGood {
		l.mayFailAll(lk, a, schemas.UnknownCode, now)
	}
}

// halt: the gate is shut now. A call that alone draws such answers, time and
// again, is the cause itself.
func (l *lookups) halt(lk *lookup, a *fetch.Answer) {
	if lk.halts == 0 || l.good > lk.haltGood {
		lk.halts++
	}
	lk.haltGood = l.good
	if lk.halts >= maxHalts {
		l.log.Warn("one call draws answers that are about the account, while others are answered well", zap.String("call_id", lk.callID))
		l.failAll(lk, a, schemas.LookupFailed)
	}
}

func (l *lookups) mayFailAll(lk *lookup, a *fetch.Answer, reason schemas.Reason, now time.Time) {
	if l.gate.MayFail(now) {
		l.failAll(lk, a, reason)
	}
}

func (l *lookups) failAll(lk *lookup, a *fetch.Answer, reason schemas.Reason) {
	over := make([]bool, len(lk.waiters))
	for i := range over {
		over[i] = true
	}
	l.fail(lk, a, over, func(*waiter) schemas.Reason { return reason })
}

// fail makes dead letters of the waiters that are over; the others go on.
func (l *lookups) fail(lk *lookup, a *fetch.Answer, over []bool, reason func(*waiter) schemas.Reason) {
	var rest []waiter
	for i := range lk.waiters {
		w := &lk.waiters[i]
		if !over[i] {
			rest = append(rest, *w)
			continue
		}
		l.events--
		l.done = append(l.done, result{event: w.ev, failure: &producer.Failure{
			Reason: reason(w), Code: a.Code, Message: a.Message, RequestID: a.RequestID,
			Attempts: w.attempts, First: w.first, Last: w.last,
		}})
	}
	lk.waiters = rest
}

// requeue puts a lookup that events still wait for back into the queue.
func (l *lookups) requeue(lk *lookup) {
	if len(lk.waiters) == 0 {
		delete(l.byID, lk.callID)
		return
	}
	heap.Push(&l.queue, lk)
}
