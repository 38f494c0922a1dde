package producer

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Ends asks for the end of every partition of the input topics, as a
// read_committed reader sees it.
func (s *Session) Ends(ctx context.Context) (map[string]map[int32]int64, error) {
	listed, err := kadm.NewClient(s.cl).ListCommittedOffsets(ctx, s.cfg.Topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list ends of the input topics: %w", err)
	}
	ends := make(map[string]map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) {
		if ends[o.Topic] == nil {
			ends[o.Topic] = make(map[int32]int64)
		}
		ends[o.Topic][o.Partition] = o.Offset
	})
	return ends, nil
}

// ReadBack asks the broker what the group has committed for the partitions
// given, waiting up to timeout for transactions that are being ended and for
// brokers that are away.
func (s *Session) ReadBack(parts map[string][]int32, timeout time.Duration) ([]Offset, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for {
		got, err := s.readBack(ctx, parts)
		if err == nil || ctx.Err() != nil || !kerr.IsRetriable(err) {
			return got, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(readBackPause):
		}
	}
}

// readBackPause is the pause between two tries of ReadBack.
const readBackPause = 50 * time.Millisecond

func (s *Session) readBack(ctx context.Context, parts map[string][]int32) ([]Offset, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = s.cfg.Group
	req.Group = s.cfg.Group
	for topic, ps := range parts {
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic, t.TopicID, t.Partitions = topic, s.topicIDs[topic], ps
		g.Topics = append(g.Topics, t)
	}
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(ctx, s.cl)
	if err != nil {
		return nil, err
	}
	if len(resp.Groups) != 1 {
		return nil, fmt.Errorf("asked for the offsets of one group, got %d", len(resp.Groups))
	}
	if err := kerr.ErrorForCode(resp.Groups[0].ErrorCode); err != nil {
		return nil, err
	}
	var got []Offset
	for _, t := range resp.Groups[0].Topics {
		topic := t.Topic
		if topic == "" {
			topic = s.topicName(t.TopicID)
		}
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("%s partition %d: %w", topic, p.Partition, err)
			}
			o := Offset{Topic: topic, Partition: p.Partition, Offset: p.Offset}
			if p.Metadata != nil {
				o.Metadata = *p.Metadata
			}
			got = append(got, o)
		}
	}
	return got, nil
}
