package consumer_test

import (
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
	"enricher/consumer/audit/audittest"
	"enricher/consumer/progress"
	"enricher/consumer/session"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/harness"
	"enricher/test/kafka"
	"enricher/test/kafkaproxy"
)

// feedMany feeds n calls to partition 0, a fifth of which, at random, have no record.
func (e *env) feedMany(n int) {
	e.T.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	events := make([]audit.Expect, n)
	for i := range events {
		id := "c" + strconv.Itoa(i)
		events[i] = audittest.Enriched(e.API, id)
		if rng.IntN(5) == 0 {
			e.API.Never(id)
			events[i] = audit.Expect{Reasons: []schemas.Reason{schemas.NotFound}}
		}
		events[i].Value = audittest.EndCall(id, time.Now())
	}
	e.FeedAll(events...)
}

// commits are the sizes of the offset metadata that the broker accepted.
type commits struct {
	mu     sync.Mutex
	sums   []int // of each commit
	widest int   // of one partition
}

func watchCommits(i *harness.Instance) *commits {
	c := &commits{}
	i.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
		if k != kmsg.TxnOffsetCommit {
			return nil
		}
		return &kafkaproxy.Action{Respond: func(req kmsg.Request, resp kmsg.Response) {
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

// checkLimit fails the test unless metadata came close to a limit, did not exceed
// it, and cost no session.
func checkLimit(i *harness.Instance, c *commits, limit int) {
	i.T.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.widest < limit*3/4 || c.widest > limit {
		i.T.Errorf("metadata of up to %d bytes, want 75 to 100 %% of the limit of %d", c.widest, limit)
	}
	if n := i.Metric("enricher_kafka_session_restarts_total"); n > 0 {
		i.T.Errorf("%v session restarts, want none", n)
	}
}

// TestKafkaMetadataNearLimit has so many calls that are never found that the offset
// metadata of one partition comes close to the broker's limit.
func TestKafkaMetadataNearLimit(t *testing.T) {
	e := kafkaEnv(t, fetchtest.Config{})
	e.feedMany(30_000)
	i := e.Start("a", func(c *consumer.Config) {
		c.APIRate, c.MaxConsecutiveDeadLetters, c.MaxInFlight = 0, 0, 30_000
		c.Retry.NotFoundWindow = 10 * time.Second // all others are completed before the first of these
	})
	c := watchCommits(i)
	e.Await(time.Minute)
	e.Check()
	checkLimit(i, c, progress.MaxOffsetMetadataBytes)
	if n := i.Logs.FilterMessageSnippet("transaction aborted").Len(); n > 0 {
		t.Errorf("%d transactions aborted", n)
	}
}

// TestKafkaMetadataLimit checks that the broker accepts 4,096 bytes and not one more,
// and that a session survives the rejection.
func TestKafkaMetadataLimit(t *testing.T) {
	t.Parallel()
	e := kafkaEnv(t, fetchtest.Config{})
	s := e.openSession()
	defer s.Close()
	for assigned := 0; assigned < partitions; assigned += len(s.TakeAssignments()) {
		s.AllowRebalance()
		e.poll(s)
	}
	for n, c := range []struct {
		size int
		want session.TxnResult
	}{
		{size: progress.MaxOffsetMetadataBytes, want: session.Committed},
		{size: progress.MaxOffsetMetadataBytes + 1, want: session.Aborted},
		{size: progress.MaxOffsetMetadataBytes, want: session.Committed},
	} {
		s.AllowRebalance()
		e.poll(s)
		offset := session.Offset{Topic: e.In, Partition: 0, Offset: int64(n), Metadata: strings.Repeat("x", c.size)}
		end, err := s.Commit([]*kgo.Record{{Topic: e.Enriched, Value: []byte("x")}}, commitOffsets{offset})
		if end != c.want || (end == session.Committed) != (err == nil) || err != nil && !errors.Is(err, kerr.OffsetMetadataTooLarge) {
			t.Fatalf("%d bytes: end %v, %v", c.size, end, err)
		}
		s.AllowRebalance()
		got, err := s.FetchCommitted(map[string][]int32{e.In: {0}})
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		if (got[0] == offset) != (end == session.Committed) {
			t.Errorf("%d bytes: offset %d with %d bytes is committed", c.size, got[0].Offset, len(got[0].Metadata))
		}
	}
	if n := len(e.Outputs()); n != 2 {
		t.Errorf("%d outputs, want 2", n)
	}
}

// TestKafkaSmallerMetadataLimit adapts to a broker whose limit is below the default.
func TestKafkaSmallerMetadataLimit(t *testing.T) {
	t.Parallel()
	e, _ := ownKafkaEnv(t, kafka.Config{Properties: map[string]string{"offset.metadata.max.bytes": "1024"}})
	e.feedMany(15_000)
	i := e.Start("a", func(c *consumer.Config) {
		c.APIRate, c.MaxConsecutiveDeadLetters, c.MaxInFlight = 0, 0, 15_000
		c.Retry.NotFoundWindow = 40 * time.Second // longer than it takes to enrich all others, also beside other tests
	})
	c := watchCommits(i)
	e.Await(2 * time.Minute)
	e.Check()
	checkLimit(i, c, 1024)
	if n := i.Logs.FilterMessageSnippet("offset.metadata.max.bytes").Len(); n == 0 {
		t.Error("the limit was never exceeded: this test shows nothing")
	}
}

// TestKafkaManyPartitions has 300 partitions, whose metadata together exceeds what
// the broker accepts in one batch.
func TestKafkaManyPartitions(t *testing.T) {
	t.Parallel()
	const many = 300
	e := kafkaEnv(t, fetchtest.Config{})
	if _, err := e.Admin().CreatePartitions(t.Context(), many-partitions, e.In); err != nil {
		t.Fatal(err)
	}
	e.AwaitTopic(e.In, many)
	// The previous owner left many events done ahead everywhere, far beyond the end
	// of the log.
	wide := consumer.EveryOther(e.topicID(), 0, 100, 12_000)
	for from := int32(0); from < many; from += 100 {
		var offsets kadm.Offsets
		for p := from; p < from+100; p++ {
			offsets.Add(kadm.Offset{Topic: e.In, Partition: p, At: 0, LeaderEpoch: -1, Metadata: wide})
		}
		e.commit(offsets)
	}
	for p := range int32(many) {
		e.FeedCall(p, "c"+strconv.Itoa(int(p)))
	}
	i := e.Start("a", func(c *consumer.Config) {
		c.APIRate, c.Retry.LookupDelay = 0, 0
		c.CommitInterval = 3 * time.Second // all are ready by then
	})
	c := watchCommits(i)
	e.Await(time.Minute)
	e.Check()
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for _, n := range c.sums {
		total += n
	}
	if total < 1<<20 || slices.Max(c.sums) < consumer.MaxCommitBytes*3/4 || slices.Max(c.sums) > consumer.MaxCommitBytes {
		t.Errorf("transactions with %v bytes of metadata: more than 1 MB was to be split by %d bytes", c.sums, consumer.MaxCommitBytes)
	}
}

// commitOffsets is a transaction that commits these offsets.
type commitOffsets []session.Offset

func (commitOffsets) WhileFlushing() {}

func (c commitOffsets) Offsets() ([]session.Offset, error) { return c, nil }
