package replay_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer"
	"enricher/producer/replay"
	"enricher/schemas"
)

// TestReplayFilterAndLimit replays a third of the dead letters, then some of the
// others, then the rest.
func TestReplayFilterAndLimit(t *testing.T) {
	e := newEnv(t)
	e.feed(3000)
	j := e.job()
	j.Reasons = []schemas.Reason{schemas.NotFound}
	if r := e.run(j); r.Completed != 1000 {
		t.Errorf("%d completed, want 1000", r.Completed)
	}
	e.checkReplayed(func(n int) bool { return n%3 == 0 })
	j = e.job()
	j.Limit = 700
	if r := e.run(j); r.Completed != 700 {
		t.Errorf("%d completed, want 700", r.Completed)
	}
	j.Limit = 0
	if r := e.run(j); r.Completed != 1300 || r.Plan.DeadLetters != 1300 {
		t.Errorf("%d completed of %d, want 1300", r.Completed, r.Plan.DeadLetters)
	}
	e.checkReplayed(all)
	if r := e.run(j); r.Completed != 0 {
		t.Errorf("%d replayed again", r.Completed)
	}
}

// TestReplayRate measures the rate in virtual time.
func TestReplayRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newVirtualEnv(t)
		e.feed(210)
		j := e.job()
		j.Rate = 20
		start := time.Now()
		_, err := replay.Run(context.Background(), j, &watch{t: t, committed: func(n int) {
			if allowed := 20 * time.Since(start).Seconds(); float64(n) > allowed {
				t.Errorf("%d dead letters after %v, want at most %.0f", n, time.Since(start), allowed)
			}
		}})
		if err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("210 dead letters at 20 per second took %v", d)
		}
		e.checkReplayed(all)
	})
}

// TestReplayIgnoresLaterDeadLetters produces dead letters during a replay, which
// ends where the topic ended when it started.
func TestReplayIgnoresLaterDeadLetters(t *testing.T) {
	e := newEnv(t)
	e.feed(1000)
	j := e.job()
	j.Rate = 2000
	result, err := replay.Run(context.Background(), j, &watch{t: t, committed: func(int) {
		if e.fed < 1500 {
			e.feed(500)
		}
	}})
	if err != nil || result.Completed != 1000 || e.fed != 1500 {
		t.Errorf("%d completed of %d, %v; want 1000 of 1500", result.Completed, e.fed, err)
	}
	e.checkReplayed(func(n int) bool { return n < 1000 })
	e.run(e.job())
	e.checkReplayed(all)
}

// TestRetentionDeletesDuringReplay deletes dead letters before the replay reaches
// them.
func TestRetentionDeletesDuringReplay(t *testing.T) {
	e := newEnv(t)
	e.feed(6000)
	deleted := false
	result, err := replay.Run(context.Background(), e.job(), &watch{t: t, committed: func(int) {
		if deleted {
			return
		}
		deleted = true
		// The replay is in the first partition; the last two lose dead letters.
		offsets := kadm.Offsets{}
		offsets.AddOffset(deadTopic, 2, 750, -1)
		offsets.AddOffset(deadTopic, 3, 1500, -1)
		_, err := e.admin().DeleteRecords(context.Background(), offsets)
		if err != nil {
			t.Error(err)
		}
	}})
	if err != nil || result.Completed+result.Expired != 6000 || result.Expired != 750+1500 {
		t.Errorf("%d completed, %d expired, %v; want 3750 and 2250", result.Completed, result.Expired, err)
	}
	e.checkReplayed(func(n int) bool {
		pos := e.positions[n]
		return pos.Partition < 2 || pos.Partition == 2 && pos.Offset >= 750
	})
}

// TestRecreatedTopicStopsReplay re-creates the dead-letter topic. The markers of the
// old topic must not apply to the new one, and a replay must not continue in it.
func TestRecreatedTopicStopsReplay(t *testing.T) {
	e := newEnv(t)
	e.feed(100)
	e.run(e.job())
	recreate := func() {
		ctx := context.Background()
		_, err := e.admin().DeleteTopic(ctx, deadTopic)
		if err == nil {
			_, err = e.admin().CreateTopic(ctx, partitions, 1, nil, deadTopic)
		}
		if err != nil {
			t.Fatal(err)
		}
		e.feeder.PurgeTopicsFromClient(deadTopic)
	}
	recreate()
	e.feed(2000)
	j := e.job()
	j.Rate = 1000
	recreated := false
	result, err := replay.Run(context.Background(), j, &watch{t: t, committed: func(int) {
		if !recreated {
			recreated = true
			recreate()
			e.feed(300)
		}
	}})
	if !errors.Is(err, replay.ErrRecreated) {
		t.Errorf("%d completed, %v; want %v", result.Completed, err, replay.ErrRecreated)
	}
	if result := e.run(e.job()); result.Completed != 300 {
		t.Errorf("%d of the 300 new dead letters replayed", result.Completed)
	}
	for v, n := range e.replayed() {
		if n != 1 {
			t.Errorf("%s replayed %d times", v, n)
		}
	}
}

