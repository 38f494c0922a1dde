package consumer

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/fetch"
)

// Kafka's numbers of the requests that keep a member alive.
const (
	keyHeartbeat = 12
	keySyncGroup = 14
)

// membership knows, from the client's own hooks, how much of the quota this
// instance may use: its partitions ÷ all partitions, and nothing at all unless
// the group has heard from it lately. A member that was frozen or cut off has
// been replaced by the time its lease is over, so it cannot overrun.
//
// The assignment is read off the balancer, because the session's callbacks
// cannot be relied on (they are called at most once between two transactions):
// a sync tells the new assignment before anything is given up, and a join
// states what is still held before another member can receive it.
type membership struct {
	quota *fetch.Quota
	now   func() time.Time

	mu     sync.Mutex
	beat   time.Time // send time of the last answered heartbeat
	alive  time.Time // send time of the last good one
	synced time.Time // send time of the last answered sync
	held   int       // partitions
	total  int       // partitions of all input topics; 0: not known yet

	grown chan struct{} // capacity 1: held grew, ask for total and settle
}

func newMembership(q *fetch.Quota, now func() time.Time) *membership {
	return &membership{quota: q, now: now, grown: make(chan struct{}, 1)}
}

// reset forgets everything, for a new session.
func (m *membership) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beat, m.alive, m.synced, m.held, m.total = time.Time{}, time.Time{}, time.Time{}, 0, 0
	m.quota.SetShare(m.now(), 0)
}

// OnBrokerE2E sees the answer to every request, but not what it says. A
// heartbeat that was refused is not followed by another one, so each vouches
// for the one before it.
func (m *membership) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key != keyHeartbeat && key != keySyncGroup || e2e.Err() != nil {
		return
	}
	sent := m.now().Add(-e2e.DurationE2E())
	m.mu.Lock()
	defer m.mu.Unlock()
	if key == keySyncGroup {
		m.synced = sent // good once its assignment is parsed
		return
	}
	if m.beat.After(m.alive) {
		m.alive = m.beat
	}
	m.beat = sent
}

// live says whether the group has heard from us within the session time-out.
func (m *membership) live(now time.Time, sessionTimeout time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return now.Sub(m.alive) < sessionTimeout
}

func (m *membership) holds(parts map[string][]int32, joined bool) {
	n := 0
	for _, ps := range parts {
		n += len(ps)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if joined {
		m.alive, m.beat = m.synced, time.Time{}
	}
	grown := n > m.held
	m.held = n
	if !grown {
		m.settle()
		return
	}
	select {
	case m.grown <- struct{}{}:
	default:
	}
}

// counted takes in the number of all partitions; afterwards the whole of what
// is held counts.
func (m *membership) counted(total int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total = total
	m.settle()
}

func (m *membership) settle() {
	if m.total > 0 {
		m.quota.SetShare(m.now(), min(1, float64(m.held)/float64(m.total)))
	}
}

// balancer is the cooperative-sticky balancer, overheard by a membership.
type balancer struct {
	kgo.GroupBalancer
	m *membership
}

func (b balancer) JoinGroupMetadata(topics []string, current map[string][]int32, generation int32) []byte {
	b.m.holds(current, false)
	return b.GroupBalancer.JoinGroupMetadata(topics, current, generation)
}

func (b balancer) ParseSyncAssignment(assignment []byte) (map[string][]int32, error) {
	parts, err := b.GroupBalancer.ParseSyncAssignment(assignment)
	if err == nil {
		b.m.holds(parts, true)
	}
	return parts, err
}
