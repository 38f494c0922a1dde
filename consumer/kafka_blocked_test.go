package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
	"enricher/test/harness"
	"enricher/test/kafka"
)

// The scenarios of this file are like those of scenarios_blocked_test.go, with
// faults of a real Kafka.

// maxHealthyLatency is for events that nothing is wrong with, while others wait:
// several times what they take without a fault on a busy machine.
const maxHealthyLatency = 5 * time.Second

// awaitNotReady waits until an instance is not ready for a reason that has all of
// these texts.
func awaitNotReady(e *env, i *harness.Instance, texts ...string) {
	e.T.Helper()
	e.Eventually(20*time.Second, func() error {
		reason := i.NotReady()
		for _, text := range texts {
			if !strings.Contains(reason, text) {
				return fmt.Errorf("not ready for %q, want %q in it", reason, text)
			}
		}
		return nil
	})
}

func awaitReady(e *env, i *harness.Instance) {
	e.T.Helper()
	e.Eventually(90*time.Second, func() error { // more than maxBlockRetry
		if reason := i.NotReady(); reason != "" {
			return errors.New("not ready: " + reason)
		}
		return nil
	})
}

// TestKafkaLeaderlessPartitions: one of three nodes is down, with the only replica
// of some partitions. The others continue on an instance that was running and on
// one that starts meanwhile.
func TestKafkaLeaderlessPartitions(t *testing.T) {
	t.Parallel()
	b, c := harness.OwnKafka(t, kafka.Config{Nodes: 3})
	e := &env{Env: harness.NewEnv(b, harness.UniqueTopics(), fetchtest.Config{}), real: true}
	e.Settings = brief
	e.CreateTopics(partitions, e.Enriched, e.Dead)
	if _, err := e.Admin().CreateTopic(t.Context(), partitions, 1, nil, e.In); err != nil {
		t.Fatal(err)
	}
	e.AwaitTopic(e.In, partitions)
	i := e.Start("a")
	e.FeedCalls("before-", 2*partitions)
	e.Await(time.Minute)

	const down = 2
	var leaderless []int32
	topics, err := e.Admin().ListTopics(t.Context(), e.In)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range topics[e.In].Partitions.Sorted() {
		if p.Leader == down+1 {
			leaderless = append(leaderless, p.Partition)
		}
	}
	if len(leaderless) == 0 {
		t.Fatal("the node leads no partition: this test shows nothing")
	}
	if err := errors.Join(c.Shutdown(down), c.Await(t.Context(), 2)); err != nil {
		t.Fatal(err)
	}
	feed := func(prefix string) {
		for n := range 20 * partitions {
			if p := int32(n % partitions); !slices.Contains(leaderless, p) {
				e.FeedCall(p, fmt.Sprint(prefix, n))
			}
		}
	}
	named := func(prefix string) func(audit.Source, audit.Expect) bool {
		return func(_ audit.Source, event audit.Expect) bool { return strings.HasPrefix(event.CallID, prefix) }
	}
	<-time.After(2 * time.Second) // the coordinators move
	feed("running-")
	e.awaitWithin(maxHealthyLatency, named("running-"))

	i.Drain()
	i = e.Start("b")
	feed("fresh-")
	e.awaitWithin(shareDelay+maxHealthyLatency, named("fresh-"))
	feed("later-")
	e.awaitWithin(maxHealthyLatency, named("later-"))
	texts := []string{string(consumer.OffsetUnavailable)}
	for _, p := range leaderless {
		texts = append(texts, fmt.Sprintf("%s[%d]", e.In, p))
	}
	awaitNotReady(e, i, texts...)
	if n := i.Metric("enricher_blocked_partitions"); int(n) != len(leaderless) {
		t.Errorf("%v partitions blocked, want %d", n, len(leaderless))
	}

	if err := errors.Join(c.Run(down), c.Await(t.Context(), 3)); err != nil {
		t.Fatal(err)
	}
	e.AwaitTopic(e.In, partitions)
	e.FeedCalls("after-", 2*partitions)
	e.Await(2 * time.Minute)
	e.Check()
	awaitReady(e, i)
}

func TestKafkaRefusedOutputWaitsAlone(t *testing.T) { onKafka(t, fetchtest.Config{}, refusedOutput) }

