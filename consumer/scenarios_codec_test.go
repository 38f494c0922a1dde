package consumer_test

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/harness"
	"enricher/test/kafkaproxy"
)

// refuseCompressed has a topic refuse compressed batches, and counts such requests.
func refuseCompressed(e *env, i *harness.Instance, topic string, refusal *kerr.Error) *atomic.Int64 {
	e.T.Helper()
	topics, err := e.Admin().ListTopics(e.T.Context(), topic)
	if err != nil {
		e.T.Fatal(err)
	}
	var refused atomic.Int64
	i.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
		if k != kmsg.Produce {
			return nil
		}
		return &kafkaproxy.Action{Respond: func(req kmsg.Request, resp kmsg.Response) {
			type partition struct {
				topic string
				id    [16]byte
				n     int32
			}
			compressed, hit := make(map[partition]bool), false
			for _, t := range req.(*kmsg.ProduceRequest).Topics {
				for _, p := range t.Partitions {
					const attributes, codec = 22, 7 // their last byte in a batch, and its bits
					compressed[partition{t.Topic, t.TopicID, p.Partition}] = p.Records[attributes]&codec != 0
				}
			}
			for _, t := range resp.(*kmsg.ProduceResponse).Topics {
				for m, p := range t.Partitions {
					if (t.Topic == topic || t.TopicID == topics[topic].ID) && compressed[partition{t.Topic, t.TopicID, p.Partition}] {
						t.Partitions[m].ErrorCode = refusal.Code
						hit = true
					}
				}
			}
			if hit {
				refused.Add(1)
			}
		}}
	})
	return &refused
}

// TestUnsupportedCompression: a topic refuses the compression that is configured. The
// events whose outcomes go there wait and are named, with few requests whatever their
// number, and the outcomes of the other topic are written as before. With another
// compression everything is completed.
func TestUnsupportedCompression(t *testing.T) {
	for _, refusal := range []*kerr.Error{kerr.UnsupportedCompressionType, kerr.UnsupportedForMessageFormat} {
		for _, healthy := range []string{"dead letters", "enriched"} {
			t.Run(refusal.Message+"/"+healthy+" are accepted", func(t *testing.T) {
				inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
					topic := e.Enriched
					if healthy == "enriched" {
						topic = e.Dead
					}
					i := e.Start("a")
					refused := refuseCompressed(e, i, topic, refusal)
					for n := range 6 {
						e.FeedCalls("c"+strconv.Itoa(n)+"-", 10*partitions)
						for p := range int32(partitions) {
							e.FeedDead(p, []byte(strings.Repeat("junk ", 100)), schemas.Malformed)
						}
						<-time.After(5 * time.Second)
					}
					<-time.After(30 * time.Second)
					accepted := 0
					for _, r := range e.Outputs() {
						if r.Topic == topic {
							t.Fatal("a record was accepted: this test shows nothing")
						}
						accepted++
					}
					if accepted == 0 {
						t.Error("no outcome of the healthy topic was written")
					}
					if why := i.NotReady(); !strings.Contains(why, string(consumer.OutputRefused)) || !strings.Contains(why, refusal.Message) {
						t.Errorf("readiness: %q", why)
					}
					if n := refused.Load(); n == 0 || n > 150 {
						t.Errorf("%d requests were refused, want few", n)
					}
					if n := i.Metric("enricher_kafka_session_restarts_total"); n != 0 {
						t.Errorf("%v session restarts", n)
					}
					i.Drain()
					e.Start("a", func(c *consumer.Config) {
						opts := c.Kafka
						c.Kafka = func() []kgo.Opt { return append(opts(), kgo.ProducerBatchCompression(kgo.NoCompression())) }
					})
					e.Await(2 * time.Minute)
					e.Check()
				})
			})
		}
	}
}
