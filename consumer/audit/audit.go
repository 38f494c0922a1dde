// Package audit verifies that a run of the pipeline was exactly-once: that every
// event has exactly one outcome, and the right one.
//
// It compares a Ledger, the events that were produced with the outcome expected of
// each, with the records that a read_committed reader finds in the output topics.
// It uses nothing else: it never looks at the pipeline's logs, metrics or
// committed offsets, so a defect there cannot hide a lost or duplicated record. It
// does not wait for outcomes either: an event without one counts as lost.
package audit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// Source is the position of an event in its topic.
type Source struct {
	Topic     string
	Partition int32
	Offset    int64
}

func (s Source) String() string { return fmt.Sprintf("%s[%d]@%d", s.Topic, s.Partition, s.Offset) }

// SourceOf returns the position of the event that a record of an output topic
// belongs to. It is an error if the record's headers do not name one.
func SourceOf(r *kgo.Record) (Source, error) {
	if d, ok := producer.ParseDeadLetter(r); ok {
		return Source{d.Topic, d.Partition, d.Offset}, nil
	}
	var topic, partition, offset string
	for _, h := range r.Headers {
		switch h.Key {
		case schemas.HeaderSourceTopic:
			topic = string(h.Value)
		case schemas.HeaderSourcePartition:
			partition = string(h.Value)
		case schemas.HeaderSourceOffset:
			offset = string(h.Value)
		}
	}
	p, partitionErr := strconv.ParseInt(partition, 10, 32)
	o, offsetErr := strconv.ParseInt(offset, 10, 64)
	if topic == "" || partitionErr != nil || offsetErr != nil {
		return Source{}, fmt.Errorf("%s[%d]@%d: the headers do not name an event", r.Topic, r.Partition, r.Offset)
	}
	return Source{topic, int32(p), o}, nil
}

// Read reads topics as a read_committed reader, from their start to the end that
// they have now. opts tell the client how to reach the brokers.
func Read(ctx context.Context, opts []kgo.Opt, topics ...string) ([]*kgo.Record, error) {
	cl, err := kgo.NewClient(append(slices.Clone(opts), kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The last record of a partition can be a transaction marker.
		kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	unread, err := unreadPartitions(ctx, kadm.NewClient(cl), topics)
	if err != nil {
		return nil, err
	}
	var records []*kgo.Record
	for len(unread) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read to the end of %v (an open transaction holds readers back): %w", unread, err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			at := topicPartition{p.Topic, p.Partition}
			for _, r := range p.Records {
				if !r.Attrs.IsControl() {
					records = append(records, r)
				}
				if r.Offset >= unread[at]-1 {
					delete(unread, at)
				}
			}
		})
	}
	return records, nil
}

type topicPartition struct {
	topic     string
	partition int32
}

// unreadPartitions returns the end offset of every partition that is not empty.
func unreadPartitions(ctx context.Context, adm *kadm.Client, topics []string) (map[topicPartition]int64, error) {
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", err)
	}
	unread := make(map[topicPartition]int64)
	ends.Each(func(end kadm.ListedOffset) {
		if start, _ := starts.Lookup(end.Topic, end.Partition); start.Offset < end.Offset {
			unread[topicPartition{end.Topic, end.Partition}] = end.Offset
		}
	})
	return unread, nil
}
