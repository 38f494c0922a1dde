package consumer_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/session"
	"enricher/fetch/fetchtest"
	"enricher/test/kafkaproxy"
)

func TestAddedPartitions(t *testing.T)      { inVirtualTime(t, fetchtest.Config{}, addedPartitions) }
func TestKafkaAddedPartitions(t *testing.T) { onKafka(t, fetchtest.Config{}, addedPartitions) }

// addedPartitions are consumed within seconds and from their beginning, also with
// auto-offset-reset latest.
func addedPartitions(t *testing.T, e *env) {
	const added = 4
	latest := func(c *consumer.Config) {
		quick(c)
		c.AutoOffsetReset = consumer.Latest
	}
	e.Start("a", latest)
	e.Start("b", latest)
	e.Eventually(time.Minute, func() error { // the starts are committed
		offsets, err := e.Admin().FetchOffsets(context.Background(), e.Group)
		if n := len(offsets[e.In]); err == nil && n < partitions {
			return fmt.Errorf("%d partitions have a committed offset", n)
		}
		return err
	})
	e.FeedCalls("before-", partitions)
	e.Await(time.Minute)
	if _, err := e.Admin().CreatePartitions(t.Context(), added, e.In); err != nil {
		t.Fatal(err)
	}
	e.AwaitTopic(e.In, partitions+added)
	<-time.After(time.Second) // the feeder asks for the new partitions
	for p := int32(partitions); p < partitions+added; p++ {
		e.FeedCall(p, "early-"+strconv.Itoa(int(p)))
	}
	// Five seconds until an instance looks at the topic, and until the group has
	// joined again; then the wait for a share after the partitions became more.
	e.Await(10*time.Second + shareDelay + session.DefaultSessionTimeout)
	e.Check()
}

// TestLeaderlessPartitionAtStart: an instance that starts while one input partition
// has no leader consumes the others at once.
func TestLeaderlessPartitionAtStart(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		var on atomic.Bool
		on.Store(true)
		e.OnRequest = func(k kmsg.Key) *kafkaproxy.Action {
			if !on.Load() || k != kmsg.Metadata && k != kmsg.ListOffsets {
				return nil
			}
			return &kafkaproxy.Action{Respond: func(_ kmsg.Request, resp kmsg.Response) { takeLeader(e.In, resp) }}
		}
		e.Start("a")
		for n := range 20 {
			e.FeedCalls("during-"+strconv.Itoa(n)+"-", partitions)
		}
		e.awaitOthers(shareDelay + 20*time.Second)
		if len(e.Audit().Lost) == 0 {
			t.Error("the partition was consumed, so this test shows nothing")
		}
		on.Store(false)
		e.Await(2 * time.Minute)
		e.Check()
	})
}

// takeLeader changes a response about a topic as if badPartition had no leader.
func takeLeader(topic string, resp kmsg.Response) {
	switch r := resp.(type) {
	case *kmsg.MetadataResponse:
		for _, t := range r.Topics {
			for p := range t.Partitions {
				if t.Topic != nil && *t.Topic == topic && t.Partitions[p].Partition == badPartition {
					t.Partitions[p].Leader, t.Partitions[p].ErrorCode = -1, kerr.LeaderNotAvailable.Code
				}
			}
		}
	case *kmsg.ListOffsetsResponse:
		for _, t := range r.Topics {
			for p := range t.Partitions {
				if t.Topic == topic && t.Partitions[p].Partition == badPartition {
					t.Partitions[p].Offset, t.Partitions[p].ErrorCode = -1, kerr.LeaderNotAvailable.Code
				}
			}
		}
	}
}
