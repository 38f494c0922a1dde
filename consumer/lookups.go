package consumer

import (
	"container/heap"
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"enricher/fetch"
)

// Waits of the scheduler for what it is not told of.
const (
	leaseWait  = 100 * time.Millisecond // until the lease is looked at again
	secretWait = time.Second            // between two looks at the secret key
	longWait   = time.Hour              // nothing to do
)

type lookupsConfig struct {
	// ask makes one request. sent is called once, when it is on the wire, and has
	// returned before ask does.
	ask func(ctx context.Context, callID string, sent func()) fetch.Answer
	// secretChanged says once that the secret key is another one; it is asked
	// while the gate is shut by a halt.
	secretChanged func(now time.Time) bool
	// lease: no request starts unless it says true.
	lease       func(now time.Time) bool
	quota       *fetch.Quota
	cache       *fetch.Cache
	gate        *fetch.Gate // owned by lookups from here on
	schedule    fetch.Schedule
	concurrency int
	// deliver takes finished results; it must not block.
	deliver func([]result)
	metrics *Metrics
	log     *zap.Logger
}

// lookups finds the records of calls. All events of one call share its lookup,
// through waits and retries. One goroutine owns everything but the mailbox; a
// request in flight has a goroutine of its own, an event that waits has none.
type lookups struct {
	lookupsConfig

	// The mailbox, guarded by mu; wake (capacity 1) says that something is in it.
	mu       sync.Mutex
	added    []*event
	dropped  []uint64
	answered []answered
	stopping bool
	shut     bool // the gate, and why
	reason   fetch.GateReason
	why      string

	wake   chan struct{}
	idle   chan struct{} // closed when stopping and nothing is on the wire
	asked  sync.WaitGroup
	byID   map[string]*lookup
	queue  queue
	onWire int
	events int // of all lookups
	done   []result
	good   uint64                    // answers found or not yet: the API answers well
	told   map[fetch.GateReason]bool // what the metrics say of the gate

	stopped    bool // this goroutine's copy of stopping
	nextSecret time.Time
}

// lookup is one call that events wait for.
type lookup struct {
	callID  string
	waiters []waiter
	at      time.Time // not before
	settled time.Time // not even a probe before
	index   int       // in queue; −1: on the wire
	probed  time.Time // last asked as a probe

	failures int       // retry answers in a row
	unknowns int       // unknown answers in a row
	failing  time.Time // when the row began
	failGood uint64    // good then
	suspects int       // answers in a row of a code that may mean halt
	halts    int       // halt answers of this call, with good answers of others in between
	haltGood uint64    // good at the last of them
}

// waiter is an event that waits for a lookup.
type waiter struct {
	ev          *event
	added       time.Time
	first, last time.Time // attempts
	attempts    int
	missing     int // answers of not yet
}

// answered is what came of one request.
type answered struct {
	l       *lookup
	answer  fetch.Answer
	started time.Time
	ended   time.Time
	panic   string // not "": asking panicked, and its stack
}

func newLookups(cfg lookupsConfig) *lookups {
	return &lookups{
		lookupsConfig: cfg,
		wake:          make(chan struct{}, 1),
		idle:          make(chan struct{}),
		byID:          make(map[string]*lookup),
		told:          make(map[fetch.GateReason]bool),
	}
}

// add takes in events; some may be finished from the cache at once.
func (l *lookups) add(events []*event) {
	l.mu.Lock()
	l.added = append(l.added, events...)
	l.mu.Unlock()
	l.ring()
}

// drop forgets the events of these incarnations. What is on the wire for them
// finishes into the cache.
func (l *lookups) drop(incs ...uint64) {
	l.mu.Lock()
	l.dropped = append(l.dropped, incs...)
	l.mu.Unlock()
	l.ring()
}

// stopStarting begins a drain: no request starts any more.
func (l *lookups) stopStarting() {
	l.mu.Lock()
	l.stopping = true
	l.mu.Unlock()
	l.ring()
}

// drained is closed when, after stopStarting, nothing is on the wire and all
// results were delivered.
func (l *lookups) drained() <-chan struct{} { return l.idle }

