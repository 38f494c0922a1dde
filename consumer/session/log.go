package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Log reads a partition by offset, outside any group, batch by batch: one that
// cannot be read does not hide the others.
type Log struct {
	Topic     string
	Partition int32
	// Start and End are those of the log, for a read_committed consumer, and Epoch
	// is its last leader epoch, when it was opened.
	Start, End int64
	Epoch      int32

	cl     *kgo.Client
	id     [16]byte
	leader int32
	unpack kgo.Decompressor
}

// Chunk is what one read of a Log returns.
type Chunk struct {
	Records    []*kgo.Record // committed ones
	Unreadable []Unreadable
	Next       int64 // the next offset to read; the one that was read if there is nothing
}

// Unreadable is a range of offsets, From inclusive, To exclusive, of a batch that
// cannot be read.
type Unreadable struct {
	From, To int64
	Err      error
}

// OpenLog finds the leader and the bounds of a partition.
func OpenLog(ctx context.Context, cl *kgo.Client, topic string, partition int32) (*Log, error) {
	l := &Log{Topic: topic, Partition: partition, cl: cl}
	var err error
	if l.unpack, err = boundedDecompressor(); err != nil {
		return nil, err
	}
	if err := l.locate(ctx); err != nil {
		return nil, err
	}
	adm := kadm.NewClient(cl)
	starts, startErr := adm.ListStartOffsets(ctx, topic)
	ends, endErr := adm.ListCommittedOffsets(ctx, topic)
	start, ok1 := starts.Lookup(topic, partition)
	end, ok2 := ends.Lookup(topic, partition)
	if err := errors.Join(start.Err, end.Err); err != nil {
		return nil, fmt.Errorf("list the offsets of the log: %w", err)
	}
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("list the offsets of the log: %w", errors.Join(startErr, endErr, kerr.UnknownTopicOrPartition))
	}
	l.Start, l.End, l.Epoch = start.Offset, end.Offset, end.LeaderEpoch
	return l, nil
}

// OpenLog opens the log of a partition for as long as the session lasts.
func (s *Session) OpenLog(ctx context.Context, topic string, partition int32) (*Log, error) {
	return OpenLog(ctx, s.admin, topic, partition)
}

// FirstAfter returns the offset of the first record that is not older than at, or
// the end of the log.
func (l *Log) FirstAfter(ctx context.Context, at time.Time) (int64, error) {
	listed, err := kadm.NewClient(l.cl).ListOffsetsAfterMilli(ctx, at.UnixMilli(), l.Topic)
	o, ok := listed.Lookup(l.Topic, l.Partition)
	if ok {
		err = o.Err
	} else if err == nil {
		err = kerr.UnknownTopicOrPartition
	}
	if err != nil {
		return 0, fmt.Errorf("find the offset of a time: %w", err)
	}
	return min(o.Offset, l.End), nil
}

// locate finds the partition's leader.
func (l *Log) locate(ctx context.Context) error {
	topics, err := kadm.NewClient(l.cl).ListTopics(ctx, l.Topic)
	if err != nil {
		return fmt.Errorf("find topic %q: %w", l.Topic, err)
	}
	topic := topics[l.Topic]
	p, ok := topic.Partitions[l.Partition]
	err = errors.Join(topic.Err, p.Err)
	if err == nil && !ok {
		err = kerr.UnknownTopicOrPartition
	}
	if err != nil {
		return fmt.Errorf("find partition %d of topic %q: %w", l.Partition, l.Topic, err)
	}
	l.id, l.leader = topic.ID, p.Leader
	return nil
}

