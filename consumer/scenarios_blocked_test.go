package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/kafkaproxy"
)

// The invariant of these scenarios: what concerns one partition costs only that
// partition. While the fault lasts, the events of all others get their outcomes as
// if there were none, the instance names the partition, and after the fault the
// partition continues by itself, exactly once.

const badPartition = 3

// A blocked scenario has a fault of one partition, which begins with on = true.
type blockedScenario struct {
	reason consumer.BlockReason
	// action returns what happens to a request while the fault lasts; nil: nothing.
	action func(e *env, k kmsg.Key) *kafkaproxy.Action
	// restart starts the instance while the fault lasts.
	restart bool
	// after is how long it takes until the fault is noticed.
	after time.Duration
}

func TestDamagedBatchBlocksItsPartition(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, blockedScenario{reason: consumer.UnreadableBatch, action: tamperFetch(flipByte)}.run)
}

func TestKafkaDamagedBatchBlocksItsPartition(t *testing.T) {
	onKafka(t, fetchtest.Config{}, blockedScenario{reason: consumer.UnreadableBatch, action: tamperFetch(flipByte)}.run)
}

func TestUnknownMagicBlocksItsPartition(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, blockedScenario{reason: consumer.UnreadableBatch, action: tamperFetch(unknownMagic)}.run)
}

func TestForbiddenFetchBlocksItsPartition(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, blockedScenario{reason: consumer.FetchFailed, action: tamperFetch(forbid)}.run)
}

func TestStalledPartitionIsNamed(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, blockedScenario{reason: consumer.Stalled, action: tamperFetch(returnNothing), after: time.Minute}.run)
}

func TestKafkaStalledPartitionIsNamed(t *testing.T) {
	onKafka(t, fetchtest.Config{}, blockedScenario{reason: consumer.Stalled, action: tamperFetch(returnNothing), after: time.Minute}.run)
}

func TestLeaderlessPartitionIsNamed(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, blockedScenario{reason: consumer.Stalled, action: leaderless, after: time.Minute}.run)
}

func TestUnstableOffsetBlocksItsPartition(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, blockedScenario{reason: consumer.OffsetUnavailable, action: unstableOffset, restart: true}.run)
}

func TestKafkaUnstableOffsetBlocksItsPartition(t *testing.T) {
	onKafka(t, fetchtest.Config{}, blockedScenario{reason: consumer.OffsetUnavailable, action: unstableOffset, restart: true}.run)
}

func (s blockedScenario) run(t *testing.T, e *env) {
	var on atomic.Bool
	e.OnRequest = func(k kmsg.Key) *kafkaproxy.Action {
		if !on.Load() {
			return nil
		}
		return s.action(e, k)
	}
	i := e.Start("a")
	e.FeedCalls("before-", 2*partitions)
	e.Await(time.Minute)

	on.Store(true)
	if s.restart {
		i.Drain()
		i = e.Start("a")
	}
	for n := range 20 {
		e.FeedCalls("during-"+string(rune('a'+n)), partitions)
	}
	e.awaitOthers(time.Minute)
	<-time.After(s.after)
	for end := time.Now().Add(e.choose(20*time.Second, 3*time.Second)); time.Now().Before(end); { // also while it is tried again
		if reason := i.NotReady(); !strings.Contains(reason, string(s.reason)) || !strings.Contains(reason, e.In+"[3]") {
			t.Fatalf("not ready for %q, want %s and the partition", reason, s.reason)
		}
		<-time.After(20 * time.Millisecond)
	}
	if n := i.Metric("enricher_blocked_partitions"); n != 1 {
		t.Errorf("%v partitions blocked, want 1", n)
	}

	on.Store(false)
	e.Await(2 * time.Minute)
	e.Check()
	<-time.After(2 * time.Second) // the gauges are set every second
	if reason := i.NotReady(); reason != "" {
		t.Errorf("not ready afterwards: %s", reason)
	}
	if n := i.Metric("enricher_kafka_session_restarts_total"); n != 0 {
		t.Errorf("%v sessions restarted", n)
	}
}

// awaitOthers waits until every event outside badPartition has its outcome.
func (e *env) awaitOthers(limit time.Duration) {
	e.T.Helper()
	deadline := time.Now().Add(limit)
	for {
		missing := e.Audit().Lost
		missing = slices.DeleteFunc(missing, func(s string) bool { return strings.Contains(s, "["+"3"+"]") })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			e.T.Fatalf("%d events of healthy partitions have no outcome after %v, such as %s", len(missing), limit, missing[0])
		}
		<-time.After(200 * time.Millisecond)
	}
}

