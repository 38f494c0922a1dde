package lookup

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"enricher/fetch"
	"enricher/fetch/mailbox"
	"enricher/schemas"
)

// Intervals at which the scheduler looks at what sends it no signal.
const (
	leaseCheckInterval = 100 * time.Millisecond // whether a lost lease is valid again
	keyCheckInterval   = time.Second            // whether the secret key has changed; idle, it takes maxIdle
	maxIdle            = 5 * time.Second        // between two looks, if nothing else happens
	idleWait           = time.Hour              // nothing to do until a signal
)

// logInterval is between two log lines of a cause that repeats.
const logInterval = 10 * time.Second

// API makes requests to the call-record API; fetch.Client is one.
type API interface {
	// Lookup makes one request, or none if the observer does not let it begin.
	Lookup(ctx context.Context, callID string, o fetch.Observer) fetch.Response
	// CheckKey reads the secret key again. It reports, once for each change, that it
	// is another one, and returns why it cannot be read. It may take its time.
	CheckKey(now time.Time) (changed bool, problem error)
}

// Lease allows requests to start: an instance that its group has not heard from
// may already have been replaced, and its share of the rate with it.
type Lease interface {
	Valid(now time.Time) bool
}

// Scout reads events that are not in flight yet.
type Scout interface {
	// Next returns an event beyond those in flight: by turns the newest one whose
	// record may be readable by now, and a random one. ok is false if there is
	// none, or if it cannot be read. It may take its time.
	Next(ctx context.Context) (callID string, ok bool)
}

// Config says what a Scheduler works with.
type Config struct {
	API     API
	Lease   Lease
	Limiter *Limiter
	Cache   *Cache
	Retry   RetryPolicy
	// Encode makes what is written of a call record. It is called on a goroutine of
	// the request. Default: schemas.EncodeJSON.
	Encode func(*schemas.CallRecord) schemas.Encoded
	// MaxConsecutiveDeadLetters is how many lookups may end in dead letters
	// between two records found; 0: any number.
	MaxConsecutiveDeadLetters int
	// Scout looks ahead while dead letters are withheld. Nil: nothing does, so
	// that they are released only when an event that is in flight has a record.
	Scout       Scout
	Concurrency int // requests in flight, at most
	// Now is the clock. Default: time.Now.
	Now     func() time.Time
	Metrics *Metrics
	Log     *zap.Logger
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
	breaker   *Breaker
	guard     *Guard
	calls     map[string]*call // by CallId
	queue     queue
	withheld  map[*call]struct{} // neither queued nor in flight, until the guard releases them
	scouting  bool               // from the beginning of Scout.Next to the response
	scouted   string             // the CallId to look up next as a scout; "": none
	requests  sync.WaitGroup
	inFlight  int // requests
	events    int // of all calls
	lookingUp int // of events, those whose call has a request in flight
	draining  bool
	drains    []*assignmentDrain // whose requests are in flight
	// verifications wait here, the first due first.
	verifications     []verification
	differenceWarning rate.Sometimes
	keyCheck          struct {
		next    time.Time
		running bool
	}
	keyProblem error         // why the secret key could not be read again; nil: it could
	clockAhead time.Duration // how far this machine's clock is ahead of the API's; negative: behind
	clockWrong time.Time     // since when by more than maxClockError; zero: it is not
	throttled  struct {
		since  time.Time // the first of a row of throttled responses; zero: the last one was none
		detail string    // of the last of them
	}

	mu     sync.Mutex
	status [reasons]string // the facts in words, as last published; "": it does not hold
}

// message is what others hand to the scheduler: one of its fields is set.
type message struct {
	add      []*Event
	drop     []uint64
	drain    bool
	scouted  *scouted
	keyCheck *keyCheck
	verify   *schemas.CallRecord
	response *response

	drainAssignments *assignmentDrain
}

// keyCheck is what API.CheckKey returned.
type keyCheck struct {
	changed bool
	problem error
}

// scouted is what Scout.Next returned.
type scouted struct {
	callID string
	ok     bool
}

// call is one call whose record events wait for.
type call struct {
	id      string
	waiters []waiter
	index   int // in its heap; notQueued: in none

	requested bool      // a request has begun
	responded bool      // a response other than a throttled one has come
	due       time.Time // not before
	// The call is not due either before so much time since then has passed, during
	// which lookups were not paused.
	unpaused      time.Duration
	unpausedSince time.Time

	failures     int       // bad responses in a row
	failingSince time.Time // the first of them
	lastFailure  time.Time
	evidence     float64 // the sum of Breaker.Evidence at those that count
}

const notQueued = -1

// waiter is an event that waits for a call's record.
type waiter struct {
	event       *Event
	added       time.Time
	first, last time.Time // attempts
	attempts    int
	notYet      int  // NotYet responses
	over        bool // the not-found window, at the last response
}

// NewScheduler returns a scheduler that does nothing until Run.
func NewScheduler(cfg Config) *Scheduler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Encode == nil {
		cfg.Encode = schemas.EncodeJSON
	}
	return &Scheduler{
		Config:   cfg,
		inbox:    mailbox.New[message](),
		outcomes: mailbox.New[Outcome](),
		drained:  make(chan struct{}),
		breaker:  &Breaker{},
		guard:    NewGuard(cfg.MaxConsecutiveDeadLetters),
		calls:    make(map[string]*call),
		withheld: make(map[*call]struct{}),

		differenceWarning: rate.Sometimes{Interval: logInterval},
	}
}

