package consumer

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer/session"
	"enricher/fetch/lookup/limitertest"
)

const (
	simTopic          = "calls"
	simSessionTimeout = 10 * time.Second
)

// coordinator is that of a group, as a broker has it: the classic protocol in
// virtual time.
type coordinator struct {
	loop       *limitertest.Loop
	rng        *rand.Rand
	partitions int32 // of the topic

	generation int32
	phase      groupPhase
	members    map[string]*groupMember
	leader     string
	lastID     int
	rebalances int
}

type groupPhase int

const (
	stable  groupPhase = iota
	joining            // until all members have joined
	syncing            // until the leader has planned
)

type groupMember struct {
	metadata   []byte
	heard      time.Time
	join       func(joinResponse)  // waits for the others
	sync       func([]byte, error) // waits for the leader
	assignment []byte
}

type joinResponse struct {
	id, leader string
	generation int32
	members    []kmsg.JoinGroupResponseMember // for the leader
	err        error
}

func newCoordinator(loop *limitertest.Loop, rng *rand.Rand, partitions int32) *coordinator {
	c := &coordinator{loop: loop, rng: rng, partitions: partitions, members: map[string]*groupMember{}}
	c.expire()
	return c
}

// expire removes members that were not heard of for the session timeout.
func (c *coordinator) expire() {
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		m := c.members[id]
		if m.join == nil && c.loop.Now().Sub(m.heard) >= simSessionTimeout {
			c.remove(id)
		}
	}
	c.loop.After(100*time.Millisecond, c.expire)
}

func (c *coordinator) remove(id string) {
	m := c.members[id]
	if m == nil {
		return
	}
	delete(c.members, id)
	if m.join != nil {
		m.join(joinResponse{err: kerr.UnknownMemberID})
	}
	if m.sync != nil {
		m.sync(nil, kerr.UnknownMemberID)
	}
	if c.phase == joining {
		c.completeJoin()
	} else {
		c.rebalance()
	}
}

// rebalance waits for all members to join again, for the rebalance timeout.
func (c *coordinator) rebalance() {
	c.phase = joining
	c.rebalances++
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		if m := c.members[id]; m.sync != nil {
			m.sync(nil, kerr.RebalanceInProgress)
			m.sync = nil
		}
	}
	n := c.rebalances
	c.loop.After(session.RebalanceTimeout, func() {
		if c.phase != joining || c.rebalances != n {
			return
		}
		for _, id := range slices.Sorted(maps.Keys(c.members)) {
			if m := c.members[id]; m != nil && m.join == nil {
				delete(c.members, id)
			}
		}
		c.completeJoin()
	})
	c.completeJoin()
}

func (c *coordinator) completeJoin() {
	var all []kmsg.JoinGroupResponseMember
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		m := c.members[id]
		if m.join == nil {
			return
		}
		all = append(all, kmsg.JoinGroupResponseMember{MemberID: id, ProtocolMetadata: m.metadata})
	}
	if len(all) == 0 {
		c.phase = stable
		return
	}
	c.phase = syncing
	c.generation++
	if c.members[c.leader] == nil {
		c.leader = all[c.rng.IntN(len(all))].MemberID
	}
	for _, m := range all {
		r := joinResponse{id: m.MemberID, leader: c.leader, generation: c.generation}
		if m.MemberID == c.leader {
			r.members = all
		}
		c.members[m.MemberID].heard = c.loop.Now()
		c.members[m.MemberID].join(r)
		c.members[m.MemberID].join = nil
	}
}

func (c *coordinator) joinGroup(id string, metadata []byte, reply func(joinResponse)) {
	if id == "" {
		c.lastID++
		id = "member-" + strconv.Itoa(c.lastID)
		c.members[id] = &groupMember{}
	}
	m := c.members[id]
	if m == nil {
		reply(joinResponse{err: kerr.UnknownMemberID})
		return
	}
	m.metadata, m.join, m.heard = metadata, reply, c.loop.Now()
	if c.phase == joining {
		c.completeJoin()
	} else {
		c.rebalance()
	}
}

// check returns what a request of a member for a generation meets with.
func (c *coordinator) check(id string, generation int32) error {
	m := c.members[id]
	switch {
	case m == nil:
		return kerr.UnknownMemberID
	case generation != c.generation:
		return kerr.IllegalGeneration
	}
	m.heard = c.loop.Now()
	if c.phase == joining {
		return kerr.RebalanceInProgress
	}
	return nil
}

func (c *coordinator) syncGroup(id string, generation int32, plan []kmsg.SyncGroupRequestGroupAssignment, reply func([]byte, error)) {
	if err := c.check(id, generation); err != nil {
		reply(nil, err)
		return
	}
	m := c.members[id]
	if c.phase == stable {
		reply(m.assignment, nil)
		return
	}
	m.sync = reply
	if id != c.leader {
		return
	}
	c.phase = stable
	for _, a := range plan {
		if m := c.members[a.MemberID]; m != nil {
			m.assignment = a.MemberAssignment
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		if m := c.members[id]; m.sync != nil {
			m.sync(m.assignment, nil)
			m.sync = nil
		}
	}
}
