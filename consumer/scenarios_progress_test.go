package consumer_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/test/harness"
	"enricher/test/kafkaproxy"
)

// The invariant of these scenarios: what the metrics and readiness say about a
// partition is so. A topic that was read to its end has no backlog, whatever its
// producers do, and one that cannot be read is named.

// transaction is a producer of the input topic with an open transaction.
type transaction struct {
	*env
	client *kgo.Client
}

func (e *env) beginTransaction(timeout time.Duration) *transaction {
	e.T.Helper()
	cl := e.NewClient(kgo.TransactionalID("producer-"+e.Group), kgo.TransactionTimeout(timeout), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.BeginTransaction(); err != nil {
		e.T.Fatal(err)
	}
	return &transaction{e, cl}
}

// produce produces n records to each partition given.
func (x *transaction) produce(n int, ps ...int32) {
	x.T.Helper()
	for _, p := range ps {
		for i := range n {
			r := &kgo.Record{Topic: x.In, Partition: p, Value: audittest.EndCall(fmt.Sprintf("aborted-%d", i), time.Now())}
			if err := x.client.ProduceSync(context.Background(), r).FirstErr(); err != nil {
				x.T.Fatal(err)
			}
		}
	}
}

// feed feeds a call to every partition.
func (x *transaction) feed(prefix string) {
	x.T.Helper()
	f := audittest.Feeder{Client: x.client, Topic: x.In, Ledger: &x.Ledger}
	for p := range int32(partitions) {
		event := audittest.Enriched(x.API, fmt.Sprintf("%s%d", prefix, p))
		event.Key, event.Value = []byte(fmt.Sprintf("key-%s%d", prefix, p)), audittest.EndCall(event.CallID, time.Now())
		if err := f.Feed(context.Background(), p, event); err != nil {
			x.T.Fatal(err)
		}
	}
}

func (x *transaction) end(how kgo.TransactionEndTry) {
	x.T.Helper()
	if err := x.client.Flush(context.Background()); err != nil {
		x.T.Fatal(err)
	}
	if err := x.client.EndTransaction(context.Background(), how); err != nil {
		x.T.Fatal(err)
	}
}

// awaitMetric waits until a metric has a value.
func (e *env) awaitMetric(i *harness.Instance, want float64, name string, labels ...string) {
	e.T.Helper()
	e.Eventually(30*time.Second, func() error {
		if got := i.Metric(name, labels...); got != want {
			return fmt.Errorf("%s%v is %v, want %v", name, labels, got, want)
		}
		return nil
	})
}

func allPartitions() []int32 {
	var all []int32
	for p := range int32(partitions) {
		all = append(all, p)
	}
	return all
}

func TestTransactionMarkersAreNoBacklog(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, transactionMarkers)
}

func TestKafkaTransactionMarkersAreNoBacklog(t *testing.T) {
	onKafka(t, fetchtest.Config{}, transactionMarkers)
}

// transactionMarkers and the records of aborted transactions are neither backlog,
// nor lag in Kafka's own tools, nor lost when retention deletes them.
func transactionMarkers(t *testing.T, e *env) {
	i := e.Start("a")
	committed := e.beginTransaction(time.Minute)
	committed.feed("committed-")
	committed.end(kgo.TryCommit)
	e.Await(time.Minute)
	e.Check()
	e.awaitMetric(i, 0, "enricher_backlog_events")

	for range 2 { // once read by one instance, once by its successor
		aborted := e.beginTransaction(time.Minute)
		aborted.produce(20, allPartitions()...)
		e.awaitMetric(i, 20*partitions, "enricher_backlog_events") // they could still be committed
		aborted.end(kgo.TryAbort)
		e.awaitMetric(i, 0, "enricher_backlog_events")
		e.awaitMetric(i, 0, "enricher_held_back_events")
		e.CheckOffsets()
		i.Drain()
		i = e.Start("a")
	}
	e.awaitMetric(i, 0, "enricher_backlog_events")

	ends, err := e.Admin().ListEndOffsets(context.Background(), e.In)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Admin().DeleteRecords(context.Background(), ends.Offsets()); err != nil {
		t.Fatal(err)
	}
	e.FeedCalls("after-", 2*partitions)
	e.Await(time.Minute)
	e.Check()
	e.awaitMetric(i, 0, "enricher_backlog_events")
	if n := i.Metric("enricher_events_deleted_by_retention_total"); n != 0 {
		t.Errorf("%v events deleted by retention, none was", n)
	}
	if reason := i.NotReady(); reason != "" {
		t.Errorf("not ready: %s", reason)
	}
}

