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
// hold partitions come from a generation that this leader missed.
func (m *membership) planFor(b *kgo.ConsumerBalancer, topics map[string]int32) groupPlan {
	m.mu.Lock()
	defer m.mu.Unlock()
	unsettled := time.Duration(0)
	b.EachMember(func(_ *kmsg.JoinGroupResponseMember, meta *kmsg.ConsumerMemberMetadata) {
		if len(meta.OwnedPartitions) > 0 && meta.Generation > m.latest.Generation {
			unsettled = m.rate.sessionTimeout
		}
	})
	plan := groupPlan{Generation: b.Info().Generation, Partitions: maps.Clone(topics)}
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
