package consumer

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/consumer/session"
	"enricher/fetch/lookup"
	"enricher/fetch/lookup/clocktest"
	"enricher/fetch/lookup/limitertest"
)

var (
	firstShareSeed = flag.Uint64("share-seed", 1, "the first seed of TestGroupKeepsTheRate")
	shareSeeds     = flag.Uint64("share-seeds", 100, "how many simulations it runs")
)

// groupRun is a simulation of a group whose members all have a backlog.
type groupRun struct {
	net    *limitertest.Network
	limit  rateLimit // of the members
	silent bool      // members state no surplus and leave with one
	most   int
	from   time.Duration
	events []string
}

// runGroup draws a group and what happens to it, for two minutes and a half.
func runGroup(seed uint64, change func(*groupRun)) *groupRun {
	rng := rand.New(rand.NewPCG(seed, 0))
	loop := limitertest.NewLoop()
	way := limitertest.Between(rng, time.Millisecond, 40*time.Millisecond)
	r := &groupRun{
		net:   &limitertest.Network{Out: way, API: 20 * time.Millisecond, Back: way, Rand: rng},
		limit: rateLimit{[]float64{200, 200, 60}[rng.IntN(3)], limitertest.Timeout, simSessionTimeout},
	}
	const d = 150 * time.Second
	if rng.IntN(3) > 0 {
		r.net.Stalls = limitertest.RandomStalls(rng, limitertest.InOrder, 3*time.Second, d)
	}
	group := newCoordinator(loop, rng, 1+rng.Int32N(6))
	if change != nil {
		change(r)
	}
	var all []*process
	start := func() { all = append(all, startProcess(loop, group, r)) }
	for range 1 + rng.IntN(4) {
		loop.After(limitertest.Between(rng, 0, 5*time.Second), start)
	}
	note := func(format string, args ...any) {
		r.events = append(r.events, fmt.Sprintf("%8.3f ", loop.Elapsed().Seconds())+fmt.Sprintf(format, args...))
	}
	for at := 10 * time.Second; at < d; at += limitertest.Between(rng, time.Second, 15*time.Second) {
		loop.After(at, func() {
			i := rng.IntN(len(all))
			p, long := all[i], limitertest.Between(rng, 100*time.Millisecond, 25*time.Second)
			switch rng.IntN(8) {
			case 0:
				note("%d is killed, its next start in %v", i, long/3)
				p.Stop()
				loop.After(long/3, func() { all[i] = startProcess(loop, group, r) })
			case 1:
				note("%d leaves and comes back", i)
				p.leave()
				loop.After(time.Second, func() { all[i] = startProcess(loop, group, r) })
			case 2, 3:
				if p.hears() {
					note("%d is cut off from Kafka for %v", i, long)
					p.cutUntil = loop.Now().Add(long)
				}
			case 4:
				if p.hears() {
					note("%d is stopped for %v", i, long)
					p.FreezeBetweenRequests(long)
				}
			case 5, 6:
				if group.partitions < 40 {
					group.partitions += 1 + rng.Int32N(2*group.partitions)
					note("%d partitions", group.partitions)
					for _, p := range all {
						loop.After(limitertest.Between(rng, 0, 8*time.Second), p.seeTopic)
					}
				}
			case 7:
				if len(all) < 5 {
					note("%d starts", len(all))
					start()
				}
			}
		})
	}
	loop.Run(d)
	r.most, r.from = r.net.Busiest(time.Second)
	return r
}

// Instances join, leave, crash, are stopped and cut off, partitions are added
// while instances are on standby, and the network to the API stalls: no
// second holds more requests than the rate.
func TestGroupKeepsTheRate(t *testing.T) {
	requests, room := 0, 0.0
	for seed := *firstShareSeed; seed < *firstShareSeed+*shareSeeds; seed++ {
		r := runGroup(seed, nil)
		requests += len(r.net.Arrivals)
		room += 150 * r.limit.perSecond
		if float64(r.most) > r.limit.perSecond {
			t.Fatalf("-share-seed %d: %d requests in the second from %v, at a rate of %v\n%s", seed, r.most, r.from, r.limit.perSecond, strings.Join(r.events, "\n"))
		}
	}
	used := float64(requests) / room
	t.Logf("%.0f %% of the rate used", 100*used)
	if used < .3 {
		t.Errorf("%.0f %% of the rate used: this shows nothing", 100*used)
	}
}