func TestOpenTransactionIsNamed(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, openTransaction)
}

func TestKafkaOpenTransactionIsNamed(t *testing.T) {
	onKafka(t, fetchtest.Config{}, openTransaction)
}

// openTransaction of another program, which does not end: what lies behind it waits
// and is counted, the partition is named, and the others continue.
func openTransaction(t *testing.T, e *env) {
	i := e.Start("a")
	e.FeedCalls("before-", partitions)
	e.Await(time.Minute)
	x := e.beginTransaction(15 * time.Minute)
	x.produce(1, badPartition)
	for n := range 20 {
		e.FeedCalls(fmt.Sprintf("during-%d-", n), partitions)
	}
	e.awaitOthers(time.Minute)
	e.awaitMetric(i, 21, "enricher_backlog_events")
	e.awaitMetric(i, 21, "enricher_held_back_events")
	<-time.After(110 * time.Second)
	reason := i.NotReady()
	if !strings.Contains(reason, string(consumer.OpenTransaction)) || !strings.Contains(reason, fmt.Sprintf("%s[%d]", e.In, badPartition)) {
		t.Errorf("not ready for %q, want the partition with the open transaction", reason)
	}
	if strings.Contains(reason, string(consumer.Stalled)) {
		t.Errorf("not ready for %q: nothing can be read", reason)
	}
	if s := i.Metric("enricher_open_transaction_seconds"); s < 90 || s > 200 {
		t.Errorf("a transaction of two minutes has been open for %v s", s)
	}
	x.end(kgo.TryAbort)
	e.Await(time.Minute)
	e.Check()
	e.awaitMetric(i, 0, "enricher_backlog_events")
	e.awaitMetric(i, 0, "enricher_open_transaction_seconds")
	if reason := i.NotReady(); reason != "" {
		t.Errorf("not ready afterwards: %s", reason)
	}
}

func TestSkippedEventsAreFetchedAgain(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, skippedEvents)
}

func TestKafkaSkippedEventsAreFetchedAgain(t *testing.T) {
	onKafka(t, fetchtest.Config{}, skippedEvents)
}

// skippedEvents: the Kafka client passes over events without a word, because what
// the broker returns looks as if compaction had removed them.
func skippedEvents(t *testing.T, e *env) {
	var on, skipped atomic.Bool
	tamper := tamperFetch(func(p *kmsg.FetchResponseTopicPartition) {
		// A fetch waits at the broker for events, so it began before they were fed.
		if on.Load() && len(p.RecordBatches) > 0 {
			p.RecordBatches = withoutRecords(t, p.RecordBatches)
			skipped.Store(true)
		}
	})
	e.OnRequest = func(k kmsg.Key) *kafkaproxy.Action { return tamper(e, k) }
	i := e.Start("a")
	e.FeedCalls("before-", partitions)
	e.Await(time.Minute)
	// The client ignores an offset that equals the one it has, epoch included.
	for round := 1; round <= 2; round++ {
		skipped.Store(false)
		on.Store(true)
		e.FeedCalls(fmt.Sprintf("during-%d-", round), 5*partitions)
		e.awaitOthers(time.Minute)
		if !skipped.Load() {
			t.Fatal("nothing was skipped")
		}
		on.Store(false)
		e.Await(time.Minute)
		if n := i.Metric("enricher_partition_stalls_total"); n != float64(round) {
			t.Errorf("%v stalls, want %d", n, round)
		}
	}
	e.Check()
	e.awaitMetric(i, 0, "enricher_blocked_partitions")
	if n := i.Metric("enricher_kafka_session_restarts_total"); n != 0 {
		t.Errorf("%v sessions restarted", n)
	}
}