// tamperFetch changes what a broker returns of badPartition.
func tamperFetch(tamper func(*kmsg.FetchResponseTopicPartition)) func(*env, kmsg.Key) *kafkaproxy.Action {
	action := tamperFetchOf(badPartition, tamper)
	return func(_ *env, k kmsg.Key) *kafkaproxy.Action { return action(k) }
}

// leaderless makes the brokers report that badPartition has no leader.
func leaderless(_ *env, _ kmsg.Key) *kafkaproxy.Action {
	return &kafkaproxy.Action{Respond: func(_ kmsg.Request, resp kmsg.Response) {
		switch r := resp.(type) {
		case *kmsg.MetadataResponse:
			for t := range r.Topics {
				for p := range r.Topics[t].Partitions {
					if q := &r.Topics[t].Partitions[p]; q.Partition == badPartition {
						q.ErrorCode, q.Leader = kerr.LeaderNotAvailable.Code, -1
					}
				}
			}
		case *kmsg.FetchResponse:
			for t := range r.Topics {
				for p := range r.Topics[t].Partitions {
					if q := &r.Topics[t].Partitions[p]; q.Partition == badPartition {
						q.ErrorCode, q.RecordBatches = kerr.NotLeaderForPartition.Code, nil
						<-time.After(100 * time.Millisecond) // the client asks again at once
					}
				}
			}
		case *kmsg.ListOffsetsResponse:
			for t := range r.Topics {
				for p := range r.Topics[t].Partitions {
					if q := &r.Topics[t].Partitions[p]; q.Partition == badPartition {
						q.ErrorCode = kerr.NotLeaderForPartition.Code
					}
				}
			}
		}
	}}
}

func flipByte(p *kmsg.FetchResponseTopicPartition) {
	if n := len(p.RecordBatches); n > 0 {
		p.RecordBatches = slices.Clone(p.RecordBatches)
		p.RecordBatches[n-1] ^= 1
	}
}

func unknownMagic(p *kmsg.FetchResponseTopicPartition) {
	if len(p.RecordBatches) > 16 {
		p.RecordBatches = slices.Clone(p.RecordBatches)
		p.RecordBatches[16] = 9
	}
}

// returnNothing makes the broker return no records, although the log has some.
// It takes a moment: the client would ask again at once.
func returnNothing(p *kmsg.FetchResponseTopicPartition) {
	if len(p.RecordBatches) > 0 {
		p.RecordBatches = nil
		<-time.After(100 * time.Millisecond)
	}
}

func forbid(p *kmsg.FetchResponseTopicPartition) {
	p.ErrorCode, p.RecordBatches = kerr.TopicAuthorizationFailed.Code, nil
}

// unstableOffset makes the broker report that a transaction of badPartition is
// pending, as long as stable offsets are required.
func unstableOffset(_ *env, k kmsg.Key) *kafkaproxy.Action {
	if k != kmsg.OffsetFetch {
		return nil
	}
	return &kafkaproxy.Action{Respond: func(req kmsg.Request, resp kmsg.Response) {
		if !req.(*kmsg.OffsetFetchRequest).RequireStable {
			return
		}
		for g := range resp.(*kmsg.OffsetFetchResponse).Groups {
			for _, t := range resp.(*kmsg.OffsetFetchResponse).Groups[g].Topics {
				for p := range t.Partitions {
					if t.Partitions[p].Partition == badPartition {
						t.Partitions[p].ErrorCode, t.Partitions[p].Offset = kerr.UnstableOffsetCommit.Code, -1
					}
				}
			}
		}
	}}
}

// TestRefusedOutputWaitsAlone: a topic that does not accept dead letters, for
// another reason than size, holds up their events only.
func TestRefusedOutputWaitsAlone(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, refusedOutput)
}

