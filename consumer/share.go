package consumer

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/consumer/session"
	"enricher/fetch/lookup"
	"enricher/fetch/mailbox"
)

// rateLimit is what the instances of a group have to know to share a rate.
type rateLimit struct {
	perSecond      float64       // of the whole group
	apiTimeout     time.Duration // of one request
	sessionTimeout time.Duration // of a member
}

// counts is how long a request may count from its beginning: it ends within
// apiTimeout, and counts for a second after.
func (r rateLimit) counts() time.Duration { return r.apiTimeout + time.Second }

// lease is how long an instance may begin requests after a heartbeat that the
// broker has accepted. The group replaces it after timeout at the earliest, and by
// then none of its requests counts any more. A timeout that is too short for that
// leaves a third of it, and the rest is the others' to wait: see lost.
func (r rateLimit) lease(timeout time.Duration) time.Duration {
	return max(timeout-r.counts(), timeout/3)
}

// lost is how long requests may count of a member that the group has replaced.
func (r rateLimit) lost() time.Duration {
	return r.lease(r.sessionTimeout) + r.counts() - r.sessionTimeout
}

// change is how long requests may count that a member makes by a plan which the
// group has replaced.
func (r rateLimit) change() time.Duration { return r.lease(r.sessionTimeout) + r.counts() }

// share returns what the partitions held are worth, in requests per second.
// totals is the number of partitions of every input topic.
//
// Of all partitions, sorted by topic and number, number p of n is worth
// ⌊(p+1)·rate/n⌋ − ⌊p·rate/n⌋: whole numbers that add up to the rate however the
// partitions are divided. A rate below one request per second and partition has
// no such parts: it is divided in proportion.
func (r rateLimit) share(held map[string][]int32, totals map[string]int32) float64 {
	first, n := make(map[string]int, len(totals)), 0
	for _, topic := range slices.Sorted(maps.Keys(totals)) {
		first[topic] = n
		n += int(totals[topic])
	}
	below := func(p int) float64 { return math.Floor(float64(p) * r.perSecond / float64(n)) }
	slots, parts := 0.0, 0
	for topic, ps := range held {
		for _, p := range ps {
			if p < totals[topic] {
				i := first[topic] + int(p)
				slots += below(i+1) - below(i)
				parts++
			}
		}
	}
	if r.perSecond < float64(n) {
		return r.perSecond * float64(parts) / float64(n)
	}
	return slots
}

// membership tracks this instance's place in its group during one session, and
// from it three things:
//
//   - its share of the rate limit, by the partitions it holds;
//   - its lease on that share: a member that was stopped or cut off has been
//     replaced by the time its lease ends, so it cannot exceed the rate;
//   - whether it is joining: from its request to join until it has its
//     assignment, which takes as long as the slowest member does. No transaction
//     may begin meanwhile: the client would let it produce, delay its offset
//     commit until the join ends, and then send it with the old generation, which
//     the broker rejects. Readers would wait all that time for an abort.
//
// The assignment is read from the balancer, because the session's callbacks
// cannot be relied on (they are called at most once between two transactions):
// a sync has the new assignment before anything is given up, and a join states
// what is still held before another member can receive it.
//
// Each member states in its join how long it still uses more than what it holds is
// worth. The group's leader adds a groupPlan to every assignment, so that all
// members of a generation divide the rate by the same number of partitions, and
// wait for those requests.
type membership struct {
	kgo.GroupBalancer // cooperative-sticky
	rate              rateLimit
	limiter           *lookup.Limiter
	now               func() time.Time
	log               *zap.Logger

	beat     mailbox.Signal // the client had a response to a heartbeat
	assigned mailbox.Signal // a join is over: for the end offsets
	joined   mailbox.Signal // the same, for the conductor

	session atomic.Pointer[session.Session] // nil while it opens
	// busy: the conductor waits for a broker, so it cannot hand partitions over.
	busy atomic.Bool

	mu     sync.Mutex
	closed bool
	inJoin bool
	held   map[string][]int32 // by the client when the last join began
	// givenUp are the partitions that the last assignment took away; taken by
	// takeGivenUp.
	givenUp map[string][]int32
	synced  time.Time // send time of the last acknowledged sync
	// The lease counts from when requests were sent. member is the last one whose
	// response showed that the assignment is valid, alive the last one that showed
	// the instance to be a member at all: it keeps its partitions during a
	// rebalance, but not for longer than the rebalance timeout.
	member, alive time.Time
	plan          groupPlan // of the assignment held; Generation −1: none is held
	latest        groupPlan // that is known, of a leader also its own
	unsettled     time.Time // until then instances may work by an older plan than latest
}

func newMembership(rate rateLimit, l *lookup.Limiter, now func() time.Time, log *zap.Logger) *membership {
	return &membership{
		GroupBalancer: kgo.CooperativeStickyBalancer(),
		rate:          rate, limiter: l, now: now, log: log,
		beat: mailbox.NewSignal(), assigned: mailbox.NewSignal(), joined: mailbox.NewSignal(),
		plan: groupPlan{Generation: -1}, latest: groupPlan{Generation: -1},
	}
}

// close gives the share up, and returns for how long requests may still count:
// who leaves the group earlier exceeds the rate together with those who take
// over. What the client of a session that is over still does changes nothing any
// more.
func (m *membership) close() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	now := m.now()
	m.limiter.SetShare(now, 0, 0)
	return m.limiter.Surplus(now, m.rate.apiTimeout)
}

