package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/test/harness"
	"enricher/test/kafka"
)

// TestKafkaMarkersSurviveAKill kills the broker just after it has acknowledged the
// end of a transaction, when it may not have written the markers yet, three times.
// Once it is back all partitions must have one: without, read_committed consumers
// stop there for ever, and no client can help (KAFKA-20734).
func TestKafkaMarkersSurviveAKill(t *testing.T) {
	_, c := harness.OwnKafka(t, kafka.Config{})
	for try := range 3 {
		if err := commitAndKill(t.Context(), c, fmt.Sprint("topic", try)); err != nil {
			t.Errorf("Kafka %s, try %d: %v", kafka.Version(), try+1, err)
		}
	}
}

// commitAndKill returns an error unless all partitions of a new topic can be read to
// their end after the broker was killed and restarted.
func commitAndKill(ctx context.Context, c *kafka.Cluster, topic string) error {
	const partitions, markersWithin = 12, 20 * time.Second
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	created, err := admin.CreateTopics(ctx, partitions, 1, nil, topic)
	if err = errors.Join(err, created.Error(), cl.BeginTransaction()); err != nil {
		return err
	}
	for p := range int32(partitions) {
		cl.Produce(ctx, &kgo.Record{Partition: p, Value: []byte("x")}, nil)
	}
	if err := errors.Join(cl.Flush(ctx), cl.EndTransaction(ctx, kgo.TryCommit)); err != nil {
		return err
	}
	if err := errors.Join(c.Kill(0), c.Run(0), c.Await(ctx, 1)); err != nil {
		return err
	}
	for deadline := time.Now().Add(markersWithin); ; <-time.After(200 * time.Millisecond) {
		ends, err1 := admin.ListEndOffsets(ctx, topic)
		stable, err2 := admin.ListCommittedOffsets(ctx, topic)
		var open []int32
		ends.Each(func(o kadm.ListedOffset) {
			if s, ok := stable.Lookup(o.Topic, o.Partition); !ok || s.Offset < 2 || o.Offset < 2 { // a record and a marker
				open = append(open, o.Partition)
			}
		})
		err := errors.Join(err1, err2, ends.Error(), stable.Error())
		if err == nil && len(open) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			slices.Sort(open)
			return errors.Join(fmt.Errorf("partitions %v have no marker after %v", open, markersWithin), err)
		}
	}
}
