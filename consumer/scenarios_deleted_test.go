package consumer_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
)

func TestInputTopicDeletedWithLookupsInFlight(t *testing.T) {
	inRealTime(t, fetchtest.Config{}, deletedInFlight)
}

func TestKafkaInputTopicDeletedWithLookupsInFlight(t *testing.T) {
	onKafka(t, fetchtest.Config{}, deletedInFlight)
}

// deletedInFlight deletes one of two input topics while its events are looked up. The
// offsets of these cannot be committed any more (UNKNOWN_TOPIC_ID). The events of the
// other topic continue.
func deletedInFlight(t *testing.T, e *env) {
	other := e.In + "-other"
	e.CreateTopics(partitions, other)
	i := e.Start("a", func(c *consumer.Config) {
		c.InputTopics = []string{e.In, other}
		c.Retry.LookupDelay = 500 * time.Millisecond
	})
	e.FeedCalls("before-", 2*partitions)
	e.Await(30 * time.Second)
	for n := range 5 {
		e.feedTopic(other, fmt.Sprint("gone-", n, "-"), partitions)
		e.FeedCalls(fmt.Sprint("with-", n, "-"), partitions)
	}
	if _, err := e.Admin().DeleteTopic(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		e.FeedCalls(fmt.Sprint("during-", n, "-"), partitions)
		<-time.After(500 * time.Millisecond)
	}
	awaitNotReady(e, i, string(consumer.TopicUnavailable), other)
	// The commit that fails costs a session, and the next one waits for its share.
	e.awaitWithin(shareDelay+maxHealthyLatency, func(_ audit.Source, event audit.Expect) bool {
		return strings.HasPrefix(event.CallID, "with-") || strings.HasPrefix(event.CallID, "during-")
	})
	t.Logf("%v sessions restarted", i.Metric("enricher_kafka_session_restarts_total"))
}