// gateShut says whether and why the gate is shut.
func (l *lookups) gateShut() (reason fetch.GateReason, why string, shut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason, l.why, l.shut
}

func (l *lookups) ring() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run works until ctx is done, and until nothing that it started runs any more.
func (l *lookups) run(ctx context.Context) {
	defer l.asked.Wait()
	timer := time.NewTimer(longWait)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		l.takeIn(now)
		wait := l.start(ctx, now)
		l.publish(now)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-l.quota.Changed():
		case <-timer.C:
		}
	}
}

// takeIn empties the mailbox and delivers what is finished by it.
func (l *lookups) takeIn(now time.Time) {
	l.mu.Lock()
	added, dropped, answers := l.added, l.dropped, l.answered
	l.added, l.dropped, l.answered = nil, nil, nil
	l.stopped = l.stopping
	l.mu.Unlock()

	if len(dropped) > 0 {
		l.forget(dropped)
	}
	for _, ev := range added {
		l.admit(ev, now)
	}
	for i := range answers {
		l.onWire--
		l.settle(&answers[i], now)
	}
	if len(l.done) > 0 {
		l.deliver(l.done)
		l.done = nil
	}
	if l.stopped && l.onWire == 0 && !isClosed(l.idle) {
		close(l.idle)
	}
}

// admit has an event join the lookup of its call, or begin it.
func (l *lookups) admit(ev *event, now time.Time) {
	lk := l.byID[ev.callID]
	if lk == nil {
		// The lookup may have ended since the conductor looked.
		if e, ok := l.cache.Get(now, ev.callID); ok {
			l.metrics.CacheRequests.WithLabelValues("hit").Inc()
			l.done = append(l.done, result{event: ev, value: e.Value, requestID: e.RequestID, hit: true})
			return
		}
		l.metrics.CacheRequests.WithLabelValues("miss").Inc()
		lk = &lookup{callID: ev.callID, at: l.schedule.First(ev.time)}
		lk.settled = lk.at
		l.byID[ev.callID] = lk
		heap.Push(&l.queue, lk)
	} else {
		l.metrics.CacheRequests.WithLabelValues("joined").Inc()
		// A repeated event of a call that waits to be asked about again may
		// have news: an older event's turn is not put off, though.
		if at := l.schedule.First(ev.time); lk.index >= 0 && lk.failures+lk.unknowns == 0 && at.Before(lk.at) {
			lk.at = at
			heap.Fix(&l.queue, lk.index)
		}
	}
	l.events++
	lk.waiters = append(lk.waiters, waiter{ev: ev, added: now})
}

// forget drops the events of incarnations.
func (l *lookups) forget(incs []uint64) {
	gone := make(map[uint64]bool, len(incs))
	for _, inc := range incs {
		gone[inc] = true
	}
	for id, lk := range l.byID {
		kept := lk.waiters[:0]
		for _, w := range lk.waiters {
			if !gone[w.ev.inc] {
				kept = append(kept, w)
			}
		}
		l.events -= len(lk.waiters) - len(kept)
		clear(lk.waiters[len(kept):])
		lk.waiters = kept
		if len(kept) == 0 && lk.index >= 0 {
			heap.Remove(&l.queue, lk.index)
			delete(l.byID, id)
		}
	}
}

// start starts every request that may start now, and says when to come back.
func (l *lookups) start(ctx context.Context, now time.Time) time.Duration {
	wait := longWait
	if _, shut := l.gate.Shut(now); shut {
		wait = secretWait // also to notice that a pause is over
	}
	if l.gate.ShutFor(fetch.HaltGate) {
		wait = l.watchSecret(now)
	}
	if l.stopped || len(l.queue) == 0 {
		return wait
	}
	if !l.lease(now) {
		return min(wait, leaseWait)
	}
	for len(l.queue) > 0 {
		lk, until := l.next(now)
		if until > 0 {
			return min(wait, until)
		}
		if l.onWire >= l.concurrency {
			return wait // an answer rings
		}
		ok, until := l.quota.Take(now)
		if !ok {
			return min(wait, until)
		}
		l.ask(ctx, lk, now)
	}
	return wait
}