// ReadAt reads the batch that contains offset at, and perhaps some behind it. What
// cannot be read ends at limit if its own end cannot be found out.
func (l *Log) ReadAt(ctx context.Context, at, limit int64) (*Chunk, error) {
	resp, err := l.fetch(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("fetch offset %d: %w", at, err)
	}
	switch err := kerr.ErrorForCode(resp.ErrorCode); {
	case errors.Is(err, kerr.CorruptMessage): // the broker itself cannot read it
		return &Chunk{Unreadable: []Unreadable{{at, limit, err}}, Next: limit}, nil
	case err != nil:
		return nil, fmt.Errorf("fetch offset %d: %w", at, err)
	}
	c := &Chunk{Next: at}
	raw := resp.RecordBatches
	resp.RecordBatches = nil
	for len(raw) > 0 && c.Next < limit {
		b, ok := nextBatch(raw)
		if !ok {
			if c.Next == at { // cut off by the broker, it would be behind others
				c.Unreadable = append(c.Unreadable, Unreadable{at, limit, errors.New("the header of the batch is damaged")})
				c.Next = limit
			}
			break
		}
		raw = raw[len(b):]
		if err := l.check(b); err != nil {
			end := l.unreadableEnd(c.Next, limit, b, raw)
			c.Unreadable = append(c.Unreadable, Unreadable{c.Next, end, err})
			c.Next = end
			continue
		}
		resp.RecordBatches = append(resp.RecordBatches, b...)
		c.Next = max(c.Next, batchEnd(b))
	}
	// All readable batches at once: an aborted transaction may span several.
	read, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: at, IsolationLevel: kgo.ReadCommitted(), Topic: l.Topic, Partition: l.Partition,
	}, resp, l.unpack, nil)
	if read.Err != nil {
		return nil, fmt.Errorf("read offset %d: %w", at, read.Err)
	}
	c.Records = read.Records
	return c, nil
}

// fetch requests what is stored from offset at on, from the partition's leader.
func (l *Log) fetch(ctx context.Context, at int64) (*kmsg.FetchResponseTopicPartition, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(fetchMaxWait.Milliseconds()), 1, fetchMaxPartitionBytes
	req.IsolationLevel, req.SessionEpoch = 1, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = l.Topic, l.id
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = l.Partition, at, fetchMaxPartitionBytes
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	for {
		kresp, err := l.cl.Broker(int(l.leader)).RetriableRequest(ctx, req)
		if err != nil {
			return nil, err
		}
		resp := kresp.(*kmsg.FetchResponse)
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return nil, err
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return nil, errors.New("the response has no such partition")
		}
		found := &resp.Topics[0].Partitions[0]
		if found.ErrorCode != kerr.NotLeaderForPartition.Code && found.ErrorCode != kerr.FencedLeaderEpoch.Code {
			return found, nil
		}
		select { // there is a new leader, or soon will be
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
		if err := l.locate(ctx); err != nil {
			return nil, err
		}
	}
}

// The layout of a batch: base offset (8 bytes), length of what follows (4), leader
// epoch (4), format, which is called magic (1), checksum (4), attributes (2), last
// offset less the base (4), times and producer (30), number of records (4). Older
// formats have the first two and the magic in the same places.
const (
	batchOverhead   = 12
	magicAt         = 16
	lastOffsetAt    = 23
	recordsAt       = 57
	batchHeaderSize = 61
)

// nextBatch returns the first batch of b, if b has all of it.
func nextBatch(b []byte) ([]byte, bool) {
	if len(b) < batchOverhead {
		return nil, false
	}
	length := int64(int32(binary.BigEndian.Uint32(b[8:])))
	if length <= magicAt-batchOverhead || length > int64(len(b)-batchOverhead) {
		return nil, false
	}
	return b[:batchOverhead+length], true
}

// batchEnd returns the offset after the last one of a batch, as its header has it.
func batchEnd(b []byte) int64 {
	base := int64(binary.BigEndian.Uint64(b))
	if b[magicAt] < 2 || len(b) < batchHeaderSize { // the offset is that of the last record
		return base + 1
	}
	return base + 1 + int64(int32(binary.BigEndian.Uint32(b[lastOffsetAt:])))
}

// unreadableEnd returns where a batch that cannot be read ends, which begins at
// offset from. Its header may be what is damaged.
func (l *Log) unreadableEnd(from, limit int64, b, next []byte) int64 {
	if end := batchEnd(b); end > from && end <= l.End {
		return end
	}
	if len(next) >= batchOverhead {
		if end := int64(binary.BigEndian.Uint64(next)); end > from && end <= l.End {
			return end
		}
	}
	return limit
}

// check returns why a batch cannot be read.
func (l *Log) check(b []byte) error {
	read, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{KeepControlRecords: true},
		&kmsg.FetchResponseTopicPartition{RecordBatches: b}, l.unpack, nil)
	if read.Err != nil {
		return read.Err
	}
	if b[magicAt] == 2 {
		if n := int(binary.BigEndian.Uint32(b[recordsAt:])); n != len(read.Records) {
			return fmt.Errorf("%d of %d records cannot be read", n-len(read.Records), n)
		}
	}
	return nil
}
