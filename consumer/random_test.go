package consumer_test

import (
	"context"
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/fetch/lookup"
	"enricher/schemas"
	"enricher/test/harness"
	"enricher/test/kafkaproxy"
)

var (
	seeds     = flag.Int("seeds", 20, "how many scenarios TestRandomScenarios runs")
	firstSeed = flag.Uint64("seed", 1, "the first one")
)

// TestRandomScenarios runs random scenarios in virtual time: events of every kind,
// and faults of broker, network, API and instance. The seed determines each.
//
//	go test ./consumer -run TestRandomScenarios -seeds 1000
//
// In about one of 500 the clock stops in a mutex of the Kafka client, see
// clientMutexes. Such a seed shows nothing: it is skipped, and more than a few are an
// error.
func TestRandomScenarios(t *testing.T) {
	const limit = 15 * time.Second // of real time, without a second of virtual time
	var stopped atomic.Int64
	t.Run("seed", func(t *testing.T) {
		for n := range uint64(*seeds) {
			seed := *firstSeed + n
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				b := runInBubble(t, func(t *testing.T) { newRandomScenario(t, seed).run() })
				err := b.wait(limit)
				if errors.Is(err, errClientMutex) {
					stopped.Add(1)
					t.Skip(err)
				} else if err != nil {
					t.Fatal(err)
				}
			})
		}
	})
	if n := stopped.Load(); n > 2+int64(*seeds)/100 {
		t.Errorf("the clock stopped on %d of %d seeds", n, *seeds)
	}
}

// randomScenario is one run of random events and faults.
type randomScenario struct {
	*env
	rng    *rand.Rand
	events *audittest.Generator
	// running is the instance that works; cutOff are those that crashed.
	running *harness.Instance
	crashed []*harness.Instance
	steps   map[string]int // taken so far, by name
	// faults are those of the broker, some of which may not have hit a request yet.
	faults    []*kfake.FaultHandle
	misbehave []fetchtest.Chance

	eventRecord consumer.EventRecord
}

func newRandomScenario(t *testing.T, seed uint64) *randomScenario {
	misbehave := []fetchtest.Chance{
		{Percent: 2, Fault: fetchtest.BadGateway()}, {Percent: 2, Fault: fetchtest.CutBody()},
		{Percent: 1, Fault: fetchtest.WrongCallID()}, {Percent: 1, Fault: fetchtest.Reset()},
	}
	s := &randomScenario{
		env: newEnv(t, fetchtest.Config{
			Rate: 200, Seed: seed, Misbehave: misbehave,
			Latency: func(string) time.Duration { return time.Duration(seed%4) * 25 * time.Millisecond },
		}),
		misbehave: misbehave,
		rng:       rand.New(rand.NewPCG(seed, 0)),
		steps:     make(map[string]int),

		eventRecord: consumer.EventRecords()[seed%3],
	}
	s.events = &audittest.Generator{
		API: s.API, Rand: s.rng, MaxDelay: 5 * time.Second,
		Mix: audittest.Mix{Malformed: 5, OtherCallback: 5, NeverFound: 5, Repeated: 15, Late: 5, Bare: 5},
	}
	return s
}

func (s *randomScenario) run() {
	defer s.expireMembers()()
	s.begin("a")
	defer s.reconnect()
	defer func() {
		if s.T.Failed() {
			s.explain()
		}
	}()
	type step struct {
		name   string
		weight int
		do     func()
	}
	steps := []step{
		{name: "broker errors", weight: 6, do: s.brokerErrors},
		{name: "lost responses", weight: 5, do: s.lostResponses},
		{name: "network cut", weight: 4, do: s.cutNetwork},
		{name: "crash", weight: 3, do: s.crash},
		{name: "drain", weight: 2, do: s.drain},
		{name: "API outage", weight: 1, do: s.apiOutage},
		{name: "unreadable events", weight: 2, do: s.unreadableEvents},
	}
	for _, name := range slices.Sorted(maps.Keys(partialFaults)) {
		steps = append(steps, step{name, 1, func() { s.inject(name, partialFaults[name]) }})
	}
	var byWeight []int
	for i, step := range steps {
		byWeight = append(byWeight, slices.Repeat([]int{i}, step.weight)...)
	}
	for range 20 {
		s.feedSome()
		s.pauseUpTo(3 * time.Second)
		step := steps[byWeight[s.rng.IntN(len(byWeight))]]
		s.steps[step.name]++
		step.do()
	}
	s.feedSome()
	s.FeedCalls("last-", partitions) // an event that can be parsed ends each row of malformed ones
	s.Await(20 * time.Minute)
	s.Check()
	s.reconnect()
	s.T.Logf("%v; %v", s.steps, s.Check())
}

