package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
	"enricher/test/kafkaproxy"
)

// transactionErrors are errors with which a request of a transaction may fail.
var transactionErrors = []*kerr.Error{
	kerr.UnknownServerError, kerr.RequestTimedOut, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress,
	kerr.ConcurrentTransactions, kerr.InvalidTxnState, kerr.InvalidProducerEpoch, kerr.ProducerFenced,
	kerr.InvalidProducerIDMapping, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.OffsetMetadataTooLarge,
	kerr.TransactionAbortable, kerr.NotEnoughReplicasAfterAppend,
}

// offsetCommitErrors are those of commits that name topics by id (KIP-1319).
var offsetCommitErrors = []*kerr.Error{kerr.GroupIDNotFound, kerr.StaleMemberEpoch, kerr.UnknownTopicID}

// transactionRequests are the requests of a transaction, by the cluster's feature
// level transaction.version. With 2 the broker adds partitions and offsets by
// itself.
var transactionRequests = map[int16][]kmsg.Key{
	0: {kmsg.AddPartitionsToTxn, kmsg.Produce, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit, kmsg.EndTxn},
	2: {kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn},
}

// TestBrokerErrorInTransaction has every request of a transaction fail four times
// with each error. Every event must have one outcome all the same.
func TestBrokerErrorInTransaction(t *testing.T) {
	for version, keys := range transactionRequests {
		for _, key := range keys {
			errs := transactionErrors
			if key == kmsg.TxnOffsetCommit {
				errs = slices.Concat(errs, offsetCommitErrors)
			}
			for _, err := range errs {
				t.Run(fmt.Sprintf("v%d/%s/%s", version, key.Name(), err.Message), func(t *testing.T) {
					t.Parallel()
					inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
						e.setTransactionVersion(version)
						brokerErrorInTransaction(t, e, key, err)
					})
				})
			}
		}
	}
}

func brokerErrorInTransaction(t *testing.T, e *env, key kmsg.Key, err *kerr.Error) {
	e.Start("a")
	e.FeedCalls("warm", 24)
	e.Await(time.Minute)
	fault := kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: 4}
	if key == kmsg.Produce {
		fault.Topic = e.Enriched // not the feeder's requests
	}
	faults := e.Cluster.Fault(fault)
	for i := range 6 {
		e.FeedCalls("c"+strconv.Itoa(i)+"-", 24)
		<-time.After(700 * time.Millisecond)
	}
	e.Await(3 * time.Minute)
	e.Check()
	if hits := faults.Hits(); hits < fault.Count {
		t.Errorf("%d requests failed, want %d: this test shows nothing", hits, fault.Count)
	}
}

// setTransactionVersion sets the cluster's feature level. Clients that connect
// later find it.
func (e *env) setTransactionVersion(version int16) {
	e.T.Helper()
	const allowDowngrade = 2 // UpgradeType: if no metadata is lost
	results, err := e.Admin().UpdateFeatures(context.Background(), false, kadm.FeatureUpdate{
		Feature: "transaction.version", MaxVersionLevel: version, UpgradeType: allowDowngrade,
	})
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		e.T.Fatal(err)
	}
}

// TestResponseLostInTransaction cuts the connection when a request of a transaction
// has arrived. The client cannot find out whether the broker handled it.
func TestResponseLostInTransaction(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		for _, handled := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/handled=%v", key.Name(), handled), func(t *testing.T) {
				t.Parallel()
				inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
					i := e.Start("a")
					var armed atomic.Bool
					e.Cluster.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
						e.Cluster.KeepControl()
						if p, ok := req.(*kmsg.ProduceRequest); ok && p.TransactionID == nil {
							return nil, nil, false // the feeder's
						}
						if armed.CompareAndSwap(true, false) {
							i.Proxy.SetOffline(true)
							i.Proxy.SetOffline(false)
							if !handled {
								return nil, context.Canceled, true
							}
						}
						return nil, nil, false
					})
					for n := range 4 {
						armed.Store(true)
						e.FeedCalls("c"+strconv.Itoa(n)+"-", 60)
						e.Await(3 * time.Minute)
						if armed.Load() {
							t.Fatal("no response was lost: this test shows nothing")
						}
					}
					e.Check()
				})
			})
		}
	}
}

