package consumer_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/consumer/session"
	"enricher/consumer/skip"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
	"enricher/test/kafka"
	"enricher/test/kafkaproxy"
)

// The invariant of these scenarios: a skip moves the group past what it names and
// nothing else. Every event that was not completed before has exactly one outcome
// afterwards: a dead letter if it was skipped, its own if it was not.

// skipped is where these scenarios skip.
const skipped = 0

// request is one to skip offsets of the partition, from the committed one on.
func (e *env) request(from, to int64) skip.Request {
	return skip.Request{
		Kafka: e.Opts, Group: e.Group, Topic: e.In, Partition: skipped, From: from, To: to, Reset: session.Earliest,
		DeadLetterTopic: e.Dead, Note: "a note", By: "an operator",
	}
}

// skip skips what a request names.
func (e *env) skip(r skip.Request) *skip.Plan {
	e.T.Helper()
	p, err := skip.NewPlan(context.Background(), r)
	if err == nil {
		err = p.Commit(context.Background())
	}
	if err != nil {
		e.T.Fatal(err)
	}
	return p
}

// expectSkipped enters in the ledger that events become dead letters.
func (e *env) expectSkipped(events map[int64]audit.Expect) {
	for offset, event := range events {
		event.Enriched, event.Reasons = nil, []schemas.Reason{schemas.Skipped}
		e.Ledger.Add(audit.Source{Topic: e.In, Partition: skipped, Offset: offset}, event)
	}
}

// feedBatch feeds n calls in one batch.
func (e *env) feedBatch(prefix string, n int) map[int64]audit.Expect {
	e.T.Helper()
	cl := e.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(time.Second))
	events := make([]audit.Expect, n)
	records := make([]*kgo.Record, n)
	for i := range n {
		id := fmt.Sprint(prefix, i)
		events[i] = audittest.Enriched(e.API, id)
		events[i].Key, events[i].Value = []byte(id), audittest.EndCall(id, time.Now())
		records[i] = &kgo.Record{Topic: e.In, Partition: skipped, Key: events[i].Key, Value: events[i].Value}
	}
	if err := cl.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		e.T.Fatal(err)
	}
	fed := make(map[int64]audit.Expect)
	for i, r := range records {
		fed[r.Offset] = events[i]
		e.Ledger.Add(audit.Source{Topic: e.In, Partition: skipped, Offset: r.Offset}, events[i])
	}
	return fed
}

// eventuallyRight waits until every event has its outcome.
func (e *env) eventuallyRight() {
	e.T.Helper()
	e.Eventually(2*time.Minute, func() error {
		if a := e.Audit(); !a.OK() {
			return errors.New(a.String())
		}
		return nil
	})
	e.CheckOffsets()
}

// damageBatch damages, in what a broker returns, the batch that begins at an offset.
func (e *env) damageBatch(base int64, damage func([]byte)) func(kmsg.Key) *kafkaproxy.Action {
	return tamperFetchOf(skipped, func(p *kmsg.FetchResponseTopicPartition) {
		p.RecordBatches = slices.Clone(p.RecordBatches)
		for b := p.RecordBatches; len(b) > 12; {
			n := min(12+int(binary.BigEndian.Uint32(b[8:])), len(b))
			if int64(binary.BigEndian.Uint64(b)) == base {
				damage(b[:n])
				return
			}
			b = b[n:]
		}
	})
}

// through are the options of clients that reach the broker through a proxy.
func (e *env) through(action func(kmsg.Key) *kafkaproxy.Action) func() []kgo.Opt {
	p := kafkaproxy.New(e.Dial)
	p.OnRequest(action)
	return func() []kgo.Opt { return append(e.Opts(), kgo.Dialer(p.DialContext)) }
}

// tamperFetchOf changes what fetches return of a partition.
func tamperFetchOf(partition int32, tamper func(*kmsg.FetchResponseTopicPartition)) func(kmsg.Key) *kafkaproxy.Action {
	return func(k kmsg.Key) *kafkaproxy.Action {
		if k != kmsg.Fetch {
			return nil
		}
		return &kafkaproxy.Action{Respond: func(_ kmsg.Request, resp kmsg.Response) {
			for t := range resp.(*kmsg.FetchResponse).Topics {
				ps := resp.(*kmsg.FetchResponse).Topics[t].Partitions
				for p := range ps {
					if ps[p].Partition == partition {
						tamper(&ps[p])
					}
				}
			}
		}}
	}
}

