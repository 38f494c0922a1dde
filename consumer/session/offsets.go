package session

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Offset is a committed offset with its metadata.
type Offset struct {
	Topic     string
	Partition int32
	Offset    int64 // −1: the group has none
	Epoch     int32 // leader epoch of the last record polled at the commit; −1: not known
	Metadata  string
}

// EachOffset calls fn for every offset of a response, with its error code.
// Brokers before Kafka 3.0 respond by topic, later ones by group; newer ones
// name topics by id, which topicName resolves.
func EachOffset(resp *kmsg.OffsetFetchResponse, topicName func(id [16]byte) string, fn func(o Offset, code int16)) {
	call := func(topic string, p int32, offset int64, epoch int32, metadata *string, code int16) {
		o := Offset{Topic: topic, Partition: p, Offset: offset, Epoch: epoch}
		if metadata != nil {
			o.Metadata = *metadata
		}
		fn(o, code)
	}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			topic := t.Topic
			if topic == "" {
				topic = topicName(t.TopicID)
			}
			for _, p := range t.Partitions {
				call(topic, p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode)
			}
		}
	}
	if len(resp.Groups) > 0 { // the client copies its group's offsets to Topics as well
		return
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			call(t.Topic, p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode)
		}
	}
}

// LogRange is where the log of a partition starts and ends.
type LogRange struct {
	Start  int64
	Stable int64 // the last stable offset: the end for a read_committed consumer
	End    int64 // the high watermark; an open transaction holds back what lies between
}

// LogRanges returns the ranges of the partitions of the input topics. An error
// means that some are missing: a partition without a leader has none.
func (s *Session) LogRanges(ctx context.Context) (map[string]map[int32]LogRange, error) {
	adm := kadm.NewClient(s.admin)
	// The end comes before the last stable offset: what is written between the two
	// requests would look like an open transaction.
	starts, err1 := adm.ListStartOffsets(ctx, s.cfg.Topics...)
	ends, err2 := adm.ListEndOffsets(ctx, s.cfg.Topics...)
	stable, err3 := adm.ListCommittedOffsets(ctx, s.cfg.Topics...)
	err := cmp.Or(err1, err2, err3, starts.Error(), ends.Error(), stable.Error())
	ranges := make(map[string]map[int32]LogRange)
	stable.Each(func(o kadm.ListedOffset) {
		start, ok1 := starts.Lookup(o.Topic, o.Partition)
		end, ok2 := ends.Lookup(o.Topic, o.Partition)
		if !ok1 || !ok2 || cmp.Or(start.Err, end.Err, o.Err) != nil {
			return
		}
		if ranges[o.Topic] == nil {
			ranges[o.Topic] = make(map[int32]LogRange)
		}
		ranges[o.Topic][o.Partition] = LogRange{Start: start.Offset, Stable: o.Offset, End: max(end.Offset, o.Offset)}
	})
	if err != nil {
		err = fmt.Errorf("list the offsets of the input topics: %w", err)
	}
	return ranges, err
}

// Timing of FetchCommitted: a broker that is being restarted or a transaction
// that is being ended takes a few seconds, and the session is over when it takes
// longer.
const (
	fetchCommittedTimeout = 8 * time.Second
	fetchCommittedPause   = 50 * time.Millisecond
)

// FetchCommitted returns what the group has committed for the partitions given.
// It waits for transactions that are being ended and for unavailable brokers.
func (s *Session) FetchCommitted(parts map[string][]int32) ([]Offset, error) {
	ctx, cancel := context.WithTimeout(s.root, fetchCommittedTimeout)
	defer cancel()
	for {
		got, err := s.fetchCommitted(ctx, parts)
		var offsets []Offset
		for _, f := range got {
			if f.err != nil {
				err = fmt.Errorf("%s partition %d: %w", f.Topic, f.Partition, f.err)
			}
			offsets = append(offsets, f.Offset)
		}
		if err == nil || ctx.Err() != nil || !kerr.IsRetriable(err) {
			return offsets, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(fetchCommittedPause):
		}
	}
}

// fetched is what the group has committed for one partition.
type fetched struct {
	Offset
	err error
}

// fetchCommitted requires stable offsets, which each partition has or has not.
func (s *Session) fetchCommitted(ctx context.Context, parts map[string][]int32) ([]fetched, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = s.cfg.Group
	req.Group = s.cfg.Group
	for topic, ps := range parts {
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic, t.TopicID, t.Partitions = topic, s.TopicID(topic), ps
		g.Topics = append(g.Topics, t)
	}
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(ctx, s.admin)
	if err != nil {
		return nil, err
	}
	if len(resp.Groups) != 1 {
		return nil, fmt.Errorf("requested the offsets of one group, got %d", len(resp.Groups))
	}
	if err := kerr.ErrorForCode(resp.Groups[0].ErrorCode); err != nil {
		return nil, err
	}
	var got []fetched
	EachOffset(resp, s.topicName, func(o Offset, code int16) {
		got = append(got, fetched{o, kerr.ErrorForCode(code)})
	})
	return got, nil
}
