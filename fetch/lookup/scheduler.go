package lookup

import (
	"container/heap"
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/fetch/mailbox"
	"enricher/schemas"
)

// Intervals at which the scheduler looks at what sends it no signal.
const (
	leaseCheckInterval  = 100 * time.Millisecond // whether a lost lease is valid again
	secretCheckInterval = time.Second            // whether the secret key has changed
	idleWait            = time.Hour              // nothing to do until a signal
)

// API makes requests to the call-record API; fetch.Client is one.
type API interface {
	// Lookup makes one request, or none if the observer does not let it begin.
	Lookup(ctx context.Context, callID string, o fetch.Observer) fetch.Response
	// SecretChanged reports, once for each change, that the secret key is
	// another one. It is called while the API rejects the account.
	SecretChanged(now time.Time) bool
}

// Lease allows requests to start: an instance that its group has not heard from
// may already have been replaced, and its share of the rate with it.
type Lease interface {
	Valid(now time.Time) bool
}

// Config says what a Scheduler works with.
type Config struct {
	API         API
	Lease       Lease
	Limiter     *Limiter
	Cache       *Cache
	Breaker     *Breaker // the scheduler's own from here on
	Retry       RetryPolicy
	Concurrency int // requests in flight, at most
	Metrics     *Metrics
	Log         *zap.Logger
}

// Scheduler finds the records of calls. All events of one call share one
// lookup, through waits and retries. One goroutine owns its state; each request
// in flight has a goroutine of its own, an event that waits has none.
type Scheduler struct {
	Config

	inbox    *mailbox.Mailbox[message]
	outcomes *mailbox.Mailbox[Outcome]
	drained  chan struct{} // closed when draining and no request is in flight

	// Run's goroutine owns these.
	calls         map[string]*call // by CallId
	queue         queue
	requests      sync.WaitGroup
	inFlight      int // requests
	events        int // of all calls
	lookingUp     int // of events, those whose call has a request in flight
	goodResponses uint64
	draining      bool
	nextSecret    time.Time
	pausedFor     map[PauseReason]bool // as last published in the metrics

	mu     sync.Mutex
	status Pause // as last published
}

// Pause says whether and why lookups are paused. The zero value: they are not.
type Pause struct {
	On     bool
	Reason PauseReason // the most severe one
	Detail string      // the facts in words
}

// message is what others hand to the scheduler: one of its fields is set.
type message struct {
	add      []*Event
	drop     []uint64
	drain    bool
	response *response
}

// call is one call whose record events wait for.
type call struct {
	id            string
	waiters       []waiter
	nextAttempt   time.Time // not before
	earliestProbe time.Time // not even as a probe before
	lastProbe     time.Time
	index         int // in the queue; −1: its request is in flight

	failures      int       // Retry responses in a row
	unknowns      int       // Unknown responses in a row
	failingSince  time.Time // start of the first of that row
	goodAtFailure uint64    // goodResponses then
	suspectCount  int       // responses in a row with a code that may concern the account
	accountErrors int       // AccountRejected responses, with good ones of other calls in between
	goodAtAccount uint64    // goodResponses at the last of those
}

// waiter is an event that waits for a call's record.
type waiter struct {
	event       *Event
	added       time.Time
	first, last time.Time // attempts
	attempts    int
	notYet      int // NotYet responses
}

// response is what came of one request.
type response struct {
	fetch.Response
	call    *call
	started time.Time
	ended   time.Time
	// withheld: no request was made, because the lease had ended since it was
	// started. It is no attempt.
	withheld bool
	panic    string // not "": the request panicked, with its stack
}

// NewScheduler returns a scheduler that does nothing until Run.
func NewScheduler(cfg Config) *Scheduler {
	return &Scheduler{
		Config:    cfg,
		inbox:     mailbox.New[message](),
		outcomes:  mailbox.New[Outcome](),
		drained:   make(chan struct{}),
		calls:     make(map[string]*call),
		pausedFor: make(map[PauseReason]bool),
	}
}

// Add hands over events. Each gets one outcome unless it is dropped before.
func (s *Scheduler) Add(events []*Event) { s.inbox.Put(message{add: events}) }

// Drop forgets the events of these assignments. Requests in flight for them
// still fill the cache.
func (s *Scheduler) Drop(assignments ...uint64) { s.inbox.Put(message{drop: assignments}) }

// Drain starts no more requests, and closes Drained when none is in flight.
func (s *Scheduler) Drain() { s.inbox.Put(message{drain: true}) }

// Drained is closed when, after Drain, no request is in flight and every
// outcome is in Outcomes.
func (s *Scheduler) Drained() <-chan struct{} { return s.drained }

// Outcomes is where the outcomes go, those of dropped events included if they
// were on their way.
func (s *Scheduler) Outcomes() *mailbox.Mailbox[Outcome] { return s.outcomes }

