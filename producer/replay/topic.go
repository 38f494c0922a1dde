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

	"enricher/producer"
)

const (
	// requestTimeout bounds one request. It is longer than the 10 s after which kgo
	// gives up a single try, so that one broker that hangs leaves time for another.
	requestTimeout = 15 * time.Second
	// stallTimeout bounds reading without any progress: while a broker restarts,
	// or while another producer's transaction is open, which Kafka's default of
	// transaction.timeout.ms ends after a minute.
	stallTimeout = time.Minute
	// retryPause separates two tries to find a topic or its leaders.
	retryPause = 200 * time.Millisecond
	// fetchWait is Kafka's default of fetch.max.wait.ms.
	fetchWait = 500 * time.Millisecond
	// fetchBytes bounds the memory of one fetch. A larger batch is still returned.
	fetchBytes = 4 << 20
)

// topic is a topic as it was first found. It is read by plain fetch requests
// instead of a consumer, because a consumer continues with a re-created topic as
// if nothing had happened, and does not report its progress when only transaction
// markers and compacted records are left before the end.
type topic struct {
	cl      *kgo.Client
	name    string
	id      [16]byte
	leaders map[int32]int32 // by partition
}

// offsetRange holds the offsets from ≤ offset < to.
type offsetRange struct{ from, to int64 }

func findTopic(ctx context.Context, cl *kgo.Client, name string) (*topic, error) {
	t := &topic{cl: cl, name: name}
	return t, t.refresh(ctx)
}

// refresh requests the topic's id and leaders, bypassing the client's cache.
func (t *topic) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &t.name
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, t.cl)
	if err == nil && len(resp.Topics) != 1 {
		err = fmt.Errorf("the metadata response holds %d topics, want 1", len(resp.Topics))
	}
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return &producer.NotAuthorizedError{Operations: []string{"Read"}, ResourceType: "topic", Resource: t.name, Err: err}
	}
	if err != nil {
		return fmt.Errorf("find topic %q: %w", t.name, err)
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

// partitions returns the topic's partitions in ascending order.
func (t *topic) partitions() []int32 { return slices.Sorted(maps.Keys(t.leaders)) }

type listOffsets func(context.Context, ...string) (kadm.ListedOffsets, error)

// ranges returns the offsets of the partitions, up to the offsets that listEnds
// returns, and the errors of those that have no leader.
func (t *topic) ranges(ctx context.Context, listEnds listOffsets) (map[int32]offsetRange, map[int32]error, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	starts, startsErr := kadm.NewClient(t.cl).ListStartOffsets(ctx, t.name)
	ends, endsErr := listEnds(ctx, t.name)
	ranges, unavailable := make(map[int32]offsetRange), make(map[int32]error)
	for _, p := range t.partitions() {
		from, err := listed(starts, startsErr, t.name, p)
		var to int64
		if err == nil {
			to, err = listed(ends, endsErr, t.name, p)
		}
		if err != nil {
			unavailable[p] = fmt.Errorf("list the offsets of topic %q, partition %d: %w", t.name, p, err)
			continue
		}
		ranges[p] = offsetRange{from, to}
	}
	if len(ranges) == 0 {
		for _, p := range t.partitions() {
			return nil, nil, unavailable[p] // not a matter of one partition
		}
	}
	return ranges, unavailable, nil
}

// listed returns the offset of a partition. If some requests failed, err is their
// error.
func listed(offsets kadm.ListedOffsets, err error, topic string, partition int32) (int64, error) {
	if o, ok := offsets.Lookup(topic, partition); ok {
		return o.Offset, o.Err
	}
	if err == nil {
		err = kerr.LeaderNotAvailable
	}
	return 0, err
}

// read yields the committed records of a range of offsets, and at most one
// error, which is the last element. It skips records that retention deletes in
// the meantime.
func (t *topic) read(ctx context.Context, partition int32, r offsetRange) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		at, progress := r.from, time.Now()
		for at < r.to {
			records, next, err := t.fetch(ctx, partition, at)
			for _, rec := range records {
				if rec.Offset < r.to && !yield(rec, nil) {
					return
				}
			}
			switch {
			case next > at:
				at, progress = next, time.Now()
				continue
			case ctx.Err() != nil:
				err = context.Cause(ctx)
			case err == nil && time.Since(progress) < stallTimeout:
				continue // a transaction is open; the broker has waited for fetchWait
			case err == nil:
				err = &OpenTransactionError{Topic: t.name, Partition: partition, Offset: at, Waited: stallTimeout}
			case retriableFetch(err) && time.Since(progress) < stallTimeout:
				if err = t.refreshAfterPause(ctx); err == nil {
					continue
				}
			}
			yield(nil, err)
			return
		}
	}
}

// retriableFetch reports whether another fetch may succeed after err.
func retriableFetch(err error) bool {
	var broker *kerr.Error
	return !errors.As(err, &broker) || broker.Retriable
}

// refreshAfterPause waits for retryPause and refreshes. It returns only the errors
// that another try cannot overcome.
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

// fetch sends one fetch request. next is the offset to continue at, which is at
// when there was nothing to read.
func (t *topic) fetch(ctx context.Context, partition int32, at int64) (_ []*kgo.Record, next int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read topic %q, partition %d at offset %d: %w", t.name, partition, at, err)
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
	reqCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kresp, err := t.cl.Broker(int(t.leaders[partition])).Request(reqCtx, req)
	if err != nil {
		return nil, at, err
	}
	resp := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, at, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, at, errors.New("the fetch response does not hold exactly one partition")
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

// skipDeleted continues at the present start of the log, if that is beyond at.
func (t *topic) skipDeleted(ctx context.Context, partition int32, at int64) ([]*kgo.Record, int64, error) {
	starts, err := kadm.NewClient(t.cl).ListStartOffsets(ctx, t.name)
	if err != nil {
		return nil, at, err
	}
	if o, ok := starts.Lookup(t.name, partition); ok && o.Err == nil && o.Offset > at {
		return nil, o.Offset, nil
	}
	return nil, at, kerr.OffsetOutOfRange // the log was truncated at its end
}
