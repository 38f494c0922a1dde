package replay_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer/replay"
	"enricher/schemas"
)

// TestKilled: 10,000 letters, and replays that die by SIGKILL at random moments:
// at any request of a transaction, before or after the broker heeds it.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	w.letters(10_000)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex // of what follows
	var armed *victim
	left, heeded, inside := 0, false, 0
	for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.EndTxn} {
		w.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			mu.Lock()
			defer mu.Unlock()
			if armed == nil {
				return nil, nil, false
			}
			if left--; left > 0 {
				return nil, nil, false
			}
			armed.kill()
			armed = nil
			if key != kmsg.InitProducerID {
				inside++
			}
			if heeded {
				return nil, nil, false
			}
			return nil, errors.New("the client is gone"), true
		})
	}
	kills := 0
	for done := false; !done; {
		v := w.spawn()
		mu.Lock()
		armed, left, heeded = v, 1+rng.IntN(6), rng.IntN(2) == 0
		mu.Unlock()
		killed := v.end(t)
		if killed {
			kills++
		}
		done = !killed
		mu.Lock()
		armed = nil
		mu.Unlock()
	}
	t.Logf("%d kills, %d of them inside a transaction", kills, inside)
	if inside < 5 {
		t.Errorf("only %d kills hit a transaction: this shows little", inside)
	}
	w.check(all)
}

// TestEveryThird: filters pick letters in any order; what they leave is taken
// later, once.
func TestEveryThird(t *testing.T) {
	w := newWorld(t)
	w.letters(3000)
	j := w.job()
	j.Reasons = []schemas.Reason{schemas.NotFound}
	if r := w.run(j); r.Completed != 1000 {
		t.Errorf("%d done, want 1000", r.Completed)
	}
	w.check(func(n int) bool { return n%3 == 0 })
	j = w.job()
	j.Limit = 700
	if r := w.run(j); r.Completed != 700 {
		t.Errorf("%d done, want 700", r.Completed)
	}
	j.Limit = 0
	if r := w.run(j); r.Completed != 1300 || r.Plan.DeadLetters != 1300 {
		t.Errorf("%d done of %d, want 1300", r.Completed, r.Plan.DeadLetters)
	}
	w.check(all)
	if r := w.run(j); r.Completed != 0 {
		t.Errorf("%d replayed again", r.Completed)
	}
}

// TestTwoOperators: a second replay takes over, and the first says so and stops.
func TestTwoOperators(t *testing.T) {
	w := newWorld(t)
	w.letters(2000)
	j := w.job()
	j.Rate = 1000
	var second replay.Result
	first := &watch{t: t, committed: func(n int) {
		if n == 500 {
			j := w.job()
			j.Limit = 700
			second = w.run(j)
		}
	}}
	result, err := replay.Run(context.Background(), j, first)
	if !errors.Is(err, replay.ErrFenced) || result.Completed != 500 || second.Completed != 700 {
		t.Errorf("the first ended with %d done and %v, the second with %d; want %v", result.Completed, err, second.Completed, replay.ErrFenced)
	}
	w.run(w.job())
	w.check(all)
}

// TestTakenOverAtRequest: the second replay does all its work while a request of
// the first is on its way.
func TestTakenOverAtRequest(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.EndTxn} {
		t.Run(key.Name(), func(t *testing.T) {
			w := newWorld(t)
			w.letters(1500)
			var begun atomic.Bool
			w.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
				w.cluster.KeepControl()
				if !begun.Swap(true) {
					w.cluster.SleepControl(func() { w.run(w.job()) })
				}
				return nil, nil, false
			})
			result, err := replay.Run(context.Background(), w.job(), &watch{t: t})
			if !errors.Is(err, replay.ErrFenced) || result.Completed != 0 {
				t.Errorf("%d done, %v; want %v", result.Completed, err, replay.ErrFenced)
			}
			w.check(all)
		})
	}
}

// TestTakesOverInTheMiddle: the first replay commits once more just before the
// second one has the id; what the second knows of the journal must be newer.
func TestTakesOverInTheMiddle(t *testing.T) {
	w := newWorld(t)
	w.letters(1500)
	var inits atomic.Int32
	w.cluster.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		if inits.Add(1) == 1 {
			w.cluster.SleepControl(func() {
				j := w.job()
				j.Limit = 700
				w.run(j)
			})
		}
		return nil, nil, false
	})
	if r := w.run(w.job()); r.Completed != 800 {
		t.Errorf("%d done after the other's 700, want 800", r.Completed)
	}
	w.check(all)
}

