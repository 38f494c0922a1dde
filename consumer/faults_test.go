package consumer_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
)

// TestFailedEnds: whatever a request of a transaction is answered, and whether
// it happened all the same, every event has one outcome.
func TestFailedEnds(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.AddOffsetsToTxn, kmsg.AddPartitionsToTxn, kmsg.EndTxn} {
		for _, err := range []*kerr.Error{
			kerr.UnknownServerError, kerr.RequestTimedOut, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress,
			kerr.ConcurrentTransactions, kerr.InvalidTxnState, kerr.InvalidProducerEpoch, kerr.ProducerFenced,
			kerr.InvalidProducerIDMapping, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.OffsetMetadataTooLarge,
			kerr.TransactionAbortable, kerr.NotEnoughReplicasAfterAppend,
		} {
			t.Run(key.Name()+"/"+err.Message, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					w := newWorld(t, fetchtest.Config{})
					w.start("a")
					w.calls("warm", 50)
					w.await(time.Minute)
					entity := kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: 2}
					if key == kmsg.Produce {
						entity.Topic = w.Out
					}
					whole := kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: 2, TopLevel: true}
					w.cluster.Fault(entity, whole)
					for i := range 6 {
						w.calls("c"+strconv.Itoa(i)+"-", 24)
						<-time.After(700 * time.Millisecond)
					}
					w.await(3 * time.Minute)
					w.check()
				})
			})
		}
	}
}

// TestAnswerLost: the connection is cut when a request of a transaction has
// arrived; whether it is handled or not, the client cannot know.
func TestAnswerLost(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		for _, happens := range []bool{true, false} {
			t.Run(key.Name()+"/happens="+strconv.FormatBool(happens), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					w := newWorld(t, fetchtest.Config{})
					i := w.start("a")
					var armed atomic.Bool
					w.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
						w.cluster.KeepControl()
						if armed.CompareAndSwap(true, false) {
							i.network.set(true)
							i.network.set(false)
							if !happens {
								return nil, context.Canceled, true
							}
						}
						return nil, nil, false
					})
					for n := range 12 {
						w.calls("c"+strconv.Itoa(n)+"-", 20)
						<-time.After(500 * time.Millisecond)
						armed.Store(n%3 == 0)
					}
					w.await(3 * time.Minute)
					w.check()
				})
			})
		}
	}
}

// TestNewerMetadata: a partition whose progress a newer version wrote is left
// alone; the others go on.
func TestNewerMetadata(t *testing.T) { virtually(t, fetchtest.Config{}, newerMetadata) }

func newerMetadata(t *testing.T, w *world) {
	adm := kadm.NewClient(w.feeder)
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: w.In, Partition: 1, At: 0, LeaderEpoch: -1, Metadata: "enricher/7 whatever"})
	if err := adm.CommitAllOffsets(context.Background(), w.Group, offsets); err != nil {
		t.Fatal(err)
	}
	for n := range 60 {
		if p := int32(n % partitions); p != 1 {
			w.call(p, "c"+strconv.Itoa(n))
		}
	}
	refused := audit.Source{Topic: w.In, Partition: 1}
	r := &kgo.Record{Topic: w.In, Partition: 1, Value: callback("refused", time.Now())}
	if err := w.feeder.ProduceSync(context.Background(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	i := w.start("a")
	w.await(time.Minute)
	<-time.After(w.span(time.Minute, 3*time.Second))
	if a := w.ledger.Check(w.outputs()); !a.OK() {
		t.Error(a)
	}
	if why := i.notReady(); !strings.Contains(why, w.In+"[1]") || !strings.Contains(why, "newer version") {
		t.Errorf("readiness: %q", why)
	}
	if n := w.api.RequestsFor("refused"); n != 0 {
		t.Errorf("%v was looked up %d times", refused, n)
	}
	if n := i.logs.FilterMessageSnippet("partition not consumed").Len(); n != 1 {
		t.Errorf("%d log lines", n)
	}
	committed, err := adm.FetchOffsets(context.Background(), w.Group)
	if err != nil {
		t.Fatal(err)
	}
	if at, _ := committed.Lookup(w.In, 1); at.At != 0 || at.Metadata != "enricher/7 whatever" {
		t.Errorf("the refused partition's offset is %d %q now", at.At, at.Metadata)
	}
}

// TestForeignMetadata: an operator reset the group; nothing is done ahead.
func TestForeignMetadata(t *testing.T) { virtually(t, fetchtest.Config{}, foreignMetadata) }

func foreignMetadata(_ *testing.T, w *world) {
	w.setOffsets(0, "reset by hand")
	w.calls("c", 100)
	w.start("a")
	w.await(time.Minute)
	w.check()
}

// TestRetention: see retention.
func TestRetention(t *testing.T) { virtually(t, fetchtest.Config{}, retention) }

// TestStartFail: without a committed offset the program says so and ends.
func TestStartFail(t *testing.T) { virtually(t, fetchtest.Config{}, startFail) }

func startFail(t *testing.T, w *world) {
	w.calls("c", 10)
	i := w.start("a", func(c *consumer.Config) { c.AutoOffsetReset = consumer.None })
	<-i.done
	if i.err == nil || !strings.Contains(i.err.Error(), "no committed offset") {
		t.Errorf("Run returned %v", i.err)
	}
	if n := len(w.outputs()); n > 0 {
		t.Errorf("%d outputs", n)
	}
}

// twins: of two processes with one instance, the one that started first
// gives way and says why.
func twins(t *testing.T, w *world) {
	stop := w.keepCalling(10 * time.Millisecond)
	first := w.start("twin", quick)
	<-time.After(2 * time.Second)
	second := w.start("twin", quick)
	select {
	case <-first.done:
	case <-time.After(30 * time.Second):
		t.Fatal("both go on")
	}
	var duplicate *consumer.DuplicateInstanceError
	if !errors.As(first.err, &duplicate) || duplicate.Instance != "twin" {
		t.Errorf("the first ended with %v", first.err)
	}
	stop()
	w.await(30 * time.Second)
	w.check()
	select {
	case <-second.done:
		t.Errorf("the second ended too: %v", second.err)
	default:
	}
}