func refusedOutput(t *testing.T, e *env) {
	var on atomic.Bool
	on.Store(true)
	i := e.Start("a")
	i.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
		if !on.Load() {
			return nil
		}
		return refuseDeadLetters(e, k)
	})
	for n := range 3 {
		e.FeedDead(int32(n), []byte("junk"), schemas.Malformed)
	}
	e.FeedCalls("healthy-", 50*partitions)
	deadline := time.Now().Add(30 * time.Second)
	for len(e.Audit().Lost) > 3 {
		if time.Now().After(deadline) {
			t.Fatalf("healthy events wait: %v", e.Audit())
		}
		<-time.After(200 * time.Millisecond)
	}
	named := func() bool { return strings.Count(i.NotReady(), string(consumer.OutputRefused)) == 3 }
	e.Eventually(30*time.Second, func() error {
		if !named() {
			return fmt.Errorf("not ready for %q, want the three partitions", i.NotReady())
		}
		return nil
	})
	for end := time.Now().Add(e.choose(20*time.Second, 5*time.Second)); time.Now().Before(end); { // also while they are tried again
		if <-time.After(20 * time.Millisecond); !named() {
			t.Fatalf("not ready for %q, want the three partitions", i.NotReady())
		}
	}
	on.Store(false)
	e.Await(2 * time.Minute)
	e.Check()
}

// refuseDeadLetters has the dead-letter topic refuse all records.
func refuseDeadLetters(e *env, k kmsg.Key) *kafkaproxy.Action {
	if k != kmsg.Produce {
		return nil
	}
	return kafkaproxy.RefuseRecords(func(t kmsg.ProduceRequestTopic) bool { return e.nameOf(t) == e.Dead })
}

// nameOf returns the name of a topic, which newer versions give by id.
func (e *env) nameOf(t kmsg.ProduceRequestTopic) string {
	if t.Topic != "" {
		return t.Topic
	}
	topics, err := kadm.NewClient(e.Client).ListTopics(context.Background(), e.Dead)
	if err == nil && topics[e.Dead].ID == t.TopicID {
		return e.Dead
	}
	return ""
}

// TestLatestCommitsItsStart: with auto-offset-reset latest, an event that comes
// while the instance is restarted is not skipped, though no event of its
// partition was ever read.
func TestLatestCommitsItsStart(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(_ *testing.T, e *env) {
		latest := func(c *consumer.Config) { c.AutoOffsetReset = consumer.Latest }
		i := e.Start("a", latest)
		<-time.After(5 * time.Second)
		i.Drain()
		e.FeedCalls("restart-", partitions)
		e.Start("a", latest)
		e.Await(time.Minute)
		e.Check()
	})
}

func TestNoCommittedOffset(t *testing.T)      { inVirtualTime(t, fetchtest.Config{}, noCommittedOffset) }
func TestKafkaNoCommittedOffset(t *testing.T) { onKafka(t, fetchtest.Config{}, noCommittedOffset) }

// noCommittedOffset: with auto-offset-reset none, a partition without an offset
// waits for one, and the others do not.
func noCommittedOffset(t *testing.T, e *env) {
	var offsets kadm.Offsets
	for p := range int32(partitions) {
		if p != badPartition {
			offsets.Add(kadm.Offset{Topic: e.In, Partition: p, At: 0, LeaderEpoch: -1})
		}
	}
	e.commit(offsets)
	i := e.Start("a", func(c *consumer.Config) { c.AutoOffsetReset = consumer.None })
	e.FeedCalls("c", 10*partitions)
	e.awaitOthers(time.Minute)
	<-time.After(2 * time.Second)
	if reason := i.NotReady(); !strings.Contains(reason, string(consumer.NoCommittedOffset)) {
		t.Errorf("not ready for %q", reason)
	}
	var missing kadm.Offsets
	missing.Add(kadm.Offset{Topic: e.In, Partition: badPartition, At: 0, LeaderEpoch: -1})
	i.Drain()
	e.commit(missing)
	e.Start("a", func(c *consumer.Config) { c.AutoOffsetReset = consumer.None })
	e.Await(time.Minute)
	e.Check()
}

// TestTranslatedOffsetIsUsed: an offset that a mirroring tool copied with the
// metadata of another topic, and without a leader epoch, is where reading starts.
func TestTranslatedOffsetIsUsed(t *testing.T) {
	inRealTime(t, fetchtest.Config{}, func(_ *testing.T, e *env) {
		e.FeedCalls("c", 5*partitions)
		other := e.topicID()
		other[0]++
		e.setOffsets(2, -1, consumer.EveryOther(other, 2, 3, 1))
		e.Start("a", quick)
		deadline := time.Now().Add(time.Minute)
		for len(e.Outputs()) < 3*partitions && time.Now().Before(deadline) {
			<-time.After(100 * time.Millisecond)
		}
		if n := len(e.Outputs()); n != 3*partitions {
			e.T.Errorf("%d outputs, want the %d from offset 2 on", n, 3*partitions)
		}
	})
}