// Status reports whether lookups are paused. Any goroutine may call it.
func (s *Scheduler) Status() Pause {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Run works until ctx is done and every goroutine that it started has ended.
func (s *Scheduler) Run(ctx context.Context) {
	defer s.requests.Wait()
	timer := time.NewTimer(idleWait)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		s.drainInbox(now)
		wait := s.startRequests(ctx, now)
		s.publish(now)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-s.inbox.Ready():
		case <-s.Limiter.Changed():
		case <-timer.C:
		}
	}
}

// drainInbox takes in what others handed over since the last time.
func (s *Scheduler) drainInbox(now time.Time) {
	for _, m := range s.inbox.Take() {
		for _, ev := range m.add {
			s.enqueue(ev, now)
		}
		s.forget(m.drop)
		s.draining = s.draining || m.drain
		if m.response != nil {
			s.handleResponse(m.response, now)
		}
	}
	if s.draining && s.inFlight == 0 && !s.isDrained() {
		close(s.drained)
	}
}

func (s *Scheduler) isDrained() bool {
	select {
	case <-s.drained:
		return true
	default:
		return false
	}
}

// enqueue adds an event to its call, which begins with it unless it is known.
func (s *Scheduler) enqueue(ev *Event, now time.Time) {
	c := s.calls[ev.CallID]
	source := Coalesced
	if c == nil {
		// The caller has looked into the cache, but before the last response.
		if e, ok := s.Cache.Get(now, ev.CallID); ok {
			s.Metrics.CacheResults.WithLabelValues(CacheHit.String()).Inc()
			s.outcomes.Put(Outcome{Event: ev, Value: e.Value, RequestID: e.RequestID, Source: CacheHit, Completed: now})
			return
		}
		source = Requested
		c = &call{id: ev.CallID, nextAttempt: s.Retry.FirstLookup(ev.Time)}
		c.earliestProbe = c.nextAttempt
		s.calls[c.id] = c
		heap.Push(&s.queue, c)
	} else if at := s.Retry.FirstLookup(ev.Time); c.index >= 0 && c.failures+c.unknowns == 0 && at.Before(c.nextAttempt) {
		// A repeated event may mean that the record exists by now.
		c.nextAttempt = at
		heap.Fix(&s.queue, c.index)
	}
	s.Metrics.CacheResults.WithLabelValues(source.String()).Inc()
	s.events++
	if c.index < 0 {
		s.lookingUp++
	}
	c.waiters = append(c.waiters, waiter{event: ev, added: now})
}

// forget drops the events of assignments, and the calls for which no other
// event waits.
func (s *Scheduler) forget(assignments []uint64) {
	if len(assignments) == 0 {
		return
	}
	gone := make(map[uint64]bool, len(assignments))
	for _, a := range assignments {
		gone[a] = true
	}
	for id, c := range s.calls {
		kept := c.waiters[:0]
		for _, w := range c.waiters {
			if !gone[w.event.Assignment] {
				kept = append(kept, w)
			}
		}
		s.events -= len(c.waiters) - len(kept)
		if c.index < 0 {
			s.lookingUp -= len(c.waiters) - len(kept)
		}
		clear(c.waiters[len(kept):])
		c.waiters = kept
		if len(kept) == 0 && c.index >= 0 {
			heap.Remove(&s.queue, c.index)
			delete(s.calls, id)
		}
	}
}

// startRequests starts every request that may start now, and returns how long
// to wait until the next may.
func (s *Scheduler) startRequests(ctx context.Context, now time.Time) time.Duration {
	wait := idleWait
	if _, paused := s.Breaker.Paused(now); paused {
		wait = secretCheckInterval // also to notice the end of a timed pause
	}
	if s.Breaker.PausedFor(AccountRejected) {
		wait = s.watchSecret(now)
	}
	if s.draining || len(s.queue) == 0 {
		return wait
	}
	if !s.Lease.Valid(now) {
		return min(wait, leaseCheckInterval)
	}
	for len(s.queue) > 0 {
		c, until := s.next(now)
		if until > 0 {
			return min(wait, until)
		}
		if s.inFlight >= s.Concurrency {
			return wait // until a response comes
		}
		slot, until := s.Limiter.Reserve(now)
		if slot == nil {
			return min(wait, until)
		}
		s.request(ctx, c, slot, now)
	}
	return wait
}

// watchSecret checks the key from time to time while the API rejects it.
func (s *Scheduler) watchSecret(now time.Time) time.Duration {
	if now.Before(s.nextSecret) {
		return s.nextSecret.Sub(now)
	}
	s.nextSecret = now.Add(secretCheckInterval)
	if s.API.SecretChanged(now) {
		s.Log.Info("secret key changed, probing now")
		s.Breaker.ProbeNow()
	}
	return secretCheckInterval
}