// reconnect lets the requests of crashed instances through, too late.
func (s *randomScenario) reconnect() {
	for _, i := range s.crashed {
		i.Proxy.SetOffline(false)
	}
	<-time.After(time.Minute)
}

// expireMembers removes members whose session timed out, which the embedded broker
// does not do if their connection ended while a join or a sync waited for others.
// Such a member would keep its partitions for ever.
func (s *randomScenario) expireMembers() (stop func()) {
	const sessionTimeout = 10 * time.Second
	var mu sync.Mutex
	heard := make(map[string]time.Time) // by member
	note := func(member string) {
		mu.Lock()
		defer mu.Unlock()
		heard[member] = time.Now()
	}
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat} {
		s.Cluster.ControlKey(int16(key), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			s.Cluster.KeepControl()
			switch req := kreq.(type) {
			case *kmsg.JoinGroupRequest:
				note(req.MemberID)
			case *kmsg.SyncGroupRequest:
				note(req.MemberID)
			case *kmsg.HeartbeatRequest:
				note(req.MemberID)
			}
			return nil, nil, false
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			groups, err := s.Admin().DescribeGroups(ctx, s.Group)
			if err != nil || groups[s.Group].State != "Stable" {
				continue // members wait in a join
			}
			for _, m := range groups[s.Group].Members {
				mu.Lock()
				silent := time.Since(heard[m.MemberID])
				mu.Unlock()
				if silent < sessionTimeout {
					continue
				}
				req := kmsg.NewPtrLeaveGroupRequest()
				req.Group = s.Group
				member := kmsg.NewLeaveGroupRequestMember()
				member.MemberID = m.MemberID
				req.Members = append(req.Members, member)
				_, _ = req.RequestWith(ctx, s.Client) // if it fails, the next round tries again
			}
		}
	})
	return func() { cancel(); watch.Wait() }
}

func (s *randomScenario) begin(name string) {
	s.running = s.Start(name, func(c *consumer.Config) {
		c.Retry.LookupDelay = time.Second
		c.Retry.NotFoundWindow = 20 * time.Second
		c.EventRecord, c.VerifySample = s.eventRecord, 0
		if s.eventRecord == consumer.UseFirst {
			c.VerifySample = 0.1
		}
	})
}

func (s *randomScenario) pauseUpTo(d time.Duration) {
	<-time.After(time.Duration(s.rng.Int64N(int64(d))))
}

// feedSome feeds up to 40 events.
func (s *randomScenario) feedSome() {
	for range 1 + s.rng.IntN(40) {
		e := s.events.Next()
		if s.rng.IntN(3) == 0 {
			e = s.carryRecord(e)
		}
		s.Feed(int32(s.rng.IntN(partitions)), e)
	}
}

// carryRecord has the event of a call carry the record that the API has, or would
// have if it was not lost.
func (s *randomScenario) carryRecord(e audit.Expect) audit.Expect {
	parsed, err := schemas.ParseEvent(e.Value)
	if err != nil || parsed.IsOtherCallback() {
		return e
	}
	r := s.API.RecordFor(parsed.CallID)
	e.Value = endCallWith(s.T, &r, time.Now())
	if parsed, err = schemas.ParseEvent(e.Value); err != nil {
		s.T.Fatal(err)
	}
	if _, state := parsed.OwnRecord(); state == schemas.CompleteRecord && s.eventRecord != consumer.NeverUse {
		e.Reasons, e.CallID, e.Enriched = nil, parsed.CallID, schemas.EncodeJSON(&r).Value
	}
	return e
}