// TestInterruptedReplayIsContinued cancels a run; the next one completes the rest.
func TestInterruptedReplayIsContinued(t *testing.T) {
	e := newEnv(t)
	e.feed(1000)
	ctx, cancel := context.WithCancel(context.Background())
	j := e.job()
	j.Rate = 400
	start := time.Now()
	result, err := replay.Run(ctx, j, &watch{t: t, committed: func(n int) {
		if n == 400 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || result.Completed != 400 {
		t.Errorf("%d completed, %v; want 400, %v", result.Completed, err, context.Canceled)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the interrupted run took %v", d)
	}
	if r := e.run(e.job()); r.Completed != 600 {
		t.Errorf("the second run completed %d, want 600", r.Completed)
	}
	e.checkReplayed(all)
}

// TestTooLargeEventStaysOpen replays to a topic that rejects three events by their
// size, and the others only when they come in one batch.
func TestTooLargeEventStaysOpen(t *testing.T) {
	e := newEnv(t)
	limit := "10000"
	if _, err := e.admin().CreateTopic(context.Background(), 1, 1, map[string]*string{"max.message.bytes": &limit}, "narrow"); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	outputs := producer.RecordBuilder{DeadLetterTopic: deadTopic}
	for n := range 60 {
		ev, f := event(n)
		size := 1000
		if n%20 == 7 {
			size = 20_000
		}
		ev.Topic, ev.Value = "narrow", make([]byte, size)
		for i := range ev.Value { // random, because the topic would accept what compresses well
			ev.Value[i] = byte(rng.Uint32())
		}
		e.produce(outputs.DeadLetter(ev, f))
	}
	result := e.run(e.job())
	if result.Completed != 57 || result.Plan.Skipped[replay.TooLarge] != 3 || result.Expired != 0 {
		t.Errorf("%d completed, %v skipped, %d expired", result.Completed, result.Plan.Skipped, result.Expired)
	}
	if n := len(e.read("narrow")); n != 57 {
		t.Errorf("%d events arrived, want 57", n)
	}
}

// TestReplayWaitsForBroker takes the broker away for a second.
func TestReplayWaitsForBroker(t *testing.T) {
	e := newEnv(t)
	e.feed(2000)
	var away atomic.Bool
	var rejected atomic.Int32
	e.cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		if away.Load() {
			rejected.Add(1)
			return nil, errors.New("broker away"), true
		}
		return nil, nil, false
	})
	j := e.job()
	j.Rate = 2000
	result, err := replay.Run(context.Background(), j, &watch{t: t, committed: func(n int) {
		if n == 1000 {
			away.Store(true)
			time.AfterFunc(time.Second, func() { away.Store(false) })
		}
	}})
	if err != nil || result.Completed != 2000 {
		t.Errorf("%d completed, %v; want 2000", result.Completed, err)
	}
	if rejected.Load() == 0 {
		t.Error("no request was rejected, so this test shows nothing")
	}
	e.checkReplayed(all)
}

// TestReplayDropsHeaders: events lose the headers that the job names, wherever these
// are, and nothing else. Those of the replay cannot be dropped.
func TestReplayDropsHeaders(t *testing.T) {
	e := newEnv(t)
	own := []kgo.RecordHeader{{Key: "trace", Value: []byte("1")}, {Key: "kept", Value: []byte("2")}, {Key: schemas.HeaderReplays, Value: []byte("7")}, {Key: "trace"}}
	_, failure := event(0)
	outputs := producer.RecordBuilder{DeadLetterTopic: deadTopic}
	e.produce(outputs.DeadLetter(&kgo.Record{Topic: inTopic, Timestamp: time.Now(), Value: []byte("a"), Headers: own}, failure),
		outputs.DeadLetter(&kgo.Record{Topic: inTopic, Timestamp: time.Now(), Value: []byte("b"), Headers: own[1:2]}, failure))
	j := e.job()
	j.DropHeaders = []string{"trace", "tracer", schemas.HeaderReplays, schemas.HeaderOriginalTimestamp}
	result := e.run(j)
	if want := map[string]int{"trace": 1, "tracer": 0}; result.Completed != 2 || result.Plan.Dropped["trace"] != 1 || result.Plan.Dropped["tracer"] != 0 {
		t.Errorf("%d completed, %v dropped, want %v", result.Completed, result.Plan.Dropped, want)
	}
	want := map[string][]string{
		"a": {"kept", schemas.HeaderReplays, schemas.HeaderOriginalTimestamp, schemas.HeaderReplays},
		"b": {"kept", schemas.HeaderOriginalTimestamp, schemas.HeaderReplays},
	}
	got := make(map[string][]string)
	for _, r := range e.read(inTopic) {
		for _, h := range r.Headers {
			got[string(r.Value)] = append(got[string(r.Value)], h.Key)
		}
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("headers %v, want %v", got, want)
	}
}
