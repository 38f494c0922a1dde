package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/test/kafkaproxy"
)

func TestLogShorterThanCommitted(t *testing.T) {
	inRealTime(t, fetchtest.Config{}, logShorterThanCommitted)
}

func TestKafkaLogShorterThanCommitted(t *testing.T) {
	onKafka(t, fetchtest.Config{}, logShorterThanCommitted)
}

// logShorterThanCommitted makes the Kafka client start again at 0 without an error.
// The records there are new events. The first transaction aborts, after which the
// committed offset is still that of the old log.
func logShorterThanCommitted(t *testing.T, e *env) {
	e.FeedCalls("c", 3*partitions)
	e.setOffsets(1000, -1, consumer.EveryOther(e.topicID(), 1000, 1002, 20))
	i := e.Start("a", quick, func(c *consumer.Config) { e.failCommits(c, 1) })
	e.Await(time.Minute)
	e.Check()
	if n := i.Metric("enricher_truncated_partitions_total"); n != partitions {
		t.Errorf("%v partitions found truncated, want %d", n, partitions)
	}
}

// failCommits makes an instance's first n commits of offsets fail, so that its
// transactions abort.
func (e *env) failCommits(c *consumer.Config, n int64) {
	p := kafkaproxy.New(e.Dial)
	var failed atomic.Int64
	p.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
		if k != kmsg.TxnOffsetCommit || failed.Add(1) > n {
			return nil
		}
		return failCommit(nil)
	})
	c.Kafka = func() []kgo.Opt { return append(e.Opts(), kgo.Dialer(p.DialContext)) }
}

// failCommit makes a commit of offsets fail, and sets done if it is not nil.
func failCommit(done *atomic.Bool) *kafkaproxy.Action {
	return &kafkaproxy.Action{Drop: true, Respond: func(req kmsg.Request, resp kmsg.Response) {
		r := resp.(*kmsg.TxnOffsetCommitResponse)
		for _, t := range req.(*kmsg.TxnOffsetCommitRequest).Topics {
			rt := kmsg.NewTxnOffsetCommitResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.IllegalGeneration.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			r.Topics = append(r.Topics, rt)
		}
		if done != nil {
			done.Store(true)
		}
	}}
}

func TestTopicRecreated(t *testing.T)      { inRealTime(t, fetchtest.Config{}, topicRecreated(120)) }
func TestKafkaTopicRecreated(t *testing.T) { onKafka(t, fetchtest.Config{}, topicRecreated(120)) }

func TestTopicRecreatedShorter(t *testing.T)      { inRealTime(t, fetchtest.Config{}, topicRecreated(24)) }
func TestKafkaTopicRecreatedShorter(t *testing.T) { onKafka(t, fetchtest.Config{}, topicRecreated(24)) }

// topicRecreated with new events, after 60 in the old topic. Progress in the old
// topic does not apply to the new one. It runs in real time because the Kafka
// client requests a deleted topic without a pause.
func topicRecreated(events int) func(*testing.T, *env) {
	return func(t *testing.T, e *env) {
		i := e.Start("a", quick)
		e.FeedCalls("c", 60)
		e.Await(time.Minute)
		e.Check()
		old := e.topicID()
		if _, err := e.Admin().DeleteTopic(context.Background(), e.In); err != nil {
			t.Fatal(err)
		}
		e.Eventually(20*time.Second, func() error {
			_, err := e.Admin().CreateTopic(context.Background(), partitions, -1, nil, e.In)
			return err // that the topic exists, until the old one is gone
		})
		e.Eventually(20*time.Second, func() error {
			if id := e.topicID(); id == old || id == [16]byte{} {
				return errors.New("brokers still have the old topic")
			}
			return nil
		})
		log := e.feedRecreatedLog(events)
		log.await()
		i.Drain()
		log.check()
	}
}

// recreatedLog is an input topic whose log began again at 0. The ledger cannot hold
// its events, because the old log had others at the same offsets.
type recreatedLog struct {
	*env
	events   int
	outcomes map[string]int // by CallId
}

func (e *env) feedRecreatedLog(events int) *recreatedLog {
	e.T.Helper()
	// A client of its own: the other one produces to the old log.
	feeder := e.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1))
	for n := range events {
		r := &kgo.Record{Topic: e.In, Partition: int32(n % partitions), Value: audittest.EndCall("new-"+strconv.Itoa(n), time.Now())}
		if err := feeder.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			e.T.Fatal(err)
		}
	}
	return &recreatedLog{env: e, events: events, outcomes: map[string]int{}}
}

// await waits until every event has an outcome.
func (l *recreatedLog) await() {
	l.T.Helper()
	l.Eventually(40*time.Second, func() error {
		clear(l.outcomes)
		for _, r := range l.Outputs() {
			if strings.HasPrefix(string(r.Key), "new-") {
				l.outcomes[string(r.Key)]++
			}
		}
		if len(l.outcomes) < l.events {
			return fmt.Errorf("outcomes of %d of the new log's %d events", len(l.outcomes), l.events)
		}
		return nil
	})
}

// check fails the test unless every event has one outcome.
func (l *recreatedLog) check() {
	l.T.Helper()
	for key, n := range l.outcomes {
		if n != 1 {
			l.T.Errorf("%s has %d outcomes", key, n)
		}
	}
	l.CheckOffsets()
}

func TestOffsetsOfDeletedTopic(t *testing.T) {
	inRealTime(t, fetchtest.Config{}, offsetsOfDeletedTopic)
}

func TestKafkaOffsetsOfDeletedTopic(t *testing.T) {
	onKafka(t, fetchtest.Config{}, offsetsOfDeletedTopic)
}

// offsetsOfDeletedTopic of the same name, and the events done ahead of them, do not
// apply to the new topic.
func offsetsOfDeletedTopic(_ *testing.T, e *env) {
	e.FeedCalls("c", 5*partitions)
	deleted := e.topicID()
	deleted[0]++
	e.setOffsets(2, 0, consumer.EveryOther(deleted, 2, 3, 1))
	e.Start("a", quick)
	e.Await(time.Minute)
	e.Check()
}

func TestEventsDeletedByRetention(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, eventsDeletedByRetention)
}

func TestKafkaEventsDeletedByRetention(t *testing.T) {
	onKafka(t, fetchtest.Config{}, eventsDeletedByRetention)
}

// eventsDeletedByRetention before they were read are counted and logged. The
// instance continues with the others.
func eventsDeletedByRetention(t *testing.T, e *env) {
	i := e.Start("a")
	e.FeedCalls("c", partitions)
	e.Await(time.Minute)
	i.Drain()
	for range 10 {
		e.Produce(&kgo.Record{Topic: e.In, Partition: 2, Value: audittest.EndCall("deleted", time.Now())})
	}
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: e.In, Partition: 2, At: 11})
	if _, err := e.Admin().DeleteRecords(context.Background(), before); err != nil {
		t.Fatal(err)
	}
	e.FeedCalls("d", 3*partitions)
	i = e.Start("a")
	e.Await(time.Minute)
	e.Check()
	if got := i.Metric("enricher_events_deleted_by_retention_total"); got != 10 {
		t.Errorf("%v events deleted by retention, want 10", got)
	}
	if n := i.Logs.FilterMessageSnippet("deleted by retention").Len(); n != 1 {
		t.Errorf("%d log lines about it", n)
	}
}
