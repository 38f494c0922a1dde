package replay_test

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer/replay"
)

// TestRefusedEventsStayOpen replays to a topic that refuses the batches with three
// of 1,000 events. These are named and stay open; the others are replayed, without
// reading the journal again.
func TestRefusedEventsStayOpen(t *testing.T) {
	for _, refusal := range []*kerr.Error{kerr.InvalidRecord, kerr.MessageTooLarge, kerr.PolicyViolation} {
		t.Run(refusal.Message, func(t *testing.T) {
			e := newEnv(t)
			e.feed(1000)
			bad := map[int]bool{3: true, 499: true, 998: true}
			var inits, produces atomic.Int32
			e.cluster.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
				e.cluster.KeepControl()
				inits.Add(1)
				return nil, nil, false
			})
			e.cluster.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
				e.cluster.KeepControl()
				produces.Add(1)
				req := kreq.(*kmsg.ProduceRequest)
				resp := req.ResponseKind().(*kmsg.ProduceResponse)
				refused := false
				for _, rt := range req.Topics {
					t := kmsg.NewProduceResponseTopic()
					t.Topic, t.TopicID = rt.Topic, rt.TopicID
					for _, rp := range rt.Partitions {
						p := kmsg.NewProduceResponseTopicPartition()
						p.Partition = rp.Partition
						for n := range bad {
							if bytes.Contains(rp.Records, []byte(value(n))) {
								p.ErrorCode, refused = refusal.Code, true
							}
						}
						t.Partitions = append(t.Partitions, p)
					}
					resp.Topics = append(resp.Topics, t)
				}
				if !refused {
					return nil, nil, false
				}
				return resp, nil, true // the other partitions' batches belong to a transaction that is aborted
			})
			j := e.job()
			j.Kafka = append(j.Kafka, kgo.ProducerBatchCompression(kgo.NoCompression()))
			o := &watch{t: t}
			result, err := replay.Run(t.Context(), j, o)
			if err != nil || result.Completed != 997 || result.Expired != 0 {
				t.Errorf("%d completed, %d expired, %v; want 997", result.Completed, result.Expired, err)
			}
			if n := result.Plan.Skipped[replay.Refused] + result.Plan.Skipped[replay.TooLarge]; n != 3 {
				t.Errorf("%v skipped, want 3", result.Plan.Skipped)
			}
			for n := range bad {
				if err := o.refused[e.positions[n]]; !errors.Is(err, refusal) || !strings.Contains(err.Error(), inTopic) {
					t.Errorf("dead letter %v: %v, want %v", e.positions[n], err, refusal)
				}
			}
			if inits.Load() != 1 || o.retries.Load() != 0 {
				t.Errorf("the run fenced %d times and retried %d times, want 1 and 0", inits.Load(), o.retries.Load())
			}
			if produces.Load() > 100 {
				t.Errorf("%d produce requests, far more than halving takes", produces.Load())
			}
			e.checkReplayed(func(n int) bool { return !bad[n] })
		})
	}
}
