package consumer_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
	"enricher/test/harness"
)

// TestReadinessNamesTheKafkaError: an instance that cannot work says what the
// brokers say, not only what it lacks.
func TestReadinessNamesTheKafkaError(t *testing.T) {
	for name, c := range map[string]struct {
		before       func(*env)
		change       func(*consumer.Config)
		after        func(*harness.Instance)
		reason, kind string
	}{
		"unreachable": {
			after:  func(i *harness.Instance) { i.Proxy.SetOffline(true) },
			reason: "the proxy is offline", kind: "connection",
		},
		"password": {
			change: func(c *consumer.Config) {
				kafka := c.Kafka
				c.Kafka = func() []kgo.Opt { return append(kafka(), kgo.SASL(badLogin{kerr.SaslAuthenticationFailed})) }
			},
			reason: "SASL_AUTHENTICATION_FAILED", kind: "authentication",
		},
		"credential": {
			change: func(c *consumer.Config) {
				kafka := c.Kafka
				c.Kafka = func() []kgo.Opt {
					return append(kafka(), kgo.SASL(badLogin{fmt.Errorf("%w: no token", consumer.ErrCredential)}))
				}
			},
			reason: "no token", kind: "authentication",
		},
		"assignor": {
			before: func(e *env) {
				other := e.NewClient(kgo.ConsumerGroup(e.Group), kgo.ConsumeTopics(e.In), kgo.Balancers(kgo.RangeBalancer()))
				other.PollFetches(context.Background())
			},
			reason: "INCONSISTENT_GROUP_PROTOCOL", kind: "group",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inRealTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				e.FeedCalls("c", 1)
				if c.before != nil {
					c.before(e)
				}
				changes := []func(*consumer.Config){quick}
				if c.change != nil {
					changes = append(changes, c.change)
				}
				i := e.Start("a", changes...)
				if c.after != nil {
					e.Await(time.Minute)
					c.after(i)
				}
				e.Eventually(30*time.Second, func() error {
					if reason := i.NotReady(); !strings.Contains(reason, c.reason) {
						return fmt.Errorf("not ready for %q, want %q", reason, c.reason)
					}
					return nil
				})
				if i.Metric("enricher_kafka_errors_total", c.kind) == 0 {
					t.Errorf("no error of kind %s counted", c.kind)
				}
			})
		})
	}
}

// badLogin is SASL that fails.
type badLogin struct{ err error }

func (badLogin) Name() string { return "PLAIN" }

func (l badLogin) Authenticate(context.Context, string) (sasl.Session, []byte, error) {
	return nil, nil, l.err
}
