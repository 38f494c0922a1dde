package replay_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer"
	"enricher/producer/replay"
	"enricher/schemas"
)

// TestRate: letters go out at the rate, in virtual time.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newVirtualWorld(t)
		w.letters(210)
		j := w.job()
		j.Rate = 20
		began := time.Now()
		w.run(j)
		if d := time.Since(began); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("210 letters took %v at 20 a second", d)
		}
		w.check(all)
	})
}

// TestTransactionsInTheWay: aborted transactions at the end of topic and journal
// hold nobody up, and what they held is not read; one that is open in the
// journal is waited for.
func TestTransactionsInTheWay(t *testing.T) {
	w := newWorld(t)
	w.letters(40)
	transaction := func(id string, end kgo.TransactionEndTry, records ...*kgo.Record) *kgo.Client {
		t.Helper()
		cl, err := kgo.NewClient(append(w.opts(), kgo.TransactionalID(id))...)
		if err == nil {
			err = cl.BeginTransaction()
		}
		if err == nil {
			err = cl.ProduceSync(context.Background(), records...).FirstErr()
		}
		if err == nil && id != "open" {
			err = cl.EndTransaction(context.Background(), end)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	e, f := event(7)
	outputs := producer.Outputs{DeadLetterTopic: deadTopic}
	for range 20 {
		transaction("aborted", kgo.TryAbort, outputs.DeadLetter(e, f))
	}
	j := w.job()
	j.Limit = 10
	w.run(j)
	transaction("aborted", kgo.TryAbort, &kgo.Record{Topic: journal, Key: []byte("never")})
	if states := w.states(); len(states) != 40 {
		t.Errorf("%d letters, want 40", len(states))
	}
	cl := transaction("open", kgo.TryAbort, &kgo.Record{Topic: journal, Key: []byte("not yet")})
	ended := make(chan error, 1)
	go func() {
		<-time.After(700 * time.Millisecond)
		ended <- cl.EndTransaction(context.Background(), kgo.TryAbort)
	}()
	began := time.Now()
	w.run(w.job())
	if d := time.Since(began); d < 600*time.Millisecond {
		t.Errorf("the journal was read past an open transaction, within %v", d)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	w.check(all)
}

// TestReinitialised: the client takes its id back by itself when retention has
// passed what it produced last, while a second replay is at work. What it then
// produces must not be committed.
func TestReinitialised(t *testing.T) {
	w := newWorld(t)
	w.letters(400)
	var armed atomic.Bool
	var second replay.Result
	var fenced []byte // the id and the epoch of the first replay's producer, as its batches have them
	w.cluster.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		req := kreq.(*kmsg.ProduceRequest)
		producer := req.Topics[0].Partitions[0].Records[43:53]
		switch {
		case armed.Swap(false):
			fenced = slices.Clone(producer)
			w.cluster.SleepControl(func() {
				j := w.job()
				j.Limit = 100
				second = w.run(j)
			})
		case !bytes.Equal(producer, fenced):
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range req.Topics {
			t := kmsg.NewProduceResponseTopic()
			t.Topic, t.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition, p.ErrorCode, p.LogStartOffset = rp.Partition, kerr.InvalidProducerEpoch.Code, 1<<40
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp, nil, true
	})
	j := w.job()
	j.Rate = 200
	o := &watch{t: t, committed: func(n int) { armed.Store(n == 200) }}
	if _, err := replay.Run(context.Background(), j, o); err != nil {
		t.Error(err)
	}
	if second.Completed != 100 || o.startOver.Load() != 1 {
		t.Errorf("the second replay did %d letters, the first started over %d times", second.Completed, o.startOver.Load())
	}
	w.check(all)
}

// TestTooLargeForItsTopic: what the topic does not take stays open; all others
// are replayed, also when only a batch of them is too large.
func TestTooLargeForItsTopic(t *testing.T) {
	w := newWorld(t)
	limit := "10000"
	if _, err := w.admin().CreateTopic(context.Background(), 1, 1, map[string]*string{"max.message.bytes": &limit}, "narrow"); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	outputs := producer.Outputs{DeadLetterTopic: deadTopic}
	for n := range 60 {
		e, f := event(n)
		size := 1000
		if n%20 == 7 {
			size = 20_000
		}
		e.Topic, e.Value = "narrow", make([]byte, size)
		for i := range e.Value { // what compresses would fit
			e.Value[i] = byte(rng.Uint32())
		}
		w.produce(outputs.DeadLetter(e, f))
	}
	result := w.run(w.job())
	if result.Completed != 57 || result.Plan.Skipped[replay.TooLarge] != 3 || result.Expired != 0 {
		t.Errorf("%d done, %v left, %d gone", result.Completed, result.Plan.Skipped, result.Expired)
	}
	if n := len(w.read("narrow")); n != 57 {
		t.Errorf("%d events arrived, want 57", n)
	}
}

// TestNewest compares with sorting everything.
func TestNewest(t *testing.T) {
	w := newWorld(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var written []int64
	outputs := producer.Outputs{DeadLetterTopic: deadTopic}
	for n := range 200 {
		r := outputs.DeadLetter(event(n))
		r.Partition, r.Timestamp = int32(n%partitions), time.UnixMilli(rng.Int64N(1<<40))
		w.produce(r)
		written = append(written, r.Timestamp.UnixMilli())
	}
	slices.Sort(written)
	v, err := replay.OpenSnapshot(context.Background(), w.topics())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, limit := range []int{1, 7, 199, 200, 500} {
		got, picked, err := replay.Newest(context.Background(), v, replay.Filter{Limit: limit}, func(e *replay.Record) int64 { return e.Raw.Timestamp.UnixMilli() })
		if err != nil || picked != 200 || !slices.Equal(got, written[max(0, 200-limit):]) {
			t.Errorf("limit %d: %d of %d, %v", limit, len(got), picked, err)
		}
	}
}

// TestFilters: each one alone, and together.
func TestFilters(t *testing.T) {
	w := newWorld(t)
	w.letters(30)
	j := w.job()
	j.Limit = 5
	w.run(j)
	w.produce(&kgo.Record{Topic: deadTopic, Value: []byte("not ours")})
	v, err := replay.OpenSnapshot(context.Background(), w.topics())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	hour := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		f    replay.Filter
		want int
	}{
		"none":          {replay.Filter{}, 31},
		"open":          {replay.Filter{States: []replay.State{replay.Open}}, 25},
		"replayed":      {replay.Filter{States: []replay.State{replay.Replayed}}, 5},
		"foreign":       {replay.Filter{States: []replay.State{replay.Foreign}}, 1},
		"reason":        {replay.Filter{Reasons: []schemas.Reason{schemas.NotFound}}, 10},
		"two reasons":   {replay.Filter{Reasons: []schemas.Reason{schemas.NotFound, schemas.LookupFailed}}, 30},
		"code":          {replay.Filter{Codes: []int{502}}, 20},
		"call":          {replay.Filter{CallIDs: []string{"c3", "c4", "c99"}}, 2},
		"partition":     {replay.Filter{Partitions: []int32{3}}, 7},
		"letters":       {replay.Filter{Positions: []replay.Position{w.refs[3], w.refs[9], {Partition: 1, Offset: 99}, {Partition: 77}}}, 2},
		"since":         {replay.Filter{Since: hour}, 0},
		"until":         {replay.Filter{Until: hour}, 31},
		"limit":         {replay.Filter{Limit: 4}, 4},
		"all of them":   {replay.Filter{Reasons: []schemas.Reason{schemas.NotFound}, Codes: []int{101050}, CallIDs: []string{"c3", "c4"}, Until: hour, Limit: 9}, 1},
		"contradiction": {replay.Filter{Reasons: []schemas.Reason{schemas.NotFound}, Codes: []int{502}}, 0},
	} {
		got := 0
		for _, err := range v.Records(context.Background(), c.f) {
			if err != nil {
				t.Fatal(err)
			}
			got++
		}
		if got != c.want {
			t.Errorf("%s: %d letters, want %d", name, got, c.want)
		}
	}
}

// TestBrokerAway: a replay waits for brokers that go away for a moment.
func TestBrokerAway(t *testing.T) {
	w := newWorld(t)
	w.letters(2000)
	var away atomic.Bool
	w.cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		if away.Load() {
			return nil, errors.New("away"), true
		}
		return nil, nil, false
	})
	j := w.job()
	j.Rate = 2000
	result, err := replay.Run(context.Background(), j, &watch{t: t, committed: func(n int) {
		if n == 1000 {
			away.Store(true)
			time.AfterFunc(time.Second, func() { away.Store(false) })
		}
	}})
	if err != nil || result.Completed != 2000 {
		t.Errorf("%d done, %v", result.Completed, err)
	}
	w.check(all)
}

// TestJournalIsNeeded: no replay without a journal that keeps what it is told.
func TestJournalIsNeeded(t *testing.T) {
	w := newWorld(t)
	w.letters(10)
	ctx := context.Background()
	policy := "compact,delete"
	if _, err := w.admin().CreateTopic(ctx, 1, 1, map[string]*string{"cleanup.policy": &policy}, journal); err != nil {
		t.Fatal(err)
	}
	if _, err := replay.Run(ctx, w.job(), quiet{}); err == nil || !strings.Contains(err.Error(), "cleanup.policy=compact,delete") {
		t.Errorf("with policy %s: %v", policy, err)
	}
	set := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: kadm.StringPtr("compact")}}
	if _, err := w.admin().AlterTopicConfigs(ctx, set, journal); err != nil {
		t.Fatal(err)
	}
	w.produce(&kgo.Record{Topic: journal, Key: []byte("somebody else's")})
	if _, err := replay.Run(ctx, w.job(), quiet{}); err == nil || !strings.Contains(err.Error(), "is not a journal entry") {
		t.Errorf("with a foreign record: %v", err)
	}
	if n := len(w.read(inTopic)); n > 0 {
		t.Errorf("%d letters replayed", n)
	}
}
