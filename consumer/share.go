package consumer

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/fetch/lookup"
	"enricher/fetch/mailbox"
)

// membership tracks this instance's place in its group, from the client's own
// hooks, and from it three things:
//
//   - its share of the rate limit: its partitions ÷ all partitions;
//   - its lease on that share: a member that was frozen or cut off has been
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
type membership struct {
	kgo.GroupBalancer
	limiter        *lookup.Limiter
	sessionTimeout time.Duration
	now            func() time.Time

	grew   mailbox.Signal // held grew: count all partitions before the share grows
	joined mailbox.Signal // a join is over

	mu     sync.Mutex
	beat   time.Time // send time of the last answered heartbeat
	alive  time.Time // send time of the last successful one
	synced time.Time // send time of the last answered sync
	held   int       // partitions of this instance
	total  int       // partitions of all input topics; 0: not known yet
	inJoin bool      // joining
}

func newMembership(l *lookup.Limiter, sessionTimeout time.Duration, now func() time.Time) *membership {
	return &membership{
		GroupBalancer: kgo.CooperativeStickyBalancer(),
		limiter:       l, sessionTimeout: sessionTimeout, now: now,
		grew: mailbox.NewSignal(), joined: mailbox.NewSignal(),
	}
}

// reset forgets everything, for a new session.
func (m *membership) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beat, m.alive, m.synced, m.held, m.total, m.inJoin = time.Time{}, time.Time{}, time.Time{}, 0, 0, false
	m.limiter.SetShare(m.now(), 0)
}

// OnBrokerE2E sees that a request was answered, but not the response. A heartbeat
// that was rejected is not followed by another one, so each confirms the one
// before it.
func (m *membership) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key != int16(kmsg.Heartbeat) && key != int16(kmsg.SyncGroup) || e2e.Err() != nil {
		return
	}
	sent := m.now().Add(-e2e.DurationE2E())
	m.mu.Lock()
	defer m.mu.Unlock()
	if key == int16(kmsg.SyncGroup) {
		m.synced = sent // counts once its assignment is parsed
		return
	}
	if m.beat.After(m.alive) {
		m.alive = m.beat
	}
	m.beat = sent
}

// Valid reports whether the group has heard from this instance within the
// session timeout, counted from when the heartbeat was sent.
func (m *membership) Valid(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return now.Sub(m.alive) < m.sessionTimeout
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
	m.inJoin = true
	m.setHeld(current)
	m.mu.Unlock()
	return m.GroupBalancer.JoinGroupMetadata(topics, current, generation)
}

// ParseSyncAssignment is called when a join ends, with the new assignment.
func (m *membership) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	parts, err := m.GroupBalancer.ParseSyncAssignment(assignment)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alive, m.beat = m.synced, time.Time{}
	m.inJoin = false
	m.setHeld(parts)
	m.joined.Set()
	return parts, nil
}

// setHeld sets what this instance holds. A lower share applies at once, a higher
// one only after all partitions are counted again.
func (m *membership) setHeld(parts map[string][]int32) {
	n := 0
	for _, ps := range parts {
		n += len(ps)
	}
	grew := n > m.held
	m.held = n
	if grew {
		m.grew.Set()
		return
	}
	m.updateShare()
}

// setTotal sets the number of all partitions. All that is held counts from then.
func (m *membership) setTotal(total int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total = total
	m.updateShare()
}

func (m *membership) updateShare() {
	if m.total > 0 {
		m.limiter.SetShare(m.now(), min(1, float64(m.held)/float64(m.total)))
	}
}
