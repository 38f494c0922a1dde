package consumer_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/progress"
	"enricher/consumer/session"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/kafka"
)

// The broker's limits on offset metadata, which an embedded one has not.

// flood feeds n calls to partition 0, without waiting for each; those that
// never says have no record.
func (w *world) flood(n int, never func(int) bool) {
	w.t.Helper()
	for i := range n {
		id := "c" + strconv.Itoa(w.fed)
		e := w.enriched(id)
		if never(i) {
			w.api.Never(id)
			e = audit.Expect{Reasons: []schemas.Reason{schemas.NotFound}}
		}
		e.Key, e.Value, e.Produced = []byte(id), callback(id, time.Now()), time.Now()
		w.fed++
		r := &kgo.Record{Topic: w.In, Partition: 0, Key: e.Key, Value: e.Value}
		w.feeder.Produce(context.Background(), r, func(r *kgo.Record, err error) {
			if err != nil {
				w.t.Error(err)
			}
			w.ledger.Add(audit.Source{Topic: w.In, Partition: r.Partition, Offset: r.Offset}, e)
		})
	}
	if err := w.feeder.Flush(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// commits are the sizes of offset metadata that the broker took.
type commits struct {
	mu     sync.Mutex
	sums   []int // of each commit
	widest int   // of one partition
}

func (i *instance) watchCommits() *commits {
	c := &commits{}
	i.network.onRequest(func(k kmsg.Key) *fate {
		if k != kmsg.TxnOffsetCommit {
			return nil
		}
		return &fate{answer: func(req kmsg.Request, resp kmsg.Response) {
			c.mu.Lock()
			defer c.mu.Unlock()
			sum := 0
			for ti, t := range req.(*kmsg.TxnOffsetCommitRequest).Topics {
				for pi, p := range t.Partitions {
					if resp.(*kmsg.TxnOffsetCommitResponse).Topics[ti].Partitions[pi].ErrorCode == 0 {
						sum += len(*p.Metadata)
						c.widest = max(c.widest, len(*p.Metadata))
					}
				}
			}
			c.sums = append(c.sums, sum)
		}}
	})
	return c
}

// pressed checks that metadata neared the limit, kept it, and cost no session.
func (i *instance) pressed(c *commits, limit int) {
	i.w.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.widest < limit*3/4 || c.widest > limit {
		i.w.t.Errorf("metadata of up to %d bytes: the limit of %d was to be neared, and kept", c.widest, limit)
	}
	if n := i.metric("enricher_kafka_session_restarts_total"); n > 0 {
		i.w.t.Errorf("the session was rebuilt %v times", n)
	}
}

// TestKafkaMetadata: a flood of calls that are never found presses the offset
// metadata of one partition against the broker's limit.
func TestKafkaMetadata(t *testing.T) {
	w := onKafka(t, fetchtest.Config{})
	rng := rand.New(rand.NewPCG(1, 1))
	w.flood(30_000, func(int) bool { return rng.IntN(5) == 0 })
	i := w.start("a", func(c *consumer.Config) {
		c.APIRate, c.MaxConsecutiveDeadLetters, c.MaxInFlight = 0, 0, 30_000
		c.Retry.NotFoundWindow = 10 * time.Second // all others are done before the first of these is
	})
	c := i.watchCommits()
	w.await(time.Minute)
	w.check()
	i.pressed(c, progress.MaxOffsetMetadataBytes)
	if n := i.logs.FilterMessageSnippet("transaction aborted").Len(); n > 0 {
		t.Errorf("%d transactions did not commit", n)
	}
}

// TestKafkaMetadataLimit: the broker takes 4,096 bytes and not one more, and
// a session lives on when it refuses them.
func TestKafkaMetadataLimit(t *testing.T) {
	t.Parallel()
	w := onKafka(t, fetchtest.Config{})
	s := w.open()
	defer s.Close()
	for assigned := 0; assigned < partitions; assigned += len(s.TakeAssignments()) {
		s.AllowRebalance()
		w.poll(s)
	}
	for n, c := range []struct {
		size int
		want session.TxnResult
	}{
		{progress.MaxOffsetMetadataBytes, session.Committed},
		{progress.MaxOffsetMetadataBytes + 1, session.Aborted},
		{progress.MaxOffsetMetadataBytes, session.Committed},
	} {
		s.AllowRebalance()
		w.poll(s)
		offset := session.Offset{Topic: w.In, Partition: 0, Offset: int64(n), Metadata: strings.Repeat("x", c.size)}
		end, err := s.Commit([]*kgo.Record{{Topic: w.Out, Value: []byte("x")}}, commitOne{offset})
		if end != c.want || (end == session.Committed) != (err == nil) || err != nil && !errors.Is(err, kerr.OffsetMetadataTooLarge) {
			t.Fatalf("%d bytes: end %v, %v", c.size, end, err)
		}
		s.AllowRebalance()
		got, err := s.FetchCommitted(map[string][]int32{w.In: {0}})
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		if (got[0] == offset) != (end == session.Committed) {
			t.Errorf("%d bytes: offset %d with %d bytes is committed", c.size, got[0].Offset, len(got[0].Metadata))
		}
	}
	if n := len(w.outputs()); n != 2 {
		t.Errorf("%d outputs, want 2", n)
	}
}

// TestKafkaSmallMetadata: a broker that takes less than usual is noticed, and
// kept within its limit.
func TestKafkaSmallMetadata(t *testing.T) {
	t.Parallel()
	w, _ := onOwnKafka(t, fetchtest.Config{}, kafka.Config{Properties: map[string]string{"offset.metadata.max.bytes": "1024"}})
	rng := rand.New(rand.NewPCG(1, 1))
	w.flood(15_000, func(int) bool { return rng.IntN(5) == 0 })
	i := w.start("a", func(c *consumer.Config) {
		c.APIRate, c.MaxConsecutiveDeadLetters, c.MaxInFlight = 0, 0, 15_000
		c.Retry.NotFoundWindow = 8 * time.Second
	})
	c := i.watchCommits()
	w.await(time.Minute)
	w.check()
	i.pressed(c, 1024)
	if n := i.logs.FilterMessageSnippet("offset.metadata.max.bytes").Len(); n == 0 {
		t.Error("the limit was never met: this test shows nothing")
	}
}

// TestKafkaManyPartitions: 300 partitions whose metadata together passes what
// the broker takes in one batch.
func TestKafkaManyPartitions(t *testing.T) {
	t.Parallel()
	const many = 300
	w := onKafka(t, fetchtest.Config{})
	adm := kadm.NewClient(w.feeder)
	if _, err := adm.CreatePartitions(t.Context(), many-partitions, w.In); err != nil {
		t.Fatal(err)
	}
	w.awaitTopic(w.In, many)
	// A predecessor left much done ahead everywhere, far above the log's end.
	wide := consumer.EveryOther(w.topicID(w.feeder), 0, 100, 12_000)
	for from := int32(0); from < many; from += 100 {
		var offsets kadm.Offsets
		for p := from; p < from+100; p++ {
			offsets.Add(kadm.Offset{Topic: w.In, Partition: p, At: 0, LeaderEpoch: -1, Metadata: wide})
		}
		if err := adm.CommitAllOffsets(t.Context(), w.Group, offsets); err != nil {
			t.Fatal(err)
		}
	}
	for p := range int32(many) {
		w.call(p, "c"+strconv.Itoa(int(p)))
	}
	i := w.start("a", func(c *consumer.Config) {
		c.APIRate, c.Retry.LookupDelay = 0, 0
		c.CommitInterval = 3 * time.Second // all are ready by then
	})
	c := i.watchCommits()
	w.await(time.Minute)
	w.check()
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for _, n := range c.sums {
		total += n
	}
	if total < 1<<20 || slices.Max(c.sums) < consumer.MaxTxnMetadataBytes*3/4 || slices.Max(c.sums) > consumer.MaxTxnMetadataBytes {
		t.Errorf("transactions with %v bytes of metadata: more than a MB was to be cut up by %d bytes", c.sums, consumer.MaxTxnMetadataBytes)
	}
}

// commitOne commits one offset.
type commitOne struct{ offset session.Offset }

func (commitOne) WhileFlushing() {}

func (c commitOne) Offsets() ([]session.Offset, error) { return []session.Offset{c.offset}, nil }