// TestRefusedAfterLostResponse: a batch arrives, its response is lost, and when the
// client sends it again, the topic refuses it. The broker has its sequence number
// and would take another batch with this number for a duplicate, and confirm it
// without writing it.
func TestRefusedAfterLostResponse(t *testing.T) {
	for version := range transactionRequests {
		for _, refusal := range []*kerr.Error{kerr.InvalidRecord, kerr.TopicAuthorizationFailed, kerr.NotEnoughReplicas} {
			t.Run(fmt.Sprintf("v%d/%s", version, refusal.Message), func(t *testing.T) {
				t.Parallel()
				inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
					e.setTransactionVersion(version)
					i := e.Start("a")
					e.FeedCalls("warm-", partitions)
					e.Await(time.Minute)
					var first atomic.Pointer[kmsg.Request] // its response is lost
					var accepted atomic.Bool               // again
					e.Cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: e.Enriched, Err: refusal, Count: -1, When: func(r kmsg.Request) bool {
						if first.CompareAndSwap(nil, &r) {
							i.Proxy.SetOffline(true)
							i.Proxy.SetOffline(false)
							time.AfterFunc(8*time.Second, func() { accepted.Store(true) })
						}
						return r != *first.Load() && !accepted.Load()
					}})
					e.FeedCalls("c-", 1)
					e.Await(3 * time.Minute)
					e.Check()
					if i.Logs.FilterMessageSnippet("transaction aborted").Len() == 0 && i.Metric("enricher_kafka_session_restarts_total") == 0 {
						t.Error("nothing was refused: this test shows nothing")
					}
				})
			})
		}
	}
}

func TestConnectionLostInTransaction(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		t.Run(key.Name(), func(t *testing.T) { inRealTime(t, fetchtest.Config{}, connectionLostInTransaction(key)) })
	}
}

func TestKafkaConnectionLostInTransaction(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		t.Run(key.Name(), func(t *testing.T) { onKafka(t, fetchtest.Config{}, connectionLostInTransaction(key)) })
	}
}

// connectionLostInTransaction for longer than the client retries, so that the
// instance cannot find out what became of a request. The first time the request
// arrived, the second time it did not.
func connectionLostInTransaction(key kmsg.Key) func(*testing.T, *env) {
	return func(t *testing.T, e *env) {
		i := e.Start("a", quick, func(c *consumer.Config) {
			opts := c.Kafka
			// By default it retries for 30 s.
			c.Kafka = func() []kgo.Opt { return append(opts(), kgo.RetryTimeout(time.Second)) }
		})
		var sent, cut atomic.Int64
		i.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
			if k != key || sent.Add(1)%4 != 0 || cut.Load() == 2 {
				return nil
			}
			disconnect := func() {
				i.Proxy.SetOffline(true)
				time.AfterFunc(3*time.Second, func() { i.Proxy.SetOffline(false) })
			}
			if cut.Add(1) == 1 {
				return &kafkaproxy.Action{After: disconnect}
			}
			return &kafkaproxy.Action{Before: disconnect}
		})
		for n := 0; cut.Load() < 2 || n < 10; n++ {
			if n > 150 {
				t.Fatal("no second transaction ends: ", e.Audit())
			}
			e.FeedCalls("c"+strconv.Itoa(n)+"-", partitions)
			<-time.After(200 * time.Millisecond)
		}
		e.Await(time.Minute)
		e.Check()
	}
}

func TestUnknownErrorAtEnd(t *testing.T) {
	t.Parallel()
	t.Run("committed", func(t *testing.T) { inRealTime(t, fetchtest.Config{}, unknownErrorAtEnd(true)) })
	t.Run("not committed", func(t *testing.T) { inRealTime(t, fetchtest.Config{}, unknownErrorAtEnd(false)) })
}

func TestKafkaUnknownErrorAtEnd(t *testing.T) {
	t.Parallel()
	t.Run("committed", func(t *testing.T) { onKafka(t, fetchtest.Config{}, unknownErrorAtEnd(true)) })
	t.Run("not committed", func(t *testing.T) { onKafka(t, fetchtest.Config{}, unknownErrorAtEnd(false)) })
}