// watchSecret looks at the key from time to time while the gate is shut for it.
func (l *lookups) watchSecret(now time.Time) time.Duration {
	if now.Before(l.nextSecret) {
		return l.nextSecret.Sub(now)
	}
	l.nextSecret = now.Add(secretWait)
	if l.secretChanged(now) {
		l.log.Info("the secret key changed: probing at once")
		l.gate.ProbeNow()
	}
	return secretWait
}

// next is the lookup whose turn it is, or how long it is until one's turn.
func (l *lookups) next(now time.Time) (*lookup, time.Duration) {
	if _, shut := l.gate.Shut(now); !shut {
		lk := l.queue[0]
		return lk, max(0, lk.at.Sub(now))
	}
	if wait := l.gate.Probe(now); wait > 0 {
		return nil, wait
	}
	// Rotate: the one that was probed longest ago, of those the oldest.
	var best *lookup
	first := longWait
	for _, lk := range l.queue {
		if wait := lk.settled.Sub(now); wait > 0 {
			first = min(first, wait)
		} else if best == nil || lk.probed.Before(best.probed) ||
			lk.probed.Equal(best.probed) && lk.settled.Before(best.settled) {
			best = lk
		}
	}
	if best == nil {
		return nil, first
	}
	return best, 0
}

// ask puts a lookup on the wire.
func (l *lookups) ask(ctx context.Context, lk *lookup, now time.Time) {
	if _, shut := l.gate.Shut(now); shut {
		l.gate.Probed(now)
		lk.probed = now
	}
	heap.Remove(&l.queue, lk.index)
	l.onWire++
	l.metrics.QuotaUsed.Inc()
	l.asked.Go(func() {
		got := answered{l: lk, started: now}
		defer func() {
			if v := recover(); v != nil {
				got.panic = fmt.Sprintf("panic: %v\n%s", v, debug.Stack())
			}
			got.ended = time.Now()
			l.mu.Lock()
			l.answered = append(l.answered, got)
			l.mu.Unlock()
			l.ring()
		}()
		sent := now
		got.answer = l.lookupsConfig.ask(ctx, lk.callID, func() {
			sent = time.Now()
			l.quota.Sent(sent)
		})
		l.quota.Answered(sent, time.Now())
	})
}

// publish tells others how things stand.
func (l *lookups) publish(now time.Time) {
	reason, shut := l.gate.Shut(now)
	why := ""
	if shut {
		why = l.gate.Why(reason)
	}
	l.mu.Lock()
	changed := shut != l.shut || shut && reason != l.reason
	l.reason, l.why, l.shut = reason, why, shut
	l.mu.Unlock()
	l.metrics.InFlight.WithLabelValues("waiting").Set(float64(max(0, l.events-l.onWire)))
	l.metrics.InFlight.WithLabelValues("asking").Set(float64(l.onWire))
	// A lesser reason comes and goes while the gravest stays.
	for _, r := range fetch.GateReasons() {
		if s := l.gate.ShutFor(r); s != l.told[r] {
			l.told[r] = s
			v := 0.0
			if s {
				v = 1
			}
			l.metrics.GateShut.WithLabelValues(r.String()).Set(v)
		}
	}
	if !changed {
		return
	}
	if shut {
		l.log.Warn("gate shut: only probes go out, and no event's time runs", zap.Stringer("reason", reason), zap.String("why", why))
	} else {
		l.log.Info("gate open")
		l.hurry(now)
	}
}

// hurry ends all back-offs: they were for an API that failed.
func (l *lookups) hurry(now time.Time) {
	for _, lk := range l.queue {
		if lk.failures+lk.unknowns > 0 && lk.at.After(now) {
			lk.at = now
		}
	}
	heap.Init(&l.queue)
	l.ring()
}

// queue is a heap of lookups by not-before.
type queue []*lookup

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	lk := x.(*lookup)
	lk.index = len(*q)
	*q = append(*q, lk)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	n := len(old) - 1
	lk := old[n]
	old[n] = nil
	*q = old[:n]
	lk.index = -1
	return lk
}
