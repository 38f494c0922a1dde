package consumer_test

import (
	"strconv"
	"testing"
	"time"

	"enricher/consumer"
	"enricher/consumer/session"
	"enricher/fetch/fetchtest"
)

func TestAddedPartitions(t *testing.T)      { inVirtualTime(t, fetchtest.Config{}, addedPartitions) }
func TestKafkaAddedPartitions(t *testing.T) { onKafka(t, fetchtest.Config{}, addedPartitions) }

// addedPartitions are consumed within seconds and from their beginning, also with
// auto-offset-reset latest.
func addedPartitions(t *testing.T, e *env) {
	const added = 4
	latest := func(c *consumer.Config) {
		quick(c)
		c.AutoOffsetReset = consumer.Latest
	}
	e.Start("a", latest)
	e.Start("b", latest)
	e.FeedCalls("before-", partitions)
	e.Await(time.Minute)
	if _, err := e.Admin().CreatePartitions(t.Context(), added, e.In); err != nil {
		t.Fatal(err)
	}
	e.AwaitTopic(e.In, partitions+added)
	<-time.After(time.Second) // the feeder asks for the new partitions
	for p := int32(partitions); p < partitions+added; p++ {
		e.FeedCall(p, "early-"+strconv.Itoa(int(p)))
	}
	// Five seconds until an instance looks at the topic, and until the group has
	// joined again; then the wait for a share after the partitions became more.
	e.Await(10*time.Second + shareDelay + session.DefaultSessionTimeout)
	e.Check()
}