// withoutRecords returns batches that cover the same offsets and have no records.
func withoutRecords(t *testing.T, batches []byte) []byte {
	var out []byte
	for len(batches) > 12 {
		size := 12 + int(binary.BigEndian.Uint32(batches[8:]))
		if size > len(batches) {
			break
		}
		var b kmsg.RecordBatch
		if err := b.ReadFrom(batches[:size]); err != nil {
			t.Error(err)
		}
		b.NumRecords, b.Records = 0, nil
		b.Length = int32(len(b.AppendTo(nil)) - 12)
		b.CRC = int32(crc32.Checksum(b.AppendTo(nil)[21:], crc32.MakeTable(crc32.Castagnoli)))
		out = b.AppendTo(out)
		batches = batches[size:]
	}
	return out
}

// TestOutcomesAreCountedOnce: events of an aborted transaction whose partition has
// moved by the time the committed offsets are read are counted by the instance that
// completed them.
func TestOutcomesAreCountedOnce(t *testing.T) {
	inRealTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		fast := func(c *consumer.Config) {
			quick(c)
			c.APIRate, c.Retry.LookupDelay = 0, 0
		}
		var aborted, moved atomic.Bool
		var b *harness.Instance
		a := e.Start("a", fast)
		e.awaitMembers(1)
		failFirst := failCommit(&aborted)
		a.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
			switch {
			case k == kmsg.TxnOffsetCommit && !aborted.Load():
				return failFirst
			case k == kmsg.OffsetFetch && aborted.Load() && !moved.Swap(true):
				return &kafkaproxy.Action{Before: func() {
					b = e.Start("b", fast)
					e.awaitMembers(2)
					e.Eventually(5*time.Second, func() error {
						if n := b.Metric("enricher_events_total"); n == 0 {
							return errors.New("no outcome of b")
						}
						return nil
					})
				}}
			}
			return nil
		})
		e.FeedCalls("c", partitions)
		e.Await(time.Minute)
		e.Check()
		if !moved.Load() {
			t.Fatal("no partition moved")
		}
		if n := a.Metric("enricher_events_total") + b.Metric("enricher_events_total"); n != float64(e.Fed) {
			t.Errorf("%v outcomes counted of %d events", n, e.Fed)
		}
	})
}

// TestAgesUseTheEventsOwnTime: neither a record without a time makes an event old,
// nor a new record an old event new.
func TestAgesUseTheEventsOwnTime(t *testing.T) {
	for name, c := range map[string]struct {
		event, record time.Duration // before now; 0: the record's time is none
		low, high     float64       // of the age, in seconds
	}{
		"record without a time": {event: time.Second, low: 1, high: 60},
		"old event":             {event: 90 * time.Second, record: time.Second, low: 90, high: 150},
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				i := e.Start("a")
				<-time.After(shareDelay)
				now := time.Now()
				e.API.AvailableAt("late", now.Add(20*time.Second))
				event := audittest.Enriched(e.API, "late")
				event.Value, event.Timestamp = audittest.EndCall("late", now.Add(-c.event)), time.UnixMilli(1)
				if c.record > 0 {
					event.Timestamp = now.Add(-c.record)
				}
				e.Feed(0, event)
				<-time.After(5 * time.Second)
				if age := i.Metric("enricher_oldest_event_age_seconds"); age < c.low || age > c.high {
					t.Errorf("the oldest event is %v s old, want %v to %v", age, c.low, c.high)
				}
				e.Await(2 * time.Minute)
				e.Check()
				if sum := i.Metric("enricher_event_latency_seconds"); sum < c.low || sum > c.high {
					t.Errorf("the event took %v s, want %v to %v", sum, c.low, c.high)
				}
			})
		})
	}
}