// TestEndUnknown: the answer to the end of a transaction is lost, whether the
// broker committed or never heard of it. The journal tells.
func TestEndUnknown(t *testing.T) {
	for name, heeded := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.letters(1500)
			n, ours := 0, false
			w.cluster.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
				w.cluster.KeepControl()
				if n++; ours || n < 2 || n > 5 { // the client tries again by itself first
					return nil, nil, false
				}
				if heeded && n == 2 {
					ours = true
					w.cluster.SleepControl(func() {
						if _, err := w.feeder.Request(context.Background(), req); err != nil {
							t.Error(err)
						}
					})
					ours = false
				}
				return nil, errors.New("the connection is cut"), true
			})
			o := &watch{t: t}
			result, err := replay.Run(context.Background(), w.job(), o)
			if err != nil || result.Completed != 1500 || result.Expired != 0 {
				t.Errorf("%d done, %d gone, %v", result.Completed, result.Expired, err)
			}
			if o.startOver.Load() == 0 {
				t.Error("the run did not start over: this shows nothing")
			}
			w.check(all)
		})
	}
}

// TestLettersArriveMeanwhile: a replay ends where the topic ended when it began.
func TestLettersArriveMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.letters(1000)
	j := w.job()
	j.Rate = 2000
	result, err := replay.Run(context.Background(), j, &watch{t: t, committed: func(int) {
		if w.fed < 1500 {
			w.letters(500)
		}
	}})
	if err != nil || result.Completed != 1000 || w.fed != 1500 {
		t.Errorf("%d done, %v", result.Completed, err)
	}
	w.check(func(n int) bool { return n < 1000 })
	w.run(w.job())
	w.check(all)
}

// TestExpireMeanwhile: retention deletes letters before the replay comes to them.
func TestExpireMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.letters(6000)
	deleted := false
	result, err := replay.Run(context.Background(), w.job(), &watch{t: t, committed: func(int) {
		if deleted {
			return
		}
		deleted = true
		// The replay is in the first partition; the last two lose letters.
		offsets := kadm.Offsets{}
		offsets.AddOffset(deadTopic, 2, 750, -1)
		offsets.AddOffset(deadTopic, 3, 1500, -1)
		_, err := w.admin().DeleteRecords(context.Background(), offsets)
		if err != nil {
			t.Error(err)
		}
	}})
	if err != nil || result.Completed+result.Expired != 6000 || result.Expired != 750+1500 {
		t.Errorf("%d done, %d gone, %v", result.Completed, result.Expired, err)
	}
	w.check(func(n int) bool {
		ref := w.refs[n]
		return ref.Partition < 2 || ref.Partition == 2 && ref.Offset >= 750
	})
}

// TestRecreated: the markers of a dead-letter topic that was deleted say nothing
// about the letters of one with the same name, and a replay does not go on from
// one to the other.
func TestRecreated(t *testing.T) {
	w := newWorld(t)
	w.letters(100)
	w.run(w.job())
	recreate := func() {
		ctx := context.Background()
		_, err := w.admin().DeleteTopic(ctx, deadTopic)
		if err == nil {
			_, err = w.admin().CreateTopic(ctx, partitions, 1, nil, deadTopic)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.feeder.PurgeTopicsFromClient(deadTopic)
	}
	recreate()
	w.letters(2000)
	j := w.job()
	j.Rate = 1000
	again := false
	result, err := replay.Run(context.Background(), j, &watch{t: t, committed: func(int) {
		if !again {
			again = true
			recreate()
			w.letters(300)
		}
	}})
	if !errors.Is(err, replay.ErrRecreated) {
		t.Errorf("%d done, %v; want %v", result.Completed, err, replay.ErrRecreated)
	}
	if result := w.run(w.job()); result.Completed != 300 {
		t.Errorf("%d of the 300 new letters replayed", result.Completed)
	}
	for v, n := range w.replayed() {
		if n != 1 {
			t.Errorf("%s replayed %d times", v, n)
		}
	}
}

// TestInterrupted: a run that is told to end says so, and the next one goes on.
func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	w.letters(1000)
	ctx, cancel := context.WithCancel(context.Background())
	j := w.job()
	j.Rate = 400
	began := time.Now()
	result, err := replay.Run(ctx, j, &watch{t: t, committed: func(n int) {
		if n == 400 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || result.Completed != 400 {
		t.Errorf("%d done, %v", result.Completed, err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("it took %v to end", d)
	}
	if r := w.run(w.job()); r.Completed != 600 {
		t.Errorf("%d done by the second run, want 600", r.Completed)
	}
	w.check(all)
}