func TestSkipDamagedBatch(t *testing.T) {
	for name, damage := range map[string]func(batch []byte){
		"flipped byte":  func(b []byte) { b[len(b)-1] ^= 1 },
		"unknown codec": func(b []byte) { b[22] |= 7 }, // in the attributes, so the checksum is wrong, too
		"last offset":   func(b []byte) { b[23] ^= 0x40 },
		"record count":  func(b []byte) { b[60]++ },
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				skipDamagedBatch(t, e, func(base int64) skip.Request {
					r := e.request(0, 0)
					r.Kafka = e.through(e.damageBatch(base, damage))
					return r
				}, func(c *consumer.Config, base int64) { c.Kafka = e.through(e.damageBatch(base, damage)) })
			})
		})
	}
}

// TestKafkaSkipDamagedBatch flips a byte of a log on a broker's disk.
func TestKafkaSkipDamagedBatch(t *testing.T) {
	e, c := ownKafkaEnv(t, kafka.Config{})
	damaged := false
	damage := func(base int64) {
		if damaged {
			return
		}
		damaged = true
		name := filepath.Join(c.Data(0), fmt.Sprintf("%s-%d", e.In, skipped), fmt.Sprintf("%020d.log", 0))
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for int64(binary.BigEndian.Uint64(b[at:])) != base {
			at += 12 + int(binary.BigEndian.Uint32(b[at+8:]))
		}
		end := at + 12 + int(binary.BigEndian.Uint32(b[at+8:]))
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte{b[end-1] ^ 1}, int64(end-1)); err != nil {
			t.Fatal(err)
		}
	}
	skipDamagedBatch(t, e, func(int64) skip.Request { return e.request(0, 0) }, func(_ *consumer.Config, base int64) { damage(base) })
}

// skipDamagedBatch has a damaged batch between good ones. damage damages the batch
// that begins at an offset, for an instance; request returns a request that sees
// the damage, too.
func skipDamagedBatch(t *testing.T, e *env, request func(base int64) skip.Request, damage func(*consumer.Config, int64)) {
	const size = 5
	e.FeedCalls("before-", 3*partitions)
	i := e.Start("a")
	e.Await(time.Minute)
	i.Drain()
	bad := e.feedBatch("bad-", size)
	base := slices.Min(slices.Collect(maps.Keys(bad)))
	i = e.Start("a", func(c *consumer.Config) { damage(c, base) })
	for n := range 3 {
		e.FeedCalls(fmt.Sprint("behind-", n, "-"), partitions)
	}
	e.Eventually(time.Minute, func() error {
		if lost := slices.DeleteFunc(e.Audit().Lost, func(s string) bool { return strings.Contains(s, "[0]") }); len(lost) > 0 {
			return fmt.Errorf("lost: %v", lost)
		}
		if reason := i.NotReady(); !strings.Contains(reason, string(consumer.UnreadableBatch)) {
			return fmt.Errorf("not ready for %q", reason)
		}
		return nil
	})

	r := request(base)
	r.To = base + size
	plan, err := skip.NewPlan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var running *skip.RunningError
	if err := plan.Commit(t.Context()); !errors.As(err, &running) {
		t.Fatalf("the group is running, and the skip ended with %v", err)
	}
	i.Drain()

	inside := r
	inside.To = base + 2
	var insideErr *skip.InsideBatchError
	if _, err := skip.NewPlan(t.Context(), inside); !errors.As(err, &insideErr) || insideErr.End != base+size {
		t.Fatalf("a range that ends inside of the batch: %v", err)
	}
	p := e.skip(r)
	if len(p.Events) > 0 || len(p.Unreadable) != 1 || p.Unreadable[0].From != base || p.Unreadable[0].To != base+size {
		t.Fatalf("skipped %d events and %v", len(p.Events), p.Unreadable)
	}
	e.expectSkipped(bad)
	if again, err := skip.NewPlan(t.Context(), r); err != nil || !again.Empty() {
		t.Fatalf("a second skip has something to do: %+v, %v", again, err)
	}
	i = e.Start("a", func(c *consumer.Config) { damage(c, base) })
	e.eventuallyRight()
	if reason := i.NotReady(); reason != "" {
		t.Errorf("not ready afterwards: %s", reason)
	}
	if d := e.deadLetters()[""]; d == nil || d.Message == "" || !strings.HasPrefix(d.Message, "skipped by an operator: a note (") || d.UnreadableOffsets != size {
		t.Errorf("the dead letter is %+v", d)
	}
}