// brokerErrors makes the next one to three requests of one type fail.
func (s *randomScenario) brokerErrors() {
	keys := []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.Fetch, kmsg.OffsetFetch}
	errs := []*kerr.Error{
		kerr.UnknownServerError, kerr.RequestTimedOut, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress,
		kerr.ConcurrentTransactions, kerr.InvalidTxnState, kerr.InvalidProducerEpoch, kerr.ProducerFenced,
		kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.TransactionAbortable, kerr.NotEnoughReplicasAfterAppend,
	}
	f := kfake.Fault{
		Keys: []kmsg.Key{keys[s.rng.IntN(len(keys))]}, Err: errs[s.rng.IntN(len(errs))],
		Count: 1 + s.rng.IntN(3), TopLevel: s.rng.IntN(2) == 0,
	}
	switch f.Keys[0] {
	case kmsg.Produce:
		f.Topic = s.Enriched // not the feeder's requests
	case kmsg.Fetch:
		f.Topic, f.Err = s.In, kerr.NotLeaderForPartition
	case kmsg.OffsetFetch:
		f.Err = kerr.NotCoordinator
	}
	s.faults = append(s.faults, s.Cluster.Fault(f))
}

// lostResponses cuts the connection instead of delivering one or two responses.
func (s *randomScenario) lostResponses() {
	keys := []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.EndTxn, kmsg.Heartbeat, kmsg.OffsetFetch}
	key, left := keys[s.rng.IntN(len(keys))], 1+s.rng.IntN(2)
	s.running.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
		if k != key || left == 0 {
			return nil
		}
		left--
		return &kafkaproxy.Action{Disconnect: true}
	})
}

// cutNetwork ends all connections. Half of the time it allows no new ones for a
// while, which may be longer than the session timeout.
func (s *randomScenario) cutNetwork() {
	s.running.Proxy.SetOffline(true)
	if s.rng.IntN(2) == 0 {
		s.pauseUpTo(15 * time.Second)
	}
	s.running.Proxy.SetOffline(false)
}

// crash cuts the instance off and starts it again, or another one.
func (s *randomScenario) crash() {
	s.running.CutOff()
	s.crashed = append(s.crashed, s.running)
	s.pauseUpTo(3 * time.Second)
	s.begin([]string{"a", "b"}[s.rng.IntN(2)])
}

func (s *randomScenario) drain() {
	s.running.Drain()
	if s.running.Err != nil {
		s.T.Errorf("drain: %v", s.running.Err)
	}
	s.begin([]string{"a", "b"}[s.rng.IntN(2)])
}

func (s *randomScenario) apiOutage() {
	s.API.SetOutage([]fetchtest.Fault{fetchtest.BadGateway(), fetchtest.Hang(), fetchtest.Named("rate_limited")}[s.rng.IntN(3)])
	s.pauseUpTo(10 * time.Second)
	s.API.ClearOutage()
}

// unreadableEvents feeds a partition more malformed events in a row than become dead
// letters at once, and then one that can be parsed, without which it stays blocked.
func (s *randomScenario) unreadableEvents() {
	p := int32(s.rng.IntN(partitions))
	for _, m := range malformedEvents(2 * unproven) {
		s.Feed(p, m)
	}
	s.pauseUpTo(5 * time.Second)
	s.FeedCall(p, "parsable-"+strconv.Itoa(s.Fed))
}

// explain prints the state of the running instance.
func (s *randomScenario) explain() {
	s.T.Logf("%v; not ready: %v", s.steps, s.running.Ready())
	for _, state := range []string{lookup.StateWaiting, lookup.StateLookingUp, lookup.StateCompleted} {
		s.T.Logf("%s: %v", state, s.running.Metric("enricher_in_flight_events", state))
	}
	s.T.Logf("backlog %v, aborted %v, committed %v", s.running.Metric("enricher_backlog_events"), s.running.Metric("enricher_transactions_total", "aborted"), s.running.Metric("enricher_transactions_total", "committed"))
}