// next returns the call whose turn it is, or how long it is until one's turn.
func (s *Scheduler) next(now time.Time) (*call, time.Duration) {
	if _, paused := s.Breaker.Paused(now); !paused {
		c := s.queue[0]
		return c, max(0, c.nextAttempt.Sub(now))
	}
	if wait := s.Breaker.ProbeDelay(now); wait > 0 {
		return nil, wait
	}
	// Rotate: the call that was probed longest ago, of those the oldest.
	var best *call
	first := idleWait
	for _, c := range s.queue {
		if wait := c.earliestProbe.Sub(now); wait > 0 {
			first = min(first, wait)
		} else if best == nil || c.lastProbe.Before(best.lastProbe) ||
			c.lastProbe.Equal(best.lastProbe) && c.earliestProbe.Before(best.earliestProbe) {
			best = c
		}
	}
	if best == nil {
		return nil, first
	}
	return best, 0
}

// request starts the request for a call in a slot of the rate.
func (s *Scheduler) request(ctx context.Context, c *call, slot *Slot, now time.Time) {
	if _, paused := s.Breaker.Paused(now); paused {
		s.Breaker.ProbeSent(now)
		c.lastProbe = now
	}
	heap.Remove(&s.queue, c.index)
	s.inFlight++
	s.lookingUp += len(c.waiters)
	s.requests.Go(func() {
		r := &response{call: c, started: now}
		at := &attempt{scheduler: s, slot: slot}
		defer func() {
			if v := recover(); v != nil {
				r.panic = fmt.Sprintf("panic: %v\n%s", v, debug.Stack())
			}
			r.ended, r.withheld = time.Now(), at.withheld
			if at.begun {
				slot.Done(r.ended, r.panic == "" && r.Verdict.Good())
			} else {
				slot.Cancel()
			}
			s.inbox.Put(message{response: r})
		}()
		r.Response = s.API.Lookup(ctx, c.id, at)
	})
}

// attempt reports the progress of one request to the limiter.
type attempt struct {
	scheduler *Scheduler
	slot      *Slot
	begun     bool
	withheld  bool // for want of a lease
}

// Begin looks at the lease with a fresh clock: since the request got its slot, the
// process may have been stopped and its partitions given to another instance.
func (a *attempt) Begin() bool {
	a.begun = a.scheduler.Lease.Valid(time.Now())
	a.withheld = !a.begun
	if a.begun {
		a.scheduler.Metrics.Requests.Inc()
	}
	return a.begun
}

func (a *attempt) Connected() { a.slot.Connected(time.Now()) }

func (a *attempt) Written() { a.slot.Written() }

// publish updates the metrics and Status, and logs a change.
func (s *Scheduler) publish(now time.Time) {
	var p Pause
	p.Reason, p.On = s.Breaker.Paused(now)
	if p.On {
		p.Detail = s.Breaker.Detail(p.Reason)
	}
	s.mu.Lock()
	before := s.status
	s.status = p
	s.mu.Unlock()
	s.Metrics.InFlight.WithLabelValues(StateWaiting).Set(float64(s.events - s.lookingUp))
	s.Metrics.InFlight.WithLabelValues(StateLookingUp).Set(float64(s.lookingUp))
	// A less severe reason may begin and end while the most severe one holds.
	for _, r := range PauseReasons() {
		if on := s.Breaker.PausedFor(r); on != s.pausedFor[r] {
			s.pausedFor[r] = on
			v := 0.0
			if on {
				v = 1
			}
			s.Metrics.Paused.WithLabelValues(r.String()).Set(v)
		}
	}
	switch {
	case p.On && (!before.On || p.Reason != before.Reason):
		s.Log.Warn("lookups paused", zap.Stringer("reason", p.Reason), zap.String("detail", p.Detail))
	case !p.On && before.On:
		s.Log.Info("lookups resumed")
		s.clearBackoff(now)
	}
}

// clearBackoff ends the back-offs of failed calls: the API has recovered.
func (s *Scheduler) clearBackoff(now time.Time) {
	for _, c := range s.queue {
		if c.failures+c.unknowns > 0 && c.nextAttempt.After(now) {
			c.nextAttempt = now
		}
	}
	heap.Init(&s.queue)
	s.inbox.Put() // another turn of Run, to start them
}

// complete hands over the outcomes of the waiters that done selects, and keeps
// the others.
func (s *Scheduler) complete(c *call, now time.Time, outcome func(i int, w *waiter) (Outcome, bool)) {
	var kept []waiter
	for i := range c.waiters {
		w := &c.waiters[i]
		o, done := outcome(i, w)
		if !done {
			kept = append(kept, *w)
			continue
		}
		o.Event, o.Completed = w.event, now
		s.outcomes.Put(o)
	}
	s.events -= len(c.waiters) - len(kept)
	c.waiters = kept
}

// fail makes dead letters of the waiters for which reason returns one.
func (s *Scheduler) fail(c *call, r *fetch.Response, now time.Time, reason func(i int, w *waiter) schemas.Reason) {
	s.complete(c, now, func(i int, w *waiter) (Outcome, bool) {
		why := reason(i, w)
		if why == "" {
			return Outcome{}, false
		}
		return Outcome{Failure: &schemas.Failure{
			Reason: why, Code: r.Code, Message: r.Message, RequestID: r.RequestID,
			Attempts: w.attempts, First: w.first, Last: w.last,
		}}, true
	})
}
