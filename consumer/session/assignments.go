package session

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/consumer/progress"
)

// HeldPartitions returns the partitions that the client holds: those with a
// committed offset, and those of which a record was polled.
func (s *Session) HeldPartitions() map[string]map[int32]kgo.EpochOffset {
	return s.cl.CommittedOffsets()
}

// TakeAssignments returns the partitions assigned since the last call, with
// what the group has committed for them. Call HeldPartitions first: a partition
// that is missing there and is returned here was lost and assigned again.
func (s *Session) TakeAssignments() []Offset { return s.assigned.Take() }

// Reassigned reports whether a new assignment of the partition waits in
// TakeAssignments.
func (s *Session) Reassigned(topic string, partition int32) bool {
	return s.assigned.Contains(func(o Offset) bool { return o.Topic == topic && o.Partition == partition })
}

func (s *Session) onOffsetsFetched(ctx context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	select {
	case <-s.loaded: // the client joins the group while Open is at work
	case <-ctx.Done():
		return ctx.Err()
	}
	s.resetPartitions = make(map[string][]int32)
	EachOffset(resp, s.topicName, func(o Offset, code int16) {
		if code != 0 { // the client repeats the request
			return
		}
		if progress.CommittedForOldTopic(s.topicIDs[o.Topic], o.Metadata) {
			s.cfg.Log.Warn("topic was re-created, ignoring committed offset",
				zap.String("topic", o.Topic), zap.Int32("partition", o.Partition), zap.Int64("committed", o.Offset))
			o.Offset, o.Metadata = -1, ""
			s.resetPartitions[o.Topic] = append(s.resetPartitions[o.Topic], o.Partition)
		}
		s.assigned.Put(o)
	})
	return nil
}

// adjustOffsets is called after onOffsetsFetched, with the same offsets.
func (s *Session) adjustOffsets(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	for topic, ps := range s.resetPartitions {
		for _, p := range ps {
			if _, ok := offsets[topic][p]; ok {
				offsets[topic][p] = kgo.NewOffset().AtStart()
			}
		}
	}
	return offsets, nil
}

func (s *Session) topicName(id [16]byte) string {
	for t, i := range s.topicIDs {
		if i == id {
			return t
		}
	}
	return ""
}
