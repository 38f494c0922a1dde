package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/consumer"
	"enricher/consumer/session"
	"enricher/fetch/fetchtest"
	"enricher/test/kafka"
)

// The tests named TestKafka run on a real Kafka. They take minutes, so they are
// asked for: KAFKA_TESTS=1 starts brokers, KAFKA_BROKERS names some that are
// there already; those that need a broker of their own are skipped then. A broker
// of that kind needs group.min.session.timeout.ms=1000 and sharedProperties.

// sharedKafka is the broker of all tests that do not need one of their own.
// TestMain ends it.
var sharedKafka struct {
	start   sync.Once
	cluster *kafka.Cluster
	err     error
}

// A transaction past its time-out is ended within the second, not within ten.
var sharedProperties = map[string]string{"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}

// onKafka makes a world on a real Kafka, with names of its own.
func onKafka(t *testing.T, api fetchtest.Config) *world {
	t.Helper()
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		wantKafka(t)
		sharedKafka.start.Do(func() {
			sharedKafka.cluster, sharedKafka.err = kafka.Start(context.Background(), kafka.Config{Properties: sharedProperties})
		})
		mustStart(t, sharedKafka.err)
		brokers = strings.Join(sharedKafka.cluster.Brokers, ",")
	}
	return kafkaWorld(t, api, strings.Split(brokers, ","))
}

// onOwnKafka makes a world on a broker that the test may end or that has
// further properties.
func onOwnKafka(t *testing.T, api fetchtest.Config, cfg kafka.Config) (*world, *kafka.Cluster) {
	t.Helper()
	wantKafka(t)
	c, err := kafka.Start(t.Context(), cfg)
	mustStart(t, err)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return kafkaWorld(t, api, c.Brokers), c
}

func wantKafka(t *testing.T) {
	t.Helper()
	if os.Getenv("KAFKA_TESTS") == "" {
		t.Skip("not on a real Kafka: set KAFKA_TESTS=1 (needs java and mvn), or KAFKA_BROKERS for most of these tests")
	}
}