// OnBrokerE2E sees that a request of the client had a response, but not which.
func (m *membership) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if e2e.Err() != nil {
		return
	}
	switch kmsg.Key(key) {
	case kmsg.Heartbeat:
		m.beat.Set()
	case kmsg.SyncGroup:
		m.mu.Lock()
		m.synced = m.now().Add(-e2e.DurationE2E()) // counts once its assignment is parsed
		m.mu.Unlock()
	}
}

// heartbeats sends a heartbeat whenever the client had a response to one of its
// own, until ctx is done. So they cannot keep a member alive whose client does not.
// During a join, in which the group keeps its members and the client sends none,
// they show that it still does.
func (m *membership) heartbeats(ctx context.Context, s *session.Session) {
	inJoin := time.NewTicker(time.Second)
	defer inJoin.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.beat:
		case <-inJoin.C:
			if !m.joining() {
				continue
			}
		}
		sent := m.now()
		generation, err := s.Heartbeat(ctx)
		m.onHeartbeat(sent, generation, err)
	}
}

// onHeartbeat applies the response to a heartbeat for a generation.
func (m *membership) onHeartbeat(sent time.Time, generation int32, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if generation != m.plan.Generation || m.plan.Generation < 0 {
		return // it says nothing about the assignment held
	}
	switch {
	case err == nil:
		m.member, m.alive = laterOf(m.member, sent), laterOf(m.alive, sent)
	case errors.Is(err, kerr.RebalanceInProgress):
		m.alive = laterOf(m.alive, sent)
	case m.inJoin && errors.Is(err, kerr.IllegalGeneration):
		// The join has ended, and its response is on its way.
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.FencedInstanceID):
		m.member, m.alive = time.Time{}, time.Time{}
	}
}

// Valid reports whether a request may begin: the group cannot replace this
// instance before it has ended.
func (m *membership) Valid(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.closed && lookup.Elapsed(m.alive, now) < m.rate.lease(m.rate.sessionTimeout) &&
		lookup.Elapsed(m.member, now) < m.rate.lease(session.RebalanceTimeout)
}

// joining reports whether a join is under way.
func (m *membership) joining() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inJoin
}

// JoinGroupMetadata is called when a join begins, with what is still held.
func (m *membership) JoinGroupMetadata(topics []string, current map[string][]int32, generation int32) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inJoin = true
	m.held = current
	m.setShare(current)
	join := m.GroupBalancer.JoinGroupMetadata(topics, current, generation)
	noted, err := memberNote{m.limiter.Surplus(m.now(), m.rate.apiTimeout)}.addTo(join)
	if err != nil {
		m.log.Error("cannot add to the metadata of a join, others wait longer", zap.Error(err))
		return join
	}
	return noted
}

// ParseSyncAssignment is called when a join ends, with the new assignment.
func (m *membership) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	parts, err := m.GroupBalancer.ParseSyncAssignment(assignment)
	if err != nil {
		return nil, err
	}
	plan, err := parsePlan(assignment)
	givenUp := m.keepGivenUp(parts)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inJoin = false
	m.givenUp = givenUp
	m.assigned.Set()
	m.joined.Set()
	m.plan = plan
	m.member, m.alive = m.synced, m.synced
	if err != nil {
		m.member, m.alive = time.Time{}, time.Time{}
		m.log.Error("assignment without a plan of the rate limit, no requests until the next one: is the group's leader another program?", zap.Error(err))
	} else {
		m.learn(plan, plan.Unsettled)
	}
	m.setShare(parts)
	return parts, nil
}

// keepGivenUp returns the partitions that are held and not assigned any more. The
// client keeps them until the conductor allows it to give them up.
func (m *membership) keepGivenUp(assigned map[string][]int32) map[string][]int32 {
	m.mu.Lock()
	givenUp := without(m.held, assigned)
	closed := m.closed
	m.mu.Unlock()
	if s := m.session.Load(); s != nil && len(givenUp) > 0 && !closed && !m.busy.Load() {
		s.BlockRebalance()
	}
	return givenUp
}

// takeGivenUp returns the partitions that the last assignment took away, once.
func (m *membership) takeGivenUp() map[string][]int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	given := m.givenUp
	m.givenUp = nil
	return given
}

// without returns the partitions of a that are not in b.
func without(a, b map[string][]int32) map[string][]int32 {
	left := make(map[string][]int32)
	for topic, ps := range a {
		for _, p := range ps {
			if !slices.Contains(b[topic], p) {
				left[topic] = append(left[topic], p)
			}
		}
	}
	return left
}

// setShare sets the share by what this instance holds.
func (m *membership) setShare(held map[string][]int32) {
	if m.closed {
		return
	}
	now := m.now()
	wait := m.plan.Surplus + max(0, m.unsettled.Sub(now))
	m.limiter.SetShare(now, m.rate.share(held, m.plan.Partitions), wait)
}

// learn takes in a plan. While instances may work by another number of partitions,
// their shares do not add up with those of the plan. A member that has not heard
// of the plan works at most until its lease ends.
func (m *membership) learn(plan groupPlan, unsettled time.Duration) {
	if m.latest.Generation >= 0 && !maps.Equal(m.latest.Partitions, plan.Partitions) {
		unsettled = max(unsettled, m.rate.change())
	}
	m.unsettled = laterOf(m.unsettled, m.now().Add(unsettled))
	m.latest = plan
}

// sessionLease is the lease of the session that is open.
type sessionLease struct{ current atomic.Pointer[membership] }

// Valid implements lookup.Lease.
func (l *sessionLease) Valid(now time.Time) bool {
	m := l.current.Load()
	return m != nil && m.Valid(now)
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
