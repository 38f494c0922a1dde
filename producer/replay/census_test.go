package replay_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer/replay"
	"enricher/schemas"
)

// checkCensus compares an updated census with a new snapshot.
func (e *env) checkCensus(c *replay.Census) {
	e.t.Helper()
	if err := c.Update(context.Background()); err != nil {
		e.t.Fatal(err)
	}
	s, err := replay.OpenSnapshot(context.Background(), e.topics())
	if err != nil {
		e.t.Fatal(err)
	}
	defer s.Close()
	type open struct {
		reason schemas.Reason
		event  time.Time
	}
	want, got := make(map[open]int), make(map[open]int)
	for r, err := range s.Records(context.Background(), replay.Filter{States: []replay.State{replay.Open}}) {
		if err != nil {
			e.t.Fatal(err)
		}
		want[open{r.DeadLetter.Reason, r.EventTime}]++
	}
	for reason, event := range c.Open() {
		got[open{reason, event}]++
	}
	if !maps.Equal(got, want) {
		e.t.Errorf("%d groups of open dead letters, want %d", len(got), len(want))
	}
}

// TestCensusFollowsTheTopic brings a census up to date after random replays, discards
// and reopenings, new dead letters and foreign records, and after retention has
// deleted some. Whatever it has read, it does not read again.
func TestCensusFollowsTheTopic(t *testing.T) {
	e := newEnv(t)
	c := replay.NewCensus(e.topics())
	defer c.Close()
	e.checkCensus(c) // without a journal
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 12 {
		switch rng.IntN(5) {
		case 0:
			e.feed(1 + rng.IntN(300))
		case 1:
			e.produce(&kgo.Record{Topic: deadTopic, Value: []byte("not ours")})
		case 2, 3:
			j := e.job()
			j.Action = []replay.State{replay.Replayed, replay.Discarded, replay.Open}[rng.IntN(3)]
			j.Limit = 1 + rng.IntN(100)
			e.run(j)
		case 4:
			ends, err := e.admin().ListEndOffsets(t.Context(), deadTopic)
			if err != nil {
				t.Fatal(err)
			}
			offsets := kadm.Offsets{}
			offsets.AddOffset(deadTopic, 1, ends[deadTopic][1].Offset/2, -1)
			if _, err := e.admin().DeleteRecords(t.Context(), offsets); err != nil {
				t.Fatal(err)
			}
		}
		e.checkCensus(c)
	}

	e.feed(400)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	var fetched atomic.Int32
	e.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		fetched.Add(1)
		return nil, nil, false
	})
	if err := c.Update(t.Context()); err != nil || fetched.Load() > 0 {
		t.Errorf("%d fetch requests although nothing was written, %v", fetched.Load(), err)
	}
	e.feed(1)
	if err := c.Update(t.Context()); err != nil || fetched.Load() != 1 {
		t.Errorf("%d fetch requests for one dead letter, %v", fetched.Load(), err)
	}
}

// TestCensusStartsOver: the topic is deleted and created again.
func TestCensusStartsOver(t *testing.T) {
	e := newEnv(t)
	e.feed(100)
	c := replay.NewCensus(e.topics())
	defer c.Close()
	e.checkCensus(c)
	if _, err := e.admin().DeleteTopic(t.Context(), deadTopic); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(t.Context()); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("without the topic: %v", err)
	}
	for range c.Open() {
		t.Fatal("a dead letter of a topic that is gone is open")
	}
	if _, err := e.admin().CreateTopic(t.Context(), partitions, 1, nil, deadTopic); err != nil {
		t.Fatal(err)
	}
	e.feeder.PurgeTopicsFromClient(deadTopic)
	e.feed(7)
	e.checkCensus(c)
}

// TestCensusSurvivesAFailure: the broker fails, and is back.
func TestCensusSurvivesAFailure(t *testing.T) {
	e := newEnv(t)
	e.feed(100)
	c := replay.NewCensus(e.topics())
	defer c.Close()
	e.checkCensus(c)
	var away atomic.Bool
	e.cluster.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		return nil, errors.New("broker away"), away.Load()
	})
	away.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Update(ctx); err == nil {
		t.Error("no error")
	}
	n := 0
	for range c.Open() {
		n++
	}
	if n != 100 {
		t.Errorf("%d dead letters are open during the failure, want 100", n)
	}
	away.Store(false)
	e.feed(10)
	e.checkCensus(c)
}
