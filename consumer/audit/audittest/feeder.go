package audittest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
)

// AnyPartition leaves the choice of the partition to the client's partitioner.
const AnyPartition = -1

// Feeder produces events to a topic and adds each that was acknowledged to the
// ledger.
type Feeder struct {
	Client *kgo.Client
	Topic  string
	Ledger *audit.Ledger // nil: none

	mu  sync.Mutex
	err error // the first failure
}

// Send produces an event. Flush returns its error.
func (f *Feeder) Send(ctx context.Context, partition int32, e audit.Expect) {
	e.Produced = time.Now()
	f.Client.Produce(ctx, &kgo.Record{Topic: f.Topic, Partition: partition, Timestamp: e.Timestamp, Key: e.Key, Value: e.Value}, func(r *kgo.Record, err error) {
		if err == nil {
			f.add(r, e)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.err == nil {
			f.err = fmt.Errorf("produce an event to %s: %w", r.Topic, err)
		}
	})
}

// Feed produces an event and waits until it was acknowledged.
func (f *Feeder) Feed(ctx context.Context, partition int32, e audit.Expect) error {
	e.Produced = time.Now()
	r := &kgo.Record{Topic: f.Topic, Partition: partition, Timestamp: e.Timestamp, Key: e.Key, Value: e.Value}
	if err := f.Client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("produce an event to %s: %w", f.Topic, err)
	}
	f.add(r, e)
	return nil
}

func (f *Feeder) add(r *kgo.Record, e audit.Expect) {
	if f.Ledger != nil {
		f.Ledger.Add(audit.Source{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}, e)
	}
}

// Err returns the first failure so far.
func (f *Feeder) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Flush waits until every event sent was acknowledged, and returns the first
// failure.
func (f *Feeder) Flush(ctx context.Context) error {
	if err := f.Client.Flush(ctx); err != nil {
		return err
	}
	return f.Err()
}