// TestKafkaCompactedDeadLetterTopic refuses records without a key. Dead letters of
// events without one are written in their other form, and nothing waits for them.
func TestKafkaCompactedDeadLetterTopic(t *testing.T) {
	onKafka(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		compact := "compact"
		_, err := e.Admin().AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: &compact}}, e.Dead)
		if err != nil {
			t.Fatal(err)
		}
		e.Eventually(time.Minute, func() error { // a broker applies it later
			configs, err := e.Admin().DescribeTopicConfigs(t.Context(), e.Dead)
			if err != nil {
				return err
			}
			for _, c := range configs[0].Configs {
				if c.Key == "cleanup.policy" && c.MaybeValue() == compact {
					return nil
				}
			}
			return errors.New("the topic is not compacted")
		})
		i := e.Start("a")
		e.FeedCalls("before-", partitions)
		e.Await(time.Minute)
		withoutKey := audittest.Feeder{Client: e.Client, Topic: e.In, Ledger: &e.Ledger}
		for p := range int32(3) {
			if err := withoutKey.Feed(t.Context(), p, audit.Expect{Value: []byte("junk"), Reasons: []schemas.Reason{schemas.Malformed}}); err != nil {
				t.Fatal(err)
			}
		}
		e.FeedCalls("healthy-", 50*partitions)
		e.awaitWithin(maxHealthyLatency, func(_ audit.Source, event audit.Expect) bool { return strings.HasPrefix(event.CallID, "healthy-") })
		e.Await(time.Minute)
		e.Check()
		dead := e.Read(e.Dead)
		if len(dead) != 3 {
			t.Fatalf("%d dead letters, want 3", len(dead))
		}
		for _, r := range dead {
			if d, ok := producer.ParseDeadLetter(r); !ok || d.OmittedBytes == 0 || len(r.Key) == 0 {
				t.Errorf("dead letter %v with key %q", d, r.Key)
			}
		}
		if reason := i.NotReady(); reason != "" {
			t.Errorf("not ready: %s", reason)
		}
		if n := i.Metric("enricher_kafka_session_restarts_total"); n != 0 {
			t.Errorf("%v sessions restarted", n)
		}
	})
}

// TestKafkaInputTopicDeleted: of two input topics one is deleted and, later, created
// again. The other continues.
func TestKafkaInputTopicDeleted(t *testing.T) {
	onKafka(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		other := e.In + "-other"
		e.CreateTopics(partitions, other)
		t.Cleanup(func() { _, _ = e.Admin().DeleteTopics(context.Background(), other) })
		i := e.Start("a", func(c *consumer.Config) { c.InputTopics = []string{e.In, other} })
		e.feedTopic(other, "old-", 2*partitions)
		e.FeedCalls("before-", 2*partitions)
		e.awaitKeys("old-", 2*partitions)

		if _, err := e.Admin().DeleteTopic(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		for n := range 10 {
			e.FeedCalls(fmt.Sprint("during-", n, "-"), 2*partitions)
			<-time.After(500 * time.Millisecond)
		}
		awaitNotReady(e, i, string(consumer.TopicUnavailable), other)

		e.Eventually(20*time.Second, func() error {
			_, err := e.Admin().CreateTopic(context.Background(), partitions, -1, nil, other)
			return err // that the topic exists, until the old one is gone
		})
		e.AwaitTopic(other, partitions)
		e.feedTopic(other, "new-", 2*partitions)
		e.FeedCalls("after-", 2*partitions)
		e.awaitKeys("new-", 2*partitions)
		e.awaitWithin(maxHealthyLatency, func(_ audit.Source, event audit.Expect) bool { return strings.HasPrefix(event.CallID, "during-") })
		e.awaitWithin(20*time.Second, func(audit.Source, audit.Expect) bool { return true })
		awaitReady(e, i)
		i.Drain()
		outputs := slices.DeleteFunc(e.Outputs(), func(r *kgo.Record) bool {
			s, err := audit.SourceOf(r)
			return err == nil && s.Topic == other // its offsets began again
		})
		if report := e.Ledger.Check(outputs); !report.OK() {
			t.Error(report)
		}
		e.CheckOffsets()
	})
}

// feedTopic feeds calls to another topic, which the ledger does not know.
func (e *env) feedTopic(topic, prefix string, n int) {
	e.T.Helper()
	// A client of its own: the other one may remember a topic of the same name.
	feeder := e.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1))
	for i := range n {
		r := &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: audittest.EndCall(fmt.Sprint(prefix, i), time.Now())}
		if err := feeder.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			e.T.Fatal(err)
		}
	}
}

// awaitKeys waits for n outputs with a key that begins like this, and fails the
// test if one comes twice.
func (e *env) awaitKeys(prefix string, n int) {
	e.T.Helper()
	e.Eventually(40*time.Second, func() error {
		got := make(map[string]int)
		for _, r := range e.Outputs() {
			if key := string(r.Key); strings.HasPrefix(key, prefix) {
				if got[key]++; got[key] > 1 {
					e.T.Fatalf("%s has %d outputs", key, got[key])
				}
			}
		}
		if len(got) < n {
			return fmt.Errorf("outputs of %d of %d calls %s", len(got), n, prefix)
		}
		return nil
	})
}
