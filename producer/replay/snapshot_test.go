package replay_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/producer/replay"
	"enricher/schemas"
)

// TestAbortedAndOpenTransactions puts aborted transactions at the end of topic and
// journal, which must not block a reader or be read, and then an open one at the
// end of the journal, which a reader must wait for.
func TestAbortedAndOpenTransactions(t *testing.T) {
	e := newEnv(t)
	e.feed(40)
	begin := func(id string, r *kgo.Record) (abort func() error) {
		t.Helper()
		cl, err := kgo.NewClient(append(e.opts(), kgo.TransactionalID(id))...)
		if err == nil {
			err = cl.BeginTransaction()
		}
		if err == nil {
			err = cl.ProduceSync(context.Background(), r).FirstErr()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return func() error { return cl.EndTransaction(context.Background(), kgo.TryAbort) }
	}
	aborted := func(r *kgo.Record) {
		t.Helper()
		if err := begin("aborted", r)(); err != nil {
			t.Fatal(err)
		}
	}
	ev, f := event(7)
	outputs := producer.RecordBuilder{DeadLetterTopic: deadTopic}
	for range 20 {
		aborted(outputs.DeadLetter(ev, f))
	}
	j := e.job()
	j.Limit = 10
	e.run(j)
	aborted(&kgo.Record{Topic: journal, Key: []byte("never")})
	if states := e.states(); len(states) != 40 {
		t.Errorf("%d dead letters, want 40", len(states))
	}
	abort := begin("open", &kgo.Record{Topic: journal, Key: []byte("not yet")})
	ended := make(chan error, 1)
	go func() {
		<-time.After(700 * time.Millisecond)
		ended <- abort()
	}()
	start := time.Now()
	e.run(e.job())
	if d := time.Since(start); d < 600*time.Millisecond {
		t.Errorf("the journal was read past an open transaction, within %v", d)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	e.checkReplayed(all)
}

// TestNewestEqualsSorting compares Newest with sorting all records.
func TestNewestEqualsSorting(t *testing.T) {
	e := newEnv(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var written []int64
	outputs := producer.RecordBuilder{DeadLetterTopic: deadTopic}
	for n := range 200 {
		r := outputs.DeadLetter(event(n))
		r.Partition, r.Timestamp = int32(n%partitions), time.UnixMilli(rng.Int64N(1<<40))
		e.produce(r)
		written = append(written, r.Timestamp.UnixMilli())
	}
	slices.Sort(written)
	s, err := replay.OpenSnapshot(context.Background(), e.topics())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, limit := range []int{1, 7, 199, 200, 500} {
		got, selected, err := replay.Newest(context.Background(), s, replay.Filter{Limit: limit}, func(r *replay.Record) int64 { return r.Raw.Timestamp.UnixMilli() })
		if err != nil || selected != 200 || !slices.Equal(got, written[max(0, 200-limit):]) {
			t.Errorf("limit %d: %d of %d, %v", limit, len(got), selected, err)
		}
	}
}

// TestFilters tries each field of a filter alone, and several together.
func TestFilters(t *testing.T) {
	e := newEnv(t)
	e.feed(30)
	j := e.job()
	j.Limit = 5
	e.run(j)
	e.produce(&kgo.Record{Topic: deadTopic, Value: []byte("not ours")})
	s, err := replay.OpenSnapshot(context.Background(), e.topics())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		filter replay.Filter
		want   int
	}{
		"none":          {filter: replay.Filter{}, want: 31},
		"open":          {filter: replay.Filter{States: []replay.State{replay.Open}}, want: 25},
		"replayed":      {filter: replay.Filter{States: []replay.State{replay.Replayed}}, want: 5},
		"foreign":       {filter: replay.Filter{States: []replay.State{replay.Foreign}}, want: 1},
		"reason":        {filter: replay.Filter{Reasons: []schemas.Reason{schemas.NotFound}}, want: 10},
		"two reasons":   {filter: replay.Filter{Reasons: []schemas.Reason{schemas.NotFound, schemas.LookupFailed}}, want: 30},
		"code":          {filter: replay.Filter{Codes: []int{502}}, want: 20},
		"call":          {filter: replay.Filter{CallIDs: []string{"c3", "c4", "c99"}}, want: 2},
		"partition":     {filter: replay.Filter{Partitions: []int32{3}}, want: 7},
		"positions":     {filter: replay.Filter{Positions: []replay.Position{e.positions[3], e.positions[9], {Partition: 1, Offset: 99}, {Partition: 77}}}, want: 2},
		"since":         {filter: replay.Filter{Since: later}, want: 0},
		"until":         {filter: replay.Filter{Until: later}, want: 31},
		"limit":         {filter: replay.Filter{Limit: 4}, want: 4},
		"all of them":   {filter: replay.Filter{Reasons: []schemas.Reason{schemas.NotFound}, Codes: []int{101050}, CallIDs: []string{"c3", "c4"}, Until: later, Limit: 9}, want: 1},
		"contradiction": {filter: replay.Filter{Reasons: []schemas.Reason{schemas.NotFound}, Codes: []int{502}}, want: 0},
	} {
		got := 0
		for _, err := range s.Records(context.Background(), c.filter) {
			if err != nil {
				t.Fatal(err)
			}
			got++
		}
		if got != c.want {
			t.Errorf("%s: %d records, want %d", name, got, c.want)
		}
	}
}
