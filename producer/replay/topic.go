package replay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrRecreated says that a topic was deleted and created anew while it was read.
var ErrRecreated = errors.New("the topic was deleted and created anew")

const (
	requestTimeout = 15 * time.Second // for one question to the brokers
	// stallTimeout is how long reading may go without any advance: a broker that
	// restarts, or a transaction that somebody left open.
	stallTimeout = time.Minute
	retryPause   = 200 * time.Millisecond
	fetchWait    = 500 * time.Millisecond
	fetchBytes   = 4 << 20
)

// topic is a topic as it was found. It is read with requests of our own instead
// of a consumer, because a consumer goes on with a topic that was created anew
// as if nothing had happened, and does not tell when nothing but transaction
// markers and compacted records lie before the end.
type topic struct {
	cl      *kgo.Client
	name    string
	id      [16]byte
	leaders map[int32]int32 // by partition
}

// offsetRange is a range of offsets: from the first, to before the last.
type offsetRange struct{ from, to int64 }

func findTopic(ctx context.Context, cl *kgo.Client, name string) (*topic, error) {
	t := &topic{cl: cl, name: name}
	return t, t.refresh(ctx)
}

// refresh finds the leaders, past any cache.
func (t *topic) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &t.name
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, t.cl)
	if err == nil && len(resp.Topics) != 1 {
		err = fmt.Errorf("asked for one topic, got %d", len(resp.Topics))
	}
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return fmt.Errorf("no right to see topic %q; grant it: kafka-acls --add --allow-principal User:… --operation Read --topic %s (%w)", t.name, t.name, err)
	}
	if err != nil {
		return fmt.Errorf("look up topic %q: %w", t.name, err)
	}
	if t.leaders != nil && t.id != resp.Topics[0].TopicID {
		return fmt.Errorf("topic %q: %w", t.name, ErrRecreated)
	}
	t.id = resp.Topics[0].TopicID
	t.leaders = make(map[int32]int32)
	for _, p := range resp.Topics[0].Partitions {
		t.leaders[p.Partition] = p.Leader
	}
	return nil
}

// partitions are the topic's, ascending.
func (t *topic) partitions() []int32 { return slices.Sorted(maps.Keys(t.leaders)) }

type listOffsets func(context.Context, ...string) (kadm.ListedOffsets, error)

// ranges are the ranges of all partitions. end lists where they end.
func (t *topic) ranges(ctx context.Context, end listOffsets) (map[int32]offsetRange, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	starts, err := kadm.NewClient(t.cl).ListStartOffsets(ctx, t.name)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask where topic %q starts: %w", t.name, err)
	}
	ends, err := end(ctx, t.name)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask where topic %q ends: %w", t.name, err)
	}
	spans := make(map[int32]offsetRange)
	for _, p := range t.partitions() {
		from, _ := starts.Lookup(t.name, p)
		to, ok := ends.Lookup(t.name, p)
		if !ok {
			return nil, fmt.Errorf("topic %q, partition %d: the brokers do not tell where it ends", t.name, p)
		}
		spans[p] = offsetRange{from.Offset, to.Offset}
	}
	return spans, nil
}

// read yields the committed records of a range of offsets, and at most one
// error, which is the last. Records that retention deletes meanwhile are not
// yielded.
func (t *topic) read(ctx context.Context, partition int32, s offsetRange) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		at, moved := s.from, time.Now()
		for at < s.to {
			records, next, err := t.fetch(ctx, partition, at)
			for _, r := range records {
				if r.Offset < s.to && !yield(r, nil) {
					return
				}
			}
			switch {
			case next > at:
				at, moved = next, time.Now()
				continue
			case ctx.Err() != nil:
				err = context.Cause(ctx)
			case err == nil && time.Since(moved) < stallTimeout:
				continue // an open transaction, for which the broker has waited
			case err == nil:
				err = fmt.Errorf("topic %q, partition %d: a transaction at offset %d has been open for %v; "+
					"find it: kafka-transactions find-hanging", t.name, partition, at, stallTimeout)
			case retriableFetch(err) && time.Since(moved) < stallTimeout:
				if err = t.refreshAfterPause(ctx); err == nil {
					continue
				}
			}
			yield(nil, err)
			return
		}
	}
}

// retriableFetch says of an error of fetch that it may be gone at the next try.
func retriableFetch(err error) bool {
	var broker *kerr.Error
	return !errors.As(err, &broker) || broker.Retriable
}

// refreshAfterPause waits a little and looks for the leaders anew; that it cannot find them
// is no error yet.
func (t *topic) refreshAfterPause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(retryPause):
	}
	if err := t.refresh(ctx); errors.Is(err, ErrRecreated) || errors.Is(err, kerr.UnknownTopicOrPartition) {
		return err
	}
	return nil
}

// fetch reads once. next is where to go on; it is at if nothing was there.
func (t *topic) fetch(ctx context.Context, partition int32, at int64) (_ []*kgo.Record, next int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read topic %q, partition %d at %d: %w", t.name, partition, at, err)
		}
	}()
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(fetchWait.Milliseconds()), 1, fetchBytes
	req.IsolationLevel = 1 // read_committed
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = t.name, t.id
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = partition, at, fetchBytes
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	ask, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kresp, err := t.cl.Broker(int(t.leaders[partition])).Request(ask, req)
	if err != nil {
		return nil, at, err
	}
	resp := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, at, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, at, errors.New("asked for one partition, got another number of them")
	}
	got := &resp.Topics[0].Partitions[0]
	err = kerr.ErrorForCode(got.ErrorCode)
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return t.skipDeleted(ctx, partition, at)
	}
	if err != nil {
		return nil, at, err
	}
	records, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Topic: t.name, Partition: partition, Offset: at, IsolationLevel: kgo.ReadCommitted(),
	}, got, kgo.DefaultDecompressor(), nil)
	return records.Records, next, records.Err
}

// skipDeleted goes on where the log starts now.
func (t *topic) skipDeleted(ctx context.Context, partition int32, at int64) ([]*kgo.Record, int64, error) {
	starts, err := kadm.NewClient(t.cl).ListStartOffsets(ctx, t.name)
	if err != nil {
		return nil, at, err
	}
	if o, ok := starts.Lookup(t.name, partition); ok && o.Err == nil && o.Offset > at {
		return nil, o.Offset, nil
	}
	return nil, at, kerr.OffsetOutOfRange // the log was cut at its end
}
