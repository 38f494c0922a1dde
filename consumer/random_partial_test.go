package consumer_test

import (
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/test/kafkaproxy"
)

// A partial fault of a random scenario hits badPartition, some outputs or some
// calls, or lasts for a moment only. While it lasts, the events that it spares must
// be enriched within its limit.
type partialFault struct {
	begin  func(s *randomScenario) (end func())
	spares func(partition int32, callID string) bool // nil: every event
	limit  time.Duration
	// blocks is what the instance must not be ready for meanwhile, if anything.
	blocks consumer.BlockReason
}

// The limits of the latency in virtual time: one second of lookup delay, and what
// the fault may cost.
const (
	sparedLimit   = 4 * time.Second
	flappingTime  = 8 * time.Second
	flappingLimit = flappingTime + 20*time.Second // the back-off of a call that failed each time
	stallLimit    = 20 * time.Second              // a stall of 3 s, the timeout of a request, its repetition, and rebalances
)

var partialFaults = map[string]partialFault{
	"damaged batch":        {begin: respondWith(tamperFetch(flipByte)), spares: otherPartitions, limit: sparedLimit, blocks: consumer.UnreadableBatch},
	"leaderless partition": {begin: respondWith(noLeader), spares: otherPartitions, limit: sparedLimit},
	"unstable offset": {begin: func(s *randomScenario) func() {
		s.drain()
		return respondWith(unstableOffset)(s)
	}, spares: otherPartitions, limit: sparedLimit + shareDelay, blocks: consumer.OffsetUnavailable},
	"refused output":     {begin: respondWith(refuseDeadLetters), limit: sparedLimit},
	"403 for some calls": {begin: func(s *randomScenario) func() { return s.apiFails(isBadCall, fetchtest.Status(403)) }, spares: otherCalls, limit: sparedLimit},
	"throttled": {begin: func(s *randomScenario) func() {
		last := time.Now()
		return s.apiFails(func(string) bool {
			now := time.Now()
			hit := now.Sub(last) > 300*time.Millisecond
			if hit {
				last = now
			}
			return hit
		}, fetchtest.Named("rate_limited"))
	}, limit: sparedLimit},
	"flapping API": {begin: func(s *randomScenario) func() {
		start := time.Now()
		return s.apiFails(func(string) bool {
			d := time.Since(start)
			return d < flappingTime && d/(600*time.Millisecond)%2 == 0
		}, fetchtest.BadGateway())
	}, limit: flappingLimit},
	"API stall": {begin: func(s *randomScenario) func() {
		start := time.Now()
		return s.apiFails(func(string) bool { return time.Since(start) < 3*time.Second }, fetchtest.Hang())
	}, limit: stallLimit},
	"broker stall": {begin: func(s *randomScenario) func() {
		s.running.Proxy.SetBlackhole(true)
		<-time.After(time.Duration(s.rng.Int64N(int64(3 * time.Second))))
		s.running.Proxy.SetBlackhole(false)
		return func() {}
	}, limit: stallLimit},
}

// inject injects a fault while no other one lasts, and checks that what it spares
// makes progress.
func (s *randomScenario) inject(name string, f partialFault) {
	for _, h := range s.faults {
		h.Remove()
	}
	s.Await(20 * time.Minute)
	s.API.SetMisbehave()
	defer s.API.SetMisbehave(s.misbehave...)
	s.Eventually(5*time.Minute, func() error {
		if reason := s.running.NotReady(); reason != "" {
			return fmt.Errorf("not ready before the fault %q: %s", name, reason)
		}
		return nil
	})
	prefix := fmt.Sprint("healthy-", s.Fed, "-")
	end := f.begin(s)
	s.feedSome()
	for range 3 {
		s.FeedCalls(fmt.Sprint(prefix, s.Fed, "-"), partitions)
		s.pauseUpTo(2 * time.Second)
	}
	s.awaitWithin(f.limit, func(source audit.Source, e audit.Expect) bool {
		return strings.HasPrefix(e.CallID, prefix) && (f.spares == nil || f.spares(source.Partition, e.CallID))
	})
	s.Eventually(10*time.Second, func() error { // it is ready for a moment when it tries again
		if reason := s.running.NotReady(); !strings.Contains(reason, string(f.blocks)) {
			return fmt.Errorf("not ready for %q during the fault %q, want %s", reason, name, f.blocks)
		}
		return nil
	})
	end()
}

func otherPartitions(p int32, _ string) bool { return p != badPartition }

func isBadCall(callID string) bool { return crc32.ChecksumIEEE([]byte(callID))%20 == 0 }

func otherCalls(_ int32, callID string) bool { return !isBadCall(callID) }

// respondWith begins a fault of the running instance's brokers.
func respondWith(action func(*env, kmsg.Key) *kafkaproxy.Action) func(*randomScenario) func() {
	return func(s *randomScenario) func() {
		proxy := s.running.Proxy
		proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action { return action(s.env, k) })
		return func() { proxy.OnRequest(nil) }
	}
}

// apiFails has the API respond with a fault to matching requests.
func (s *randomScenario) apiFails(match func(callID string) bool, fault fetchtest.Fault) (end func()) {
	s.API.OnRequest(func(callID string) *fetchtest.Fault {
		if match(callID) {
			return &fault
		}
		return nil
	})
	return func() { s.API.OnRequest(nil) }
}

// noLeader has the brokers report that badPartition has no leader.
func noLeader(e *env, k kmsg.Key) *kafkaproxy.Action {
	switch k {
	case kmsg.Fetch:
		a := tamperFetch(func(p *kmsg.FetchResponseTopicPartition) {
			p.ErrorCode, p.RecordBatches = kerr.NotLeaderForPartition.Code, nil
		})(e, k)
		// The client asks again at once, so that no virtual time would pass.
		a.After = func() { <-time.After(10 * time.Millisecond) }
		return a
	case kmsg.Metadata:
		return &kafkaproxy.Action{Respond: func(_ kmsg.Request, resp kmsg.Response) {
			for _, t := range resp.(*kmsg.MetadataResponse).Topics {
				for p := range t.Partitions {
					if t.Topic != nil && *t.Topic == e.In && t.Partitions[p].Partition == badPartition {
						t.Partitions[p].ErrorCode, t.Partitions[p].Leader = kerr.LeaderNotAvailable.Code, -1
					}
				}
			}
		}}
	}
	return nil
}