// The simulation sees each precaution that is missing.
func TestGroupExceedsTheRateWithoutAPrecaution(t *testing.T) {
	for name, change := range map[string]func(*groupRun){
		"members do not state what they still use, and leave": func(r *groupRun) { r.silent = true },
		"leases last as long as the broker waits":             func(r *groupRun) { r.limit.sessionTimeout += r.limit.counts() },
		"requests end when they like":                         func(r *groupRun) { r.limit.apiTimeout = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(400) {
				if r := runGroup(seed, change); float64(r.most) > r.limit.perSecond {
					t.Logf("seed %d: %d requests in a second", seed, r.most)
					return
				}
			}
			t.Error("no simulation exceeds the rate")
		})
	}
}

// simulated is a membership whose clock the test sets.
type simulated struct {
	*membership
	limiter *lookup.Limiter
	clock   time.Time
}

func newSimulated() *simulated {
	s := &simulated{limiter: lookup.NewLimiter(true), clock: limitertest.Start}
	s.membership = newMembership(rateLimit{200, 5 * time.Second, 10 * time.Second}, s.limiter, func() time.Time { return s.clock }, zap.NewNop())
	return s
}

func (s *simulated) after(d time.Duration) *simulated {
	s.clock = s.clock.Add(d)
	return s
}

// sync hands an assignment over that was asked for a second ago.
func (s *simulated) sync(t *testing.T, userData string, partitions ...int32) {
	t.Helper()
	a := kmsg.ConsumerMemberAssignment{Topics: []kmsg.ConsumerMemberAssignmentTopic{{Topic: simTopic, Partitions: partitions}}, UserData: []byte(userData)}
	s.OnBrokerE2E(kgo.BrokerMetadata{}, int16(kmsg.SyncGroup), kgo.BrokerE2E{ReadWait: time.Second})
	if _, err := s.ParseSyncAssignment(a.AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
}

func (s *simulated) perSecond() float64 { return s.limiter.PerSecond(s.clock) }

// lasts returns for how long the lease lasts from now on.
func (s *simulated) lasts() time.Duration {
	d := time.Duration(0)
	for s.Valid(s.clock.Add(d)) {
		d += 500 * time.Millisecond
	}
	return d
}

const planOf12 = `{"generation":3,"partitions":{"calls":12}}`

func TestLeaseFollowsHeartbeatResponses(t *testing.T) {
	const sec = time.Second
	for name, c := range map[string]struct {
		run  func(s *simulated)
		want time.Duration
	}{
		"from the sync": {func(*simulated) {}, 3 * sec},
		"from the last heartbeat": {func(s *simulated) {
			sent := s.after(5 * sec).clock
			s.after(sec).onHeartbeat(sent, 3, nil)
		}, 3 * sec},
		"responses out of order": {func(s *simulated) {
			first, second := s.after(sec).clock, s.after(sec).clock
			s.onHeartbeat(second, 3, nil)
			s.onHeartbeat(first, 3, nil)
		}, 4 * sec},
		"no response":          {func(s *simulated) { s.after(2*sec).onHeartbeat(s.clock, 3, kerr.RequestTimedOut) }, sec},
		"a rebalance keeps it": {func(s *simulated) { s.after(5*sec).onHeartbeat(s.clock, 3, kerr.RebalanceInProgress) }, 4 * sec},
		"but for the rebalance timeout only": {func(s *simulated) {
			for range 12 {
				s.after(sec).onHeartbeat(s.clock, 3, kerr.RebalanceInProgress)
			}
		}, session.RebalanceTimeout - 6*sec - 13*sec},
		"another generation says nothing": {func(s *simulated) {
			s.after(2*sec).onHeartbeat(s.clock, 4, nil)
			s.onHeartbeat(s.clock, 2, kerr.IllegalGeneration)
		}, sec},
		"a join whose response is on its way": {func(s *simulated) {
			s.JoinGroupMetadata([]string{simTopic}, nil, 3)
			s.onHeartbeat(s.clock, 3, kerr.IllegalGeneration)
		}, 3 * sec},
		"not a member":       {func(s *simulated) { s.onHeartbeat(s.clock, 3, kerr.UnknownMemberID) }, 0},
		"another generation": {func(s *simulated) { s.onHeartbeat(s.clock, 3, kerr.IllegalGeneration) }, 0},
		"fenced":             {func(s *simulated) { s.onHeartbeat(s.clock, 3, kerr.FencedInstanceID) }, 0},
		"closed":             {func(s *simulated) { s.close() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSimulated()
			s.sync(t, planOf12, 0, 1)
			c.run(s)
			if got := s.lasts(); got != c.want {
				t.Errorf("the lease lasts %v more, want %v", got, c.want)
			}
		})
	}
}

// A machine that sleeps stops the clock of its processes, but not the time of day.
func TestLeaseEndsWhileTheMachineSleeps(t *testing.T) {
	s := newSimulated()
	s.clock = time.Now() // with a reading of the clock of the process
	s.sync(t, planOf12, 0, 1)
	awake := s.clock.Add(time.Second)
	for name, c := range map[string]struct {
		now  time.Time
		want bool
	}{
		"a second later":                    {awake, true},
		"after an hour asleep":              {clocktest.Set(awake, time.Hour), false},
		"after 11 seconds asleep":           {clocktest.Set(awake, 11*time.Second), false},
		"the clock was set back":            {clocktest.Set(awake, -time.Hour), true},
		"set back, and the lease has ended": {clocktest.Set(s.clock.Add(11*time.Second), -time.Hour), false},
	} {
		if got := s.Valid(c.now); got != c.want {
			t.Errorf("%s: the lease is valid: %v, want %v", name, got, c.want)
		}
	}
}

// The shares of all partitions add up to the rate, however they are divided.
func TestSharesAddUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(*firstShareSeed, 0))
	for range 2000 {
		totals := map[string]int32{"a": 1 + rng.Int32N(20), "b": rng.Int32N(20), "c": 1 + rng.Int32N(100)}
		limit := rateLimit{perSecond: []float64{200, 150.5, 1000, 37, 3, .2}[rng.IntN(6)]}
		held := make([]map[string][]int32, 1+rng.IntN(5))
		parts := 0
		for topic, n := range totals {
			for p := range n {
				i := rng.IntN(len(held))
				if held[i] == nil {
					held[i] = map[string][]int32{}
				}
				held[i][topic] = append(held[i][topic], p)
				parts++
			}
		}
		sum := 0.0
		for i := range held {
			share := limit.share(held[i], totals)
			if len(held[i]) > 0 && share <= 0 {
				t.Fatalf("rate %v, %v: nothing for %v", limit.perSecond, totals, held[i])
			}
			sum += share
		}
		want := limit.perSecond
		if want >= float64(parts) {
			want = float64(int(want))
		}
		if sum > limit.perSecond*(1+1e-12) || sum < want*(1-1e-12) {
			t.Fatalf("rate %v, %v: the shares add up to %v", limit.perSecond, totals, sum)
		}
	}
	if got := (rateLimit{perSecond: 200}).share(map[string][]int32{"a": {5}, "gone": {0}}, map[string]int32{"a": 3}); got != 0 {
		t.Errorf("partitions that the plan does not have are worth %v", got)
	}
}

