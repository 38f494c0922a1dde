package replay_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer/replay"
	"enricher/test/kafkaproxy"
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

// TestRefusedAfterLostResponse: a batch arrives, its response is lost, and when the
// client sends it again, the topic refuses it, once. With transaction.version 0 the
// broker takes the next batch of this partition for a duplicate of the first.
func TestRefusedAfterLostResponse(t *testing.T) {
	for _, version := range []int16{0, 2} {
		t.Run(fmt.Sprint("transaction.version ", version), func(t *testing.T) {
			e := newEnv(t)
			e.setTransactionVersion(version)
			e.feed(2) // their keys select the partitions 2 and 3
			proxy := kafkaproxy.New(e.dial)
			var lost *kmsg.Request
			refused := false
			e.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: inTopic, Partitions: []int32{3}, Err: kerr.InvalidRecord, Count: -1,
				When: func(r kmsg.Request) bool {
					if lost == nil {
						lost = &r
						proxy.Disconnect()
					}
					if r == *lost || refused {
						return false
					}
					refused = true
					return true
				}})
			j := e.job()
			j.Kafka = append(j.Kafka, kgo.Dialer(proxy.DialContext))
			result, err := replay.Run(t.Context(), j, &watch{t: t})
			if err != nil || result.Completed != 2 || !refused {
				t.Errorf("%d completed, %v, refused %v; want %d, nil, true", result.Completed, err, refused, 2)
			}
			e.checkReplayed(func(int) bool { return true })
		})
	}
}
