package consumer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

// The invariant: a run of calls without records, however long, holds up the calls
// behind it for a time in proportion to its length, and no dead letter is written
// beyond what the guard allows between two records found.

// feedMissing feeds n calls without a record, which ended an hour ago, over all
// partitions.
func (e *env) feedMissing(n int) {
	e.T.Helper()
	ended := time.Now().Add(-time.Hour)
	for i := range n {
		id := fmt.Sprint("missing-", i)
		e.API.Never(id)
		event := audit.Expect{CallID: id, Key: []byte(id), Value: audittest.EndCall(id, ended), Reasons: []schemas.Reason{schemas.NotFound}}
		r := &kgo.Record{Topic: e.In, Partition: int32(i % partitions), Key: event.Key, Value: event.Value}
		e.Client.Produce(e.T.Context(), r, func(r *kgo.Record, err error) {
			if err == nil {
				e.Ledger.Add(audit.Source{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}, event)
			}
		})
	}
	if err := e.Client.Flush(e.T.Context()); err != nil {
		e.T.Fatal(err)
	}
}

// TestLongRunWithoutRecordsEnds has three times as many calls without a record as
// may be in flight, and healthy ones behind them.
func TestLongRunWithoutRecordsEnds(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		// A tenth of 60,000 with the default limits, which takes 11 minutes.
		const missing, healthy = 6_000, 10 * partitions
		e.FeedCalls("before-", partitions)
		i := e.Start("a")
		e.Await(time.Minute)
		i.Drain()
		e.feedMissing(missing)
		e.FeedCalls("behind-", healthy)
		i = e.Start("a", func(c *consumer.Config) { c.MaxInFlight, c.MaxConsecutiveDeadLetters = missing/3, 100 })
		start := time.Now()
		stop := e.KeepFeeding(5 * time.Second)
		e.Eventually(20*time.Minute, func() error {
			if n := i.Metric("enricher_events_total", string(schemas.NotFound)); n < missing {
				return fmt.Errorf("%v dead letters of %d", n, missing)
			}
			return nil
		})
		took := time.Since(start)
		stop()
		t.Logf("took %v, %v requests", took, i.Metric("enricher_api_requests_total"))
		e.Await(time.Minute)
		if a := e.Check(); a.DeadLetters[schemas.NotFound] != missing {
			t.Error(a)
		}
		// Two requests for each call at 200 a second are one minute, and each time that
		// dead letters are withheld takes a second or more.
		if limit := 4 * time.Minute; took > limit {
			t.Errorf("took %v, want %v at most", took, limit)
		}

		// Afterwards healthy calls are as quick as ever.
		e.FeedCalls("afterwards-", healthy)
		fed := time.Now()
		e.Await(time.Minute)
		if took := time.Since(fed); took > 8*time.Second {
			t.Errorf("healthy calls took %v afterwards", took)
		}
		e.Check()
		if reason := i.NotReady(); reason != "" {
			t.Errorf("not ready afterwards: %s", reason)
		}
	})
}