func TestShareFollowsTheAssignment(t *testing.T) {
	s := newSimulated()
	s.sync(t, `{"generation":3,"partitions":{"calls":12},"surplus_ns":2000000000}`, 0, 1, 2)
	if got := s.after(1900 * time.Millisecond).perSecond(); got != 0 {
		t.Errorf("requests of the former owner may still count, and there are %v per second", got)
	}
	if got := s.after(100 * time.Millisecond).perSecond(); got != 50 {
		t.Errorf("3 of 12 partitions: %v per second", got)
	}
	s.JoinGroupMetadata([]string{simTopic}, map[string][]int32{simTopic: {0, 1}}, 3)
	if got := s.perSecond(); got != 33 || !s.joining() {
		t.Errorf("when a partition was given up: %v per second", got)
	}
	s.sync(t, `{"generation":4,"partitions":{"calls":24}}`, 0, 1)
	if got := s.perSecond(); got != 16 || s.joining() {
		t.Errorf("2 of 24 partitions: %v per second", got)
	}
	// Members that have not heard of the 24 may work by 12 until their leases end.
	s.sync(t, `{"generation":5,"partitions":{"calls":24}}`, 0, 1, 2)
	if got := s.after(9900 * time.Millisecond).perSecond(); got != 16 {
		t.Errorf("before the leases have ended: %v per second", got)
	}
	if got := s.after(100 * time.Millisecond).perSecond(); got != 25 {
		t.Errorf("3 of 24 partitions: %v per second", got)
	}
	s.close()
	s.sync(t, planOf12, 0, 1, 2, 3)
	if got := s.after(time.Minute).perSecond(); got != 0 {
		t.Errorf("a session that is over has %v per second", got)
	}
}

func TestAssignmentWithoutPlanAllowsNothing(t *testing.T) {
	for _, data := range []string{"", "{}", `{"generation":3}`, "garbage"} {
		s := newSimulated()
		s.sync(t, planOf12, 0, 1)
		s.after(time.Minute).sync(t, data, 0, 1)
		if s.Valid(s.clock) || s.perSecond() != 0 {
			t.Errorf("%q: lease %v, %v per second", data, s.Valid(s.clock), s.perSecond())
		}
	}
}

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