// unknownErrorAtEnd fails the end of a transaction with UNKNOWN_SERVER_ERROR, which
// the Kafka client reports as an abort.
func unknownErrorAtEnd(committed bool) func(*testing.T, *env) {
	return func(t *testing.T, e *env) {
		i := e.Start("a", quick)
		var ends, forged atomic.Int64
		i.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
			if k != kmsg.EndTxn || ends.Add(1)%3 != 0 || forged.Load() == 2 {
				return nil
			}
			forged.Add(1)
			return &kafkaproxy.Action{Drop: !committed, Respond: func(_ kmsg.Request, resp kmsg.Response) {
				resp.(*kmsg.EndTxnResponse).ErrorCode = kerr.UnknownServerError.Code
			}}
		})
		for n := 0; forged.Load() < 2 || n < 10; n++ {
			if n > 150 {
				t.Fatal("no second transaction ends: ", e.Audit())
			}
			e.FeedCalls("c"+strconv.Itoa(n)+"-", partitions)
			<-time.After(200 * time.Millisecond)
		}
		e.Await(time.Minute)
		e.Check()
	}
}

func TestTransactionTimesOut(t *testing.T) {
	t.Parallel()
	t.Run("late response to Produce", func(t *testing.T) { inRealTime(t, fetchtest.Config{}, lateResponse(kmsg.Produce)) })
	t.Run("late EndTxn", func(t *testing.T) { inRealTime(t, fetchtest.Config{}, lateRequest(kmsg.EndTxn)) })
}

func TestKafkaTransactionTimesOut(t *testing.T) {
	t.Parallel()
	t.Run("late response to Produce", func(t *testing.T) { onKafka(t, fetchtest.Config{}, lateResponse(kmsg.Produce)) })
	t.Run("late EndTxn", func(t *testing.T) { onKafka(t, fetchtest.Config{}, lateRequest(kmsg.EndTxn)) })
}

func lateRequest(key kmsg.Key) func(*testing.T, *env) {
	return transactionTimesOut(key, func(wait func()) *kafkaproxy.Action { return &kafkaproxy.Action{Before: wait} })
}

func lateResponse(key kmsg.Key) func(*testing.T, *env) {
	return transactionTimesOut(key, func(wait func()) *kafkaproxy.Action { return &kafkaproxy.Action{After: wait} })
}

// transactionTimesOut because a request in it, or the response, is in flight for
// longer than the broker keeps a transaction open.
func transactionTimesOut(key kmsg.Key, delay func(wait func()) *kafkaproxy.Action) func(*testing.T, *env) {
	return func(t *testing.T, e *env) {
		i := e.Start("a", quick)
		e.FeedCalls("warm-", partitions)
		e.Await(time.Minute)
		var held sync.Once
		arrived := make(chan struct{})
		i.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
			if k != key {
				return nil
			}
			return delay(func() {
				// The client retries after 10 s, which may be just in time.
				held.Do(func() { time.AfterFunc(12*time.Second, func() { close(arrived) }) })
				<-arrived
			})
		})
		for n := range 5 {
			e.FeedCalls("c"+strconv.Itoa(n)+"-", partitions)
			<-time.After(200 * time.Millisecond)
		}
		<-arrived
		e.FeedCalls("d", partitions)
		e.Await(time.Minute)
		e.Check()
		if i.Metric("enricher_kafka_session_restarts_total") == 0 && i.Logs.FilterMessageSnippet("transaction aborted").Len() == 0 {
			t.Error("the transaction committed in time: this test shows nothing")
		}
	}
}

// TestOffsetsAreCommittedByTopicID where the brokers support it (KIP-1319), and by
// name in clusters with an older transaction.version.
func TestOffsetsAreCommittedByTopicID(t *testing.T) {
	for version, want := range map[int16]int16{0: 4, 2: 6} {
		t.Run(fmt.Sprint("transaction version ", version), func(t *testing.T) {
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				e.setTransactionVersion(version)
				id := e.topicID()
				var commits atomic.Int64
				e.Cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Observe: true, Count: -1, When: func(r kmsg.Request) bool {
					commits.Add(1)
					req := r.(*kmsg.TxnOffsetCommitRequest)
					if req.Version != want || version == 2 && (len(req.Topics) != 1 || req.Topics[0].TopicID != id) {
						t.Errorf("version %d, topics %v", req.Version, req.Topics)
					}
					return false
				}})
				e.Start("a")
				e.FeedCalls("c", 2*partitions)
				e.Await(time.Minute)
				e.Check()
				if commits.Load() == 0 {
					t.Error("no commit was seen: this test shows nothing")
				}
			})
		})
	}
}