// Add hands over events. Each gets one outcome unless it is dropped before.
func (s *Scheduler) Add(events []*Event) { s.inbox.Put(message{add: events}) }

// Drain starts no more requests, and closes Drained when none is in flight.
func (s *Scheduler) Drain() { s.inbox.Put(message{drain: true}) }

// Drained is closed when, after Drain, no request is in flight and every
// outcome is in Outcomes.
func (s *Scheduler) Drained() <-chan struct{} { return s.drained }

// Outcomes is where the outcomes go, those of dropped events included if they
// were on their way.
func (s *Scheduler) Outcomes() *mailbox.Mailbox[Outcome] { return s.outcomes }

// Run works until ctx is done and every goroutine that it started has ended.
func (s *Scheduler) Run(ctx context.Context) {
	defer s.requests.Wait()
	timer := time.NewTimer(idleWait)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := s.Now()
		s.drainInbox(now)
		s.watchKey(now)
		wait := s.startRequests(ctx)
		s.publish(now)
		timer.Reset(min(wait, maxIdle))
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
		if len(m.drop) > 0 {
			s.forget(setOf(m.drop))
		}
		if m.drainAssignments != nil {
			s.startDrain(m.drainAssignments)
		}
		s.draining = s.draining || m.drain
		if m.scouted != nil {
			s.onScouted(m.scouted, now)
		}
		if m.keyCheck != nil {
			s.onKeyCheck(m.keyCheck, now)
		}
		if m.verify != nil {
			s.enqueueVerification(m.verify, now)
		}
		if m.response != nil {
			s.handleResponse(m.response, now)
			s.continueDrains(m.response.call)
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
			s.outcomes.Put(Outcome{Event: ev, Entry: e, Source: CacheHit, Completed: now})
			return
		}
		source = Requested
		c = &call{id: ev.CallID, due: s.firstLookup(ev, now)}
		s.calls[c.id] = c
		s.queue.push(c)
	} else {
		s.lookUpSooner(c, s.firstLookup(ev, now), now)
	}
	s.Metrics.CacheResults.WithLabelValues(source.String()).Inc()
	s.events++
	if s.isInFlight(c) {
		s.lookingUp++
	}
	c.waiters = append(c.waiters, waiter{event: ev, added: now})
}

// firstLookup returns when to look up an event first, by the API's clock if this
// machine's is ahead of it. It is never later than for an event of this moment, and
// relative to now: the clock may be set back in the meantime.
func (s *Scheduler) firstLookup(ev *Event, now time.Time) time.Time {
	age := now.Sub(ev.Time) - max(0, s.clockAhead)
	return s.Retry.FirstLookup(now.Add(-max(0, age)))
}

// lookUpSooner moves a call forward for a repeated event, which may mean that
// the record exists by now.
func (s *Scheduler) lookUpSooner(c *call, due, now time.Time) {
	if c.requested && due.Before(now) {
		due = now // it does not overtake other repeats
	}
	if _, withheld := s.withheld[c]; withheld {
		s.requestAgain(c, due)
	} else if c.index != notQueued && c.failures == 0 && due.Before(c.due) {
		c.unpaused = 0
		s.queue.move(c, due)
	}
}

func (s *Scheduler) isInFlight(c *call) bool {
	_, withheld := s.withheld[c]
	return c.index == notQueued && !withheld
}

// complete hands over the outcomes of the waiters that done selects, and keeps
// the others.
func (s *Scheduler) complete(c *call, now time.Time, outcome func(w *waiter) (Outcome, bool)) {
	var kept []waiter
	for i := range c.waiters {
		w := &c.waiters[i]
		o, done := outcome(w)
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

// useOwnRecords completes the waiters that would become dead letters for lack of the
// API's record and carry their own.
func (s *Scheduler) useOwnRecords(c *call, now time.Time, reason func(*waiter) schemas.Reason) {
	s.complete(c, now, func(w *waiter) (Outcome, bool) {
		if w.event.Record == nil || !slices.Contains(replaceable, reason(w)) {
			return Outcome{}, false
		}
		r := w.event.Record()
		if r == nil {
			return Outcome{}, false
		}
		return Outcome{Entry: Entry{Encoded: s.Encode(r)}, Source: OwnRecord}, true
	})
}

// replaceable are the reasons that a record of the event's own makes void. The API
// has said nothing about the call. In not_ended it has, and its word counts for more.
var replaceable = []schemas.Reason{schemas.NotFound, schemas.Expired, schemas.LookupFailed}

// fail makes dead letters of the waiters for which reason returns one.
func (s *Scheduler) fail(c *call, r *fetch.Response, now time.Time, reason func(*waiter) schemas.Reason) {
	s.complete(c, now, func(w *waiter) (Outcome, bool) {
		why := reason(w)
		if why == "" {
			return Outcome{}, false
		}
		return Outcome{Failure: &schemas.Failure{
			Reason: why, Code: r.Code, Message: r.Message, RequestID: r.RequestID,
			Attempts: w.attempts, First: w.first, Last: w.last,
		}}, true
	})
}
