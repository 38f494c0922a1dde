package harness

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"enricher/test/kafka"
)

// Tests on a real Kafka take minutes, so they run on request: KAFKA_TESTS=1 starts
// brokers, KAFKA_BROKERS names running ones, and skips tests that need a broker of
// their own. A running broker needs group.min.session.timeout.ms=1000 and
// sharedProperties.

// sharedProperties make the broker end a transaction within a second of its
// timeout; by default it looks every ten seconds.
var sharedProperties = map[string]string{"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}

// shared is the Kafka of all tests that do not need one of their own. Main stops
// it.
var shared struct {
	start   sync.Once
	cluster *kafka.Cluster
	err     error
}

// SharedKafka connects to the real Kafka that tests share, and skips the test
// without one. Tests use topics of their own.
func SharedKafka(t testing.TB) *Broker {
	t.Helper()
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		return Connect(t, strings.Split(brokers, ",")...)
	}
	WantKafka(t)
	shared.start.Do(func() {
		shared.cluster, shared.err = kafka.Start(context.Background(), kafka.Config{Properties: sharedProperties})
	})
	mustStart(t, shared.err)
	return Connect(t, shared.cluster.Brokers...)
}

// OwnKafka starts a real Kafka for one test, which may stop it, or skips the test.
func OwnKafka(t testing.TB, cfg kafka.Config) (*Broker, *kafka.Cluster) {
	t.Helper()
	WantKafka(t)
	c, err := kafka.Start(t.Context(), cfg)
	mustStart(t, err)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return Connect(t, c.Brokers...), c
}

// WantKafka skips a test that is for a real Kafka, or for what its tests install, unless it
// is asked for.
func WantKafka(t testing.TB) {
	t.Helper()
	if os.Getenv("KAFKA_TESTS") == "" {
		t.Skip("not on a real Kafka: set KAFKA_TESTS=1 (needs java and mvn), or KAFKA_BROKERS for most of these tests")
	}
}

func mustStart(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, kafka.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func stopSharedKafka() error {
	if shared.cluster == nil {
		return nil
	}
	return shared.cluster.Stop()
}