// TestSkipOneEvent skips one of two events that wait, while others are done ahead.
func TestSkipOneEvent(t *testing.T)      { inVirtualTime(t, fetchtest.Config{}, skipOneEvent) }
func TestKafkaSkipOneEvent(t *testing.T) { onKafka(t, fetchtest.Config{}, skipOneEvent) }

func skipOneEvent(t *testing.T, e *env) {
	feed := func(id string) audit.Expect {
		event := audittest.Enriched(e.API, id)
		event.Key, event.Value = []byte(id), audittest.EndCall(id, time.Now())
		e.Feed(skipped, event)
		return event
	}
	e.API.AvailableAt("late", time.Now().Add(time.Hour))
	e.API.Never("stuck")
	feed("late")           // offset 0
	feed("ahead-1")        // 1
	stuck := feed("stuck") // 2
	for n := range 20 {    // 3 to 22
		feed(fmt.Sprint("behind-", n))
	}
	patient := func(c *consumer.Config) { c.Retry.NotFoundWindow = e.choose(2*time.Minute, time.Minute) }
	i := e.Start("a", patient)
	e.Eventually(time.Minute, func() error {
		if lost := e.Audit().Lost; len(lost) != 2 {
			return fmt.Errorf("%d events have no outcome, want 2: %v", len(lost), lost)
		}
		return nil
	})
	i.Drain()

	// What lies ahead of the end, or is done, is not skipped.
	var bounds *skip.BoundsError
	if _, err := skip.NewPlan(t.Context(), e.request(0, 24)); !errors.As(err, &bounds) || bounds.End != 23 {
		t.Errorf("beyond the end: %v", err)
	}
	if p, err := skip.NewPlan(t.Context(), e.request(3, 23)); err != nil || !p.Empty() {
		t.Errorf("of events that are done ahead, %+v would be skipped, %v", p, err)
	}
	p := e.skip(e.request(2, 6)) // of which 3 to 5 are done ahead
	if len(p.Events) != 1 || p.Events[0].Offset != 2 || len(p.Unreadable) > 0 || p.After.Base != 0 {
		t.Errorf("skipped %d events and %v, base %d", len(p.Events), p.Unreadable, p.After.Base)
	}
	e.expectSkipped(map[int64]audit.Expect{2: stuck})
	if p, err := skip.NewPlan(t.Context(), e.request(1, 23)); err != nil || !p.Empty() {
		t.Errorf("after the skip, %+v would be skipped, %v", p, err)
	}

	e.API.AvailableAt("late", time.Now())
	feed("new")
	e.Start("a", patient)
	e.eventuallyRight()
	if d := e.deadLetters()[string(stuck.Value)]; d == nil || d.Message != "skipped by an operator: a note" {
		t.Errorf("the dead letter is %+v", d)
	}
}

// TestSkipWhoseEndIsUnknown: whatever becomes of the transaction of a skip, a second
// one completes it, and nothing is skipped twice.
func TestSkipWhoseEndIsUnknown(t *testing.T) {
	for name, action := range map[string]kafkaproxy.Action{
		"request lost":  {Drop: true, Disconnect: true},
		"response lost": {Disconnect: true},
	} {
		for _, key := range []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
			t.Run(fmt.Sprint(key.Name(), ", ", name), func(t *testing.T) {
				inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) { skipWhoseEndIsUnknown(t, e, key, action) })
			})
		}
	}
}

func skipWhoseEndIsUnknown(t *testing.T, e *env, key kmsg.Key, action kafkaproxy.Action) {
	e.FeedCall(skipped, "before")
	i := e.Start("a")
	e.Await(time.Minute)
	i.Drain()
	bad := e.feedBatch("bad-", 5)
	e.FeedCall(skipped, "behind")
	plan, err := skip.NewPlan(t.Context(), e.request(0, 6))
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	plan.Kafka = e.through(func(k kmsg.Key) (a *kafkaproxy.Action) {
		if k == key {
			once.Do(func() { a = &action })
		}
		return a
	})
	t.Log("the first ends with:", plan.Commit(t.Context()))
	e.Eventually(time.Minute, func() error { // its transaction may still be open
		p, err := skip.NewPlan(context.Background(), e.request(0, 6))
		if err != nil || p.Empty() {
			return err
		}
		return p.Commit(context.Background())
	})
	e.expectSkipped(bad)
	e.Start("a")
	e.eventuallyRight()
	n := 0
	for _, r := range e.Outputs() {
		if d, ok := producer.ParseDeadLetter(r); ok && d.Reason == schemas.Skipped {
			n++
		}
	}
	if n != len(bad) {
		t.Errorf("%d dead letters, want %d", n, len(bad))
	}
}
