package replay_test

import (
	"context"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer/replay"
)

// TestLeaderlessPartition: while one partition of the dead-letter topic has no
// leader, the others can be read, and replayed if they are selected.
func TestLeaderlessPartition(t *testing.T) {
	const bad = 2
	e := newEnv(t)
	e.feed(400)
	e.cluster.ControlKey(int16(kmsg.ListOffsets), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		req := kreq.(*kmsg.ListOffsetsRequest)
		var resp *kmsg.ListOffsetsResponse
		for _, rt := range req.Topics {
			if rt.Topic != deadTopic {
				return nil, nil, false
			}
			resp = req.ResponseKind().(*kmsg.ListOffsetsResponse)
			topic := kmsg.NewListOffsetsResponseTopic()
			topic.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				p := kmsg.NewListOffsetsResponseTopicPartition()
				p.Partition = rp.Partition
				p.Offset = 0
				if rp.Timestamp == -1 { // the end
					p.Offset = 100
				}
				if rp.Partition == bad {
					p.ErrorCode, p.Offset = kerr.OffsetNotAvailable.Code, -1
				}
				topic.Partitions = append(topic.Partitions, p)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
	ctx := t.Context()
	s, err := replay.OpenSnapshot(ctx, e.topics())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	newest, selected, err := replay.Newest(ctx, s, replay.Filter{Limit: 1000}, func(r *replay.Record) int32 { return r.Partition })
	if !errors.Is(err, kerr.OffsetNotAvailable) || len(newest) != 300 || selected != 300 {
		t.Errorf("%d of %d read, %v; want 300, %v", len(newest), selected, err, kerr.OffsetNotAvailable)
	}
	if _, err := s.Find(ctx, replay.Position{Partition: bad}); !errors.Is(err, kerr.OffsetNotAvailable) {
		t.Errorf("a record of the partition: %v", err)
	}
	j := e.job()
	j.Partitions = []int32{0, 1, 3}
	if r := e.run(j); r.Completed != 300 {
		t.Errorf("%d replayed, want 300", r.Completed)
	}
	canceled, cancel := context.WithCancel(ctx)
	result, err := replay.Run(canceled, e.job(), &stopAtRetry{watch{t: t}, cancel})
	if err == nil || result.Completed != 0 || result.Plan != nil {
		t.Errorf("all partitions: %d completed, %v; want to wait for the partition", result.Completed, err)
	}
}

// stopAtRetry ends a run that would try again.
type stopAtRetry struct {
	watch
	cancel context.CancelFunc
}

func (o *stopAtRetry) Retrying(error) { o.cancel() }
