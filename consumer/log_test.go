package consumer_test

import (
	"context"
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
)

// Ways in which the input topic's log can change under the group's offsets.

// topicID is that of the input topic, as a client sees it.
func (w *world) topicID(cl *kgo.Client) [16]byte {
	w.t.Helper()
	topics, err := kadm.NewClient(cl).ListTopics(context.Background(), w.In)
	if err != nil {
		w.t.Fatal(err)
	}
	return topics[w.In].ID
}

// setOffsets sets the group's offset of every partition, as an operator does.
func (w *world) setOffsets(at int64, metadata string) {
	w.t.Helper()
	var offsets kadm.Offsets
	for p := range int32(partitions) {
		offsets.Add(kadm.Offset{Topic: w.In, Partition: p, At: at, LeaderEpoch: -1, Metadata: metadata})
	}
	if err := kadm.NewClient(w.feeder).CommitAllOffsets(context.Background(), w.Group, offsets); err != nil {
		w.t.Fatal(err)
	}
}

// logShorter: the log ends long before the committed offset, which the client
// answers by starting again at 0, in silence. What stands there are new events.
// The first transaction aborts, and what the broker says is committed then is
// still that of the old log.
func logShorter(t *testing.T, w *world) {
	w.calls("c", 3*partitions)
	w.setOffsets(1000, consumer.EveryOther(w.topicID(w.feeder), 1000, 1002, 20))
	i := w.start("a", quick, func(c *consumer.Config) { w.failCommits(c, 1) })
	w.await(time.Minute)
	w.check()
	if n := i.metric("enricher_truncated_partitions_total"); n != partitions {
		t.Errorf("%v partitions found truncated, want %d", n, partitions)
	}
}

// failCommits makes an instance's first n commits of offsets fail, so that its
// transactions abort.
func (w *world) failCommits(c *consumer.Config, n int64) {
	net := &network{dial: w.dial}
	var failed atomic.Int64
	net.onRequest(func(k kmsg.Key) *fate {
		if k != kmsg.TxnOffsetCommit || failed.Add(1) > n {
			return nil
		}
		return &fate{lost: true, answer: func(req kmsg.Request, resp kmsg.Response) {
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
		}}
	})
	c.Kafka = func() []kgo.Opt { return append(w.opts(), kgo.Dialer(net.DialContext)) }
}

// topicRecreated: what was done in the old topic says nothing about the new
// one, which holds that many events. In real time: the Kafka client asks for a
// topic that is gone without a pause.
func topicRecreated(events int) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		i := w.start("a", quick)
		w.calls("c", 60)
		w.await(time.Minute)
		w.check()
		adm := kadm.NewClient(w.feeder)
		old := w.topicID(w.feeder)
		if _, err := adm.DeleteTopic(context.Background(), w.In); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); ; <-time.After(100 * time.Millisecond) {
			if _, err := adm.CreateTopic(context.Background(), partitions, -1, nil, w.In); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(err) // until the old one is gone it exists
			}
		}
		n := w.anew(events)
		if w.topicID(n.feeder) == old {
			t.Fatal("the topic is still the old one: this test shows nothing")
		}
		n.await()
		i.end()
		n.check()
	}
}

// anew is a log that begins again at 0. Its events are no ledger's: others
// stood at the same offsets.
type anew struct {
	*world
	feeder *kgo.Client
	events int
	seen   map[string]int // outcomes, by CallId
}

// anew feeds so many events to the log that took the old one's place.
func (w *world) anew(events int) *anew {
	w.t.Helper()
	feeder, err := kgo.NewClient(append(w.opts(), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(feeder.Close)
	for n := range events {
		r := &kgo.Record{Topic: w.In, Partition: int32(n % partitions), Value: callback("new-"+strconv.Itoa(n), time.Now())}
		if err := feeder.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
	}
	return &anew{world: w, feeder: feeder, events: events, seen: map[string]int{}}
}

// await waits until every event has an outcome.
func (a *anew) await() {
	a.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); len(a.seen) < a.events; <-time.After(300 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Fatalf("outcomes of %d of the new log's %d events", len(a.seen), a.events)
		}
		clear(a.seen)
		for _, r := range a.outputs() {
			if strings.HasPrefix(string(r.Key), "new-") {
				a.seen[string(r.Key)]++
			}
		}
	}
}

func (a *anew) check() {
	a.t.Helper()
	for key, n := range a.seen {
		if n != 1 {
			a.t.Errorf("%s has %d outcomes", key, n)
		}
	}
	a.checkOffsets()
}

// offsetsOfAnother: the committed offsets, and what is done ahead of them, are
// those of a topic of the same name that is no more.
func offsetsOfAnother(_ *testing.T, w *world) {
	w.calls("c", 5*partitions)
	another := w.topicID(w.feeder)
	another[0]++
	w.setOffsets(2, consumer.EveryOther(another, 2, 3, 1))
	w.start("a", quick)
	w.await(time.Minute)
	w.check()
}

// retention: events that were deleted before anybody handled them are counted
// and told, and the rest goes on.
func retention(t *testing.T, w *world) {
	i := w.start("a")
	w.calls("c", partitions)
	w.await(time.Minute)
	i.end()
	for range 10 {
		r := &kgo.Record{Topic: w.In, Partition: 2, Value: callback("gone", time.Now())}
		if err := w.feeder.ProduceSync(context.Background(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: w.In, Partition: 2, At: 11})
	if _, err := kadm.NewClient(w.feeder).DeleteRecords(context.Background(), before); err != nil {
		t.Fatal(err)
	}
	w.calls("d", 3*partitions)
	i = w.start("a")
	w.await(time.Minute)
	w.check()
	if got := i.metric("enricher_events_deleted_by_retention_total"); got != 10 {
		t.Errorf("%v events lost, want 10", got)
	}
	if n := i.logs.FilterMessageSnippet("deleted by retention").Len(); n != 1 {
		t.Errorf("%d log lines about it", n)
	}
}
