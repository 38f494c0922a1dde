package consumer

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The leader includes for how long members may still work by another number of
// partitions than the one that it plans with.
func TestPlanStatesHowLongAnotherNumberOfPartitionsMayBeInUse(t *testing.T) {
	member := func(id string, generation int32, owned ...int32) kmsg.JoinGroupResponseMember {
		m := newSimulated()
		current := map[string][]int32{}
		if len(owned) > 0 {
			current[simTopic] = owned
		}
		return kmsg.JoinGroupResponseMember{MemberID: id, ProtocolMetadata: m.JoinGroupMetadata([]string{simTopic}, current, generation)}
	}
	for name, c := range map[string]struct {
		before  string // the leader's last plan
		members []kmsg.JoinGroupResponseMember
		want    time.Duration
	}{
		"all members are new":            {"", []kmsg.JoinGroupResponseMember{member("a", -1), member("b", -1)}, 0},
		"the leader is new":              {"", []kmsg.JoinGroupResponseMember{member("a", -1), member("b", 3, 0, 1)}, 10 * time.Second},
		"the same number":                {planOf12, []kmsg.JoinGroupResponseMember{member("a", 3, 2), member("b", 3, 0, 1)}, 0},
		"another number":                 {`{"generation":3,"partitions":{"calls":11}}`, []kmsg.JoinGroupResponseMember{member("a", 3, 2)}, 10 * time.Second},
		"the leader missed a generation": {planOf12, []kmsg.JoinGroupResponseMember{member("a", 3, 2), member("b", 4, 0, 1)}, 10 * time.Second},
		"a change before, and none here": {`{"generation":3,"partitions":{"calls":12},"unsettled_ns":7000000000}`, []kmsg.JoinGroupResponseMember{member("a", 3, 2)}, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSimulated()
			if c.before != "" {
				s.sync(t, c.before, 0)
			}
			b, topics, err := s.MemberBalancer(c.members)
			if err != nil || len(topics) != 1 {
				t.Fatal(topics, err)
			}
			b.(kgo.GroupMemberBalancerInfo).SetBalanceInfo(kgo.BalanceInfo{Generation: 5})
			into, err := b.(kgo.GroupMemberBalancerOrError).BalanceOrError(map[string]int32{simTopic: 12})
			if err != nil {
				t.Fatal(err)
			}
			assignments := into.IntoSyncAssignment()
			if len(assignments) != len(c.members) {
				t.Fatalf("%d assignments for %d members", len(assignments), len(c.members))
			}
			for _, a := range assignments {
				plan, err := parsePlan(a.MemberAssignment)
				if err != nil || plan.Generation != 5 || plan.Partitions[simTopic] != 12 || plan.Unsettled != c.want {
					t.Errorf("%s: %+v, %v, want %v", a.MemberID, plan, err, c.want)
				}
			}
		})
	}
}

// The leader includes for how long the requests of members may count that were made
// in slots of what they gave up.
func TestPlanStatesHowLongRequestsOfTheFormerOwnerMayCount(t *testing.T) {
	join := func(generation int32, change func(*simulated)) []byte {
		s := newSimulated()
		s.sync(t, planOf12, 0, 1, 2, 3, 4, 5)
		for range 100 { // fills its share
			slot, _ := s.after(10 * time.Millisecond).limiter.Reserve(s.clock)
			if slot == nil {
				t.Fatal("no slot")
			}
			slot.Connected(s.clock)
			slot.Written()
			slot.Done(s.clock, true)
		}
		change(s)
		return s.JoinGroupMetadata([]string{simTopic}, map[string][]int32{simTopic: {0, 1, 2}}, generation)
	}
	withoutNote := func(s *simulated) []byte {
		return s.GroupBalancer.JoinGroupMetadata([]string{simTopic}, nil, -1)
	}
	for name, c := range map[string]struct {
		metadata []byte
		want     time.Duration
	}{
		"half of what was used at once": {join(3, func(*simulated) {}), 500 * time.Millisecond},
		"some of it a while ago":        {join(3, func(s *simulated) { s.after(300 * time.Millisecond) }), 200 * time.Millisecond},
		"all of it a while ago":         {join(3, func(s *simulated) { s.after(time.Second) }), 0},
		"without a generation":          {join(-1, func(*simulated) {}), 500 * time.Millisecond},
		"requests without a response": {join(3, func(s *simulated) {
			s.after(time.Second)
			for range 60 {
				s.after(10 * time.Millisecond).limiter.Reserve(s.clock)
			}
		}), 6 * time.Second},
		"another program": {withoutNote(newSimulated()), 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSimulated()
			b, _, err := s.MemberBalancer([]kmsg.JoinGroupResponseMember{{MemberID: "a", ProtocolMetadata: c.metadata}})
			if err != nil {
				t.Fatal(err)
			}
			b.(kgo.GroupMemberBalancerInfo).SetBalanceInfo(kgo.BalanceInfo{Generation: 4})
			into, err := b.(kgo.GroupMemberBalancerOrError).BalanceOrError(map[string]int32{simTopic: 12})
			if err != nil {
				t.Fatal(err)
			}
			plan, err := parsePlan(into.IntoSyncAssignment()[0].MemberAssignment)
			if err != nil || plan.Surplus != c.want {
				t.Errorf("%v, %v; want %v", plan.Surplus, err, c.want)
			}
		})
	}
}
