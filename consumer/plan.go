package consumer

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// groupPlan is what the leader of the group adds to the assignment of every
// member, as the user data that Kafka passes on without looking at it.
type groupPlan struct {
	Generation int32 `json:"generation"` // of the group
	// Partitions is the number of partitions of each input topic.
	Partitions map[string]int32 `json:"partitions"`
	// Unsettled is for how long from the planning members of the group may yet work
	// by other numbers of partitions.
	Unsettled time.Duration `json:"unsettled_ns,omitempty"`
	// Surplus is for how long from the planning requests may count that were made in
	// slots of partitions which their member no longer holds.
	Surplus time.Duration `json:"surplus_ns,omitempty"`
}

// memberNote is what a member adds to its join, behind the balancer's user data.
type memberNote struct {
	// Surplus is for how long at most the member still uses more than what it holds
	// is worth.
	Surplus time.Duration `json:"surplus_ns"`
}

// addTo returns the metadata of a join with the note. The user data of the
// balancer ends with a generation, which it leaves out if it is −1.
func (n memberNote) addTo(join []byte) ([]byte, error) {
	var meta kmsg.ConsumerMemberMetadata
	var balancer kmsg.StickyMemberMetadata
	if err := errors.Join(meta.ReadFrom(join), balancer.ReadFrom(meta.UserData)); err != nil {
		return nil, err
	}
	note, err := json.Marshal(n)
	balancer.Generation = max(0, balancer.Generation)
	meta.UserData = append(balancer.AppendTo(nil), note...)
	return meta.AppendTo(nil), err
}

// parseNote returns the note in the metadata of a join.
func parseNote(meta *kmsg.ConsumerMemberMetadata) (n memberNote, err error) {
	var balancer kmsg.StickyMemberMetadata
	if err := balancer.ReadFrom(meta.UserData); err != nil {
		return n, err
	}
	err = json.Unmarshal(meta.UserData[len(balancer.AppendTo(nil)):], &n)
	return n, err
}

// parsePlan returns the plan in an assignment.
func parsePlan(assignment []byte) (groupPlan, error) {
	none := groupPlan{Generation: -1}
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(assignment); err != nil {
		return none, err
	}
	p := none
	if err := json.Unmarshal(a.UserData, &p); err != nil {
		return none, fmt.Errorf("user data %q: %w", a.UserData, err)
	}
	if p.Generation < 0 || len(p.Partitions) == 0 {
		return none, errors.New("no generation, or no partitions")
	}
	return p, nil
}

// MemberBalancer is called on the leader when all members have joined.
func (m *membership) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	b, err := kgo.NewConsumerBalancer(planner{m}, members)
	return b, b.MemberTopics(), err
}

// planner is the balancer of a leader that adds a groupPlan to its assignments.
type planner struct{ *membership }

// Balance implements kgo.ConsumerBalancerBalance. topics has the number of
// partitions of every topic.
func (p planner) Balance(b *kgo.ConsumerBalancer, topics map[string]int32) kgo.IntoSyncAssignment {
	assignments := p.GroupBalancer.(kgo.ConsumerBalancerBalance).Balance(b, topics)
	if assignments == nil {
		return nil // b has the error
	}
	data, err := json.Marshal(p.planFor(b, topics))
	if err != nil {
		b.SetError(err)
		return nil
	}
	return plannedAssignments{assignments, data}
}

// planFor makes the plan of a new generation. Members may still work by other
// numbers of partitions if the generation before had others, or if members that
// hold partitions come from a generation that this leader missed. A group that is
// not new may have lost a member.
func (m *membership) planFor(b *kgo.ConsumerBalancer, topics map[string]int32) groupPlan {
	m.mu.Lock()
	defer m.mu.Unlock()
	plan := groupPlan{Generation: b.Info().Generation, Partitions: maps.Clone(topics)}
	if plan.Generation > 1 {
		plan.Surplus = m.rate.lost()
	}
	unsettled := time.Duration(0)
	b.EachMember(func(_ *kmsg.JoinGroupResponseMember, meta *kmsg.ConsumerMemberMetadata) {
		if len(meta.OwnedPartitions) > 0 && meta.Generation > m.latest.Generation {
			unsettled = m.rate.change()
		}
		note, err := parseNote(meta)
		if err != nil { // another program
			note.Surplus = m.rate.counts()
		}
		plan.Surplus = max(plan.Surplus, note.Surplus)
	})
	m.learn(plan, unsettled)
	plan.Unsettled = max(0, m.unsettled.Sub(m.now()))
	return plan
}

// plannedAssignments are the assignments of a plan, each with the plan itself.
type plannedAssignments struct {
	assignments kgo.IntoSyncAssignment
	plan        []byte
}

// IntoSyncAssignment implements kgo.IntoSyncAssignment.
func (p plannedAssignments) IntoSyncAssignment() []kmsg.SyncGroupRequestGroupAssignment {
	all := p.assignments.IntoSyncAssignment()
	for i := range all {
		var a kmsg.ConsumerMemberAssignment
		if err := a.ReadFrom(all[i].MemberAssignment); err == nil { // the balancer wrote it
			a.UserData = p.plan
			all[i].MemberAssignment = a.AppendTo(nil)
		}
	}
	return all
}
