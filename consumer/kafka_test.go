package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/consumer"
	"enricher/consumer/session"
	"enricher/test/kafka"
)

// TestKafkaTransactionalIDExpires while an instance is idle. Its session is restarted.
func TestKafkaTransactionalIDExpires(t *testing.T) {
	t.Parallel()
	e, _ := ownKafkaEnv(t, kafka.Config{Properties: map[string]string{
		"transactional.id.expiration.ms": "10000", "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
		"producer.id.expiration.ms": "10000", "producer.id.expiration.check.interval.ms": "500",
	}})
	// Without a limit, a new session has its share at once, and uses its id well within
	// the 10 s after which that expires again.
	i := e.Start("a", func(c *consumer.Config) { c.APIRate = 0 })
	id := session.TransactionalID(e.Group, "a")
	for round := range 3 {
		e.FeedCalls(fmt.Sprint("r", round, "-"), 60)
		e.Await(30 * time.Second)
		e.Eventually(30*time.Second, func() error {
			got, err := e.Admin().DescribeTransactions(t.Context(), id)
			if err == nil && !errors.Is(got[id].Err, kerr.TransactionalIDNotFound) {
				return fmt.Errorf("the id has not expired: %v", got[id])
			}
			return err
		})
	}
	e.Check()
	if n := i.Metric("enricher_kafka_session_restarts_total"); n != 2 {
		t.Errorf("%v session restarts, want 2", n)
	}
}

// TestKafkaBrokerRestarts under load, after a shutdown and after kill -9.
func TestKafkaBrokerRestarts(t *testing.T) {
	t.Parallel()
	e, c := ownKafkaEnv(t, kafka.Config{})
	e.Start("a", quick)
	e.Start("b", quick)
	feeding := make(chan struct{})
	go func() {
		defer close(feeding)
		for n := range 1500 {
			e.FeedCall(int32(n%partitions), "c"+strconv.Itoa(n))
			<-time.After(10 * time.Millisecond)
		}
	}()
	for _, stop := range []func(int) error{c.Shutdown, c.Kill} {
		<-time.After(4 * time.Second)
		if err := stop(0); err != nil {
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
	e.Await(time.Minute)
	e.Check()
}

// TestKafkaLogLost restarts the broker without the input topic's log, in the middle
// of which the instance was.
func TestKafkaLogLost(t *testing.T) {
	t.Parallel()
	e, c := ownKafkaEnv(t, kafka.Config{})
	i := e.Start("a")
	e.FeedCalls("c", 5*partitions)
	e.Await(time.Minute)
	e.Check()
	if err := c.Shutdown(0); err != nil {
		t.Fatal(err)
	}
	for p := range partitions {
		if err := os.RemoveAll(filepath.Join(c.Data(0), e.In+"-"+strconv.Itoa(p))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(c.Run(0), c.Await(t.Context(), 1)); err != nil {
		t.Fatal(err)
	}
	e.AwaitTopic(e.In, partitions)
	log := e.feedRecreatedLog(2 * partitions)
	log.await()
	i.Drain()
	log.check()
	if lost := i.Metric("enricher_truncated_partitions_total"); lost != partitions {
		t.Errorf("%v partitions found truncated, want %d", lost, partitions)
	}
}