func mustStart(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, kafka.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func kafkaWorld(t *testing.T, api fetchtest.Config, brokers []string) *world {
	t.Helper()
	w := joinWorld(t, api, new(net.Dialer).DialContext, brokers)
	id := "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	w.names = names{In: "calls" + id, Out: "enriched" + id, Dead: "dead" + id, Group: "g" + id}
	w.settings, w.real = brief, true
	w.create(partitions, w.In)
	w.create(partitions, w.Out)
	w.create(partitions, w.Dead)
	t.Cleanup(func() {
		_, _ = kadm.NewClient(w.feeder).DeleteTopics(context.Background(), w.In, w.Out, w.Dead) // the test may have ended the broker
	})
	return w
}

// create creates a topic and waits until it can be used.
func (w *world) create(partitions int, topic string) {
	w.t.Helper()
	if _, err := kadm.NewClient(w.feeder).CreateTopic(context.Background(), int32(partitions), -1, nil, topic); err != nil {
		w.t.Fatal(err)
	}
	w.awaitTopic(topic, partitions)
}

// awaitTopic waits until so many partitions of a topic have a leader.
func (w *world) awaitTopic(topic string, partitions int) {
	w.t.Helper()
	adm := kadm.NewClient(w.feeder)
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(50 * time.Millisecond) {
		topics, err := adm.ListTopics(context.Background(), topic)
		if err != nil {
			w.t.Fatal(err)
		}
		led := 0
		for _, p := range topics[topic].Partitions {
			if p.Err == nil && p.Leader >= 0 {
				led++
			}
		}
		if led == partitions {
			w.feeder.ForceMetadataRefresh()
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("topic %s: %d of %d partitions have a leader", topic, led, partitions)
		}
	}
}

// brief shortens what instances wait for on a real Kafka.
func brief(c *consumer.Config) {
	quick(c)
	c.Retry.NotFoundWindow, c.Retry.RetryWindow = 4*time.Second, 4*time.Second
}

// TestKafkaScenarios: what holds on the embedded broker holds on a real one.
func TestKafkaScenarios(t *testing.T) {
	for _, s := range slices.Concat(inRealTime, []scenario{
		{"every kind of event", fetchtest.Config{Rate: 200}, everyKindOfEvent, false},
		{"outage", fetchtest.Config{}, outage("502", fetchtest.BadGateway()), false},
		{"rate limited", fetchtest.Config{}, outage("too many requests", fetchtest.TooManyRequests("7")), false},
		{"wrong key", fetchtest.Config{}, wrongKey, false},
		{"everything missing", fetchtest.Config{}, everythingMissing, false},
		{"broker away", fetchtest.Config{}, brokerAway, false},
		{"drain", slowAPI, drain, false},
		{"drain budget", lateAPI, drainBudget, false},
		{"oversize", fetchtest.Config{}, oversize, false},
		{"newer metadata", fetchtest.Config{}, newerMetadata, false},
		{"foreign metadata", fetchtest.Config{}, foreignMetadata, false},
		{"retention", fetchtest.Config{}, retention, false},
		{"start fail", fetchtest.Config{}, startFail, false},
	}) {
		t.Run(s.name, func(t *testing.T) {
			if !s.alone {
				t.Parallel()
			}
			s.run(t, onKafka(t, s.api))
		})
	}
}

// TestKafkaExpiredID: the broker forgets the transactional id of an instance
// that was idle; the session is rebuilt.
func TestKafkaExpiredID(t *testing.T) {
	t.Parallel()
	w, _ := onOwnKafka(t, fetchtest.Config{}, kafka.Config{Properties: map[string]string{
		"transactional.id.expiration.ms": "2000", "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
		"producer.id.expiration.ms": "2000", "producer.id.expiration.check.interval.ms": "500",
	}})
	i := w.start("a")
	adm := kadm.NewClient(w.feeder)
	id := session.TransactionalID(w.Group, "a")
	for round := range 3 {
		w.calls(fmt.Sprint("r", round, "-"), 60)
		w.await(30 * time.Second)
		for deadline := time.Now().Add(30 * time.Second); ; <-time.After(100 * time.Millisecond) {
			got, err := adm.DescribeTransactions(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if errors.Is(got[id].Err, kerr.TransactionalIDNotFound) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the id does not expire: %v", got[id])
			}
		}
	}
	w.check()
	if n := i.metric("enricher_kafka_session_restarts_total"); n != 2 {
		t.Errorf("%v sessions were rebuilt, want 2", n)
	}
}

// TestKafkaRestart: the broker is ended, in order and by kill -9, under load.
func TestKafkaRestart(t *testing.T) {
	t.Parallel()
	w, c := onOwnKafka(t, fetchtest.Config{}, kafka.Config{})
	w.start("a", quick)
	w.start("b", quick)
	feeding := make(chan struct{})
	go func() {
		defer close(feeding)
		for n := range 1500 {
			w.call(int32(n%partitions), "c"+strconv.Itoa(n))
			<-time.After(10 * time.Millisecond)
		}
	}()
	for _, end := range []func(int) error{c.Shutdown, c.Kill} {
		<-time.After(4 * time.Second)
		if err := end(0); err != nil {
			t.Error(err)
		}
		<-time.After(time.Second)
		if err := c.Run(0); err != nil {
			t.Error(err)
		}
		if err := c.Await(context.Background(), 1); err != nil {
			t.Error(err)
		}
	}
	<-feeding
	w.await(time.Minute)
	w.check()
}

// TestKafkaLogLost: a broker comes back without the input topic's log, and the
// member that was in the middle of it stays where it is.
func TestKafkaLogLost(t *testing.T) {
	t.Parallel()
	w, c := onOwnKafka(t, fetchtest.Config{}, kafka.Config{})
	i := w.start("a")
	w.calls("c", 5*partitions)
	w.await(time.Minute)
	w.check()
	if err := c.Shutdown(0); err != nil {
		t.Fatal(err)
	}
	for p := range partitions {
		if err := os.RemoveAll(filepath.Join(c.Data(0), w.In+"-"+strconv.Itoa(p))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(c.Run(0), c.Await(t.Context(), 1)); err != nil {
		t.Fatal(err)
	}
	w.awaitTopic(w.In, partitions)
	n := w.anew(2 * partitions)
	n.await()
	i.end()
	n.check()
	if lost := i.metric("enricher_truncated_partitions_total"); lost != partitions {
		t.Errorf("%v partitions found truncated, want %d", lost, partitions)
	}
}
