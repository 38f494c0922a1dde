package consumer_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/harness"
	"enricher/test/kafkaproxy"
)

// healthy feeds a call every 100 ms to all partitions but the first, and returns
// how long the slowest of them took from the event to its enriched record.
func (e *env) healthy(n int) (slowest func() time.Duration) {
	e.T.Helper()
	fed := make(map[string]time.Time)
	for i := range n {
		id := "healthy-" + strconv.Itoa(i)
		fed[id] = time.Now()
		e.FeedCall(int32(1+i%(partitions-1)), id)
		<-time.After(100 * time.Millisecond)
	}
	return func() time.Duration {
		slowest := time.Duration(0)
		for _, r := range e.Read(e.Enriched) {
			var v schemas.Enriched
			if err := json.Unmarshal(r.Value, &v); err != nil {
				e.T.Fatal(err)
			}
			if at, ok := fed[v.CallID]; ok {
				slowest = max(slowest, r.Timestamp.Sub(at))
			}
		}
		return slowest
	}
}

// feedNever feeds calls to the first partition that have no record, in events of
// at least so many bytes.
func (e *env) feedNever(n, size int) {
	e.T.Helper()
	events := make([]audit.Expect, n)
	for i := range events {
		id := "never-" + strconv.Itoa(i)
		e.API.Never(id)
		events[i] = audit.Expect{Reasons: []schemas.Reason{schemas.NotFound}}
		events[i].Value = append(audittest.EndCall(id, time.Now()), strings.Repeat(" ", size)...)
	}
	e.FeedAll(events...)
}

// More events of one partition than may be in flight wait for records that never
// come. The events of the others take as long as ever, and nothing is lost.
func TestSlowPartitionLeavesRoomForOthers(t *testing.T) {
	for name, c := range map[string]struct {
		size   int
		change func(*consumer.Config)
	}{
		"events": {0, func(c *consumer.Config) { c.MaxInFlight = 1_000 }},
		"bytes":  {10_000, func(c *consumer.Config) { c.MaxInFlightBytes = 5 << 20 }},
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				e.feedNever(2_000, c.size)
				i := e.Start("a", c.change, func(c *consumer.Config) { c.APIRate, c.MaxConsecutiveDeadLetters = 0, 0 })
				<-time.After(20 * time.Second)
				waiting := i.Metric("enricher_in_flight_events")
				if waiting < 300 || waiting > 1_000 {
					t.Errorf("%v events in flight: the first partition is to use about half of the room", waiting)
				}
				slowest := e.healthy(300)
				e.Await(time.Hour)
				e.Check()
				if s := slowest(); s > harness.LookupDelay+time.Second {
					t.Errorf("an event of another partition took %v", s)
				}
			})
		})
	}
}

// The outcomes of one partition do not fit into its metadata, because events below
// them wait. Those of the others are committed as soon as ever, and the loop does
// not turn more often than it has to.
func TestPartitionWithoutMetadataRoomHoldsUpNoOther(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		const limit = 600 // of the broker, in bytes
		e.feedMany(6_000)
		i := e.Start("a", func(c *consumer.Config) { c.APIRate, c.MaxConsecutiveDeadLetters = 0, 0 })
		i.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
			if k != kmsg.TxnOffsetCommit {
				return nil
			}
			return &kafkaproxy.Action{Respond: func(req kmsg.Request, resp kmsg.Response) {
				for ti, t := range req.(*kmsg.TxnOffsetCommitRequest).Topics {
					for pi, p := range t.Partitions {
						if len(*p.Metadata) > limit {
							resp.(*kmsg.TxnOffsetCommitResponse).Topics[ti].Partitions[pi].ErrorCode = kerr.OffsetMetadataTooLarge.Code
						}
					}
				}
			}}
		})
		<-time.After(20 * time.Second)
		if n := i.Metric("enricher_in_flight_events", "completed"); n < 1_000 {
			t.Errorf("%v completed events have no room for their metadata: this test shows nothing", n)
		}
		before := consumer.Turns(i.Consumer)
		<-time.After(10 * time.Second)
		if n := consumer.Turns(i.Consumer) - before; n > 500 {
			t.Errorf("the loop turned %d times in 10 s without anything new to commit", n)
		}
		slowest := e.healthy(300)
		e.Await(time.Hour)
		e.Check()
		if s := slowest(); s > harness.LookupDelay+200*time.Millisecond {
			t.Errorf("an event of another partition took %v", s)
		}
	})
}

// The offsets of 3,000 partitions with the longest names are more than the broker
// stores in one batch. They are committed in several transactions, at once.
func TestManyPartitionsAreCommittedInParts(t *testing.T) {
	const many, brokersLimit = 3_000, 1_048_588
	topics := harness.Topics{In: strings.Repeat("i", 249), Enriched: "enriched", Dead: "dead", Group: strings.Repeat("g", 249)}
	broker := harness.InMemory(t, kfake.SeedTopics(many, topics.In), kfake.SeedTopics(partitions, topics.Enriched, topics.Dead))
	e := &env{Env: harness.NewEnv(broker, topics, fetchtest.Config{})}
	for p := range int32(many) {
		e.FeedCall(p, "call-"+strconv.Itoa(int(p)))
	}
	i := e.Start("a", func(c *consumer.Config) {
		c.APIRate, c.Retry.LookupDelay = 0, 0
		c.CommitInterval = 3 * time.Second // most are completed by then
	})
	var mu sync.Mutex
	largest, commits := 0, 0
	i.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
		if k != kmsg.TxnOffsetCommit {
			return nil
		}
		return &kafkaproxy.Action{Respond: func(req kmsg.Request, _ kmsg.Response) {
			mu.Lock()
			defer mu.Unlock()
			commits++
			size := 0
			for _, t := range req.(*kmsg.TxnOffsetCommitRequest).Topics {
				for _, p := range t.Partitions {
					// The key has versions and lengths of 6 bytes and the partition, the value
					// 24 bytes, lengths and a topic id; a record has about 14 bytes of its own.
					size += len(topics.Group) + len(topics.In) + 10 + len(*p.Metadata) + 42 + 14
				}
			}
			largest = max(largest, size)
		}}
	})
	e.Await(2 * time.Minute)
	e.Check()
	mu.Lock()
	defer mu.Unlock()
	if largest > brokersLimit || largest < brokersLimit/3 || commits < 4 {
		t.Errorf("%d commits, the largest of %d bytes", commits, largest)
	}
}
