package consumer

import (
	"math/rand/v2"
	"testing"
	"time"

	"enricher/consumer/session"
	"enricher/fetch/lookup"
	"enricher/fetch/lookup/clocktest"
	"enricher/fetch/lookup/limitertest"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

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
