package replay_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer/replay"
)

// TestReplaySurvivesKill kills replays of 3,000 dead letters at a random request of
// a transaction, before or after the broker processes that request.
func TestReplaySurvivesKill(t *testing.T) {
	e := newEnv(t)
	e.feed(3_000)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var (
		mu       sync.Mutex     // guards the variables below
		armed    *childInstance // to be killed
		requests int            // until it is killed
		applied  bool           // the broker processes the last request
		inside   int            // kills inside a transaction
	)
	for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.EndTxn} {
		e.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			e.cluster.KeepControl()
			mu.Lock()
			defer mu.Unlock()
			if armed == nil {
				return nil, nil, false
			}
			if requests--; requests > 0 {
				return nil, nil, false
			}
			armed.kill()
			armed = nil
			if key != kmsg.InitProducerID {
				inside++
			}
			if applied {
				return nil, nil, false
			}
			return nil, errors.New("the client was killed"), true
		})
	}
	kills := 0
	for completed := false; !completed; {
		c := e.spawn()
		mu.Lock()
		armed, requests, applied = c, 1+rng.IntN(6), rng.IntN(2) == 0
		mu.Unlock()
		killed := c.wait(t)
		if killed {
			kills++
		}
		completed = !killed
		mu.Lock()
		armed = nil
		mu.Unlock()
	}
	t.Logf("%d kills, %d of them inside a transaction", kills, inside)
	if inside < 5 {
		t.Errorf("only %d kills hit a transaction, too few for this test to show anything", inside)
	}
	e.checkReplayed(all)
}

// TestSecondReplayFencesFirst runs a second replay between two transactions of the
// first one, which must stop with ErrFenced.
func TestSecondReplayFencesFirst(t *testing.T) {
	e := newEnv(t)
	e.feed(2000)
	j := e.job()
	j.Rate = 1000
	var second replay.Result
	first := &watch{t: t, committed: func(n int) {
		if n == 500 {
			j := e.job()
			j.Limit = 700
			second = e.run(j)
		}
	}}
	result, err := replay.Run(context.Background(), j, first)
	if !errors.Is(err, replay.ErrFenced) || result.Completed != 500 || second.Completed != 700 {
		t.Errorf("the first replay completed %d and returned %v, the second completed %d; want 500, %v, 700", result.Completed, err, second.Completed, replay.ErrFenced)
	}
	e.run(e.job())
	e.checkReplayed(all)
}

// TestFencedDuringRequest runs a second replay while a request of the first one is
// in flight.
func TestFencedDuringRequest(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.EndTxn} {
		t.Run(key.Name(), func(t *testing.T) {
			e := newEnv(t)
			e.feed(1500)
			var started atomic.Bool
			e.cluster.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
				e.cluster.KeepControl()
				// The run announces itself outside a transaction, before it fences others.
				p, ok := req.(*kmsg.ProduceRequest)
				if inTransaction := !ok || p.TransactionID != nil; inTransaction && !started.Swap(true) {
					e.cluster.SleepControl(func() { e.run(e.job()) })
				}
				return nil, nil, false
			})
			result, err := replay.Run(context.Background(), e.job(), &watch{t: t})
			if !errors.Is(err, replay.ErrFenced) || result.Completed != 0 {
				t.Errorf("%d completed, %v; want 0, %v", result.Completed, err, replay.ErrFenced)
			}
			e.checkReplayed(all)
		})
	}
}

// TestFencedWithAnotherError: the first replay's error says that its transaction was
// ended, but not by whom. It must not take the transactional id back.
func TestFencedWithAnotherError(t *testing.T) {
	e := newEnv(t)
	e.feed(1500)
	var ends atomic.Int32
	var second replay.Result
	e.cluster.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		if ends.Add(1) != 1 {
			return nil, nil, false
		}
		e.cluster.SleepControl(func() {
			j := e.job()
			j.Limit = 700
			second = e.run(j)
		})
		resp := req.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode = kerr.InvalidTxnState.Code
		return resp, nil, true
	})
	result, err := replay.Run(context.Background(), e.job(), &watch{t: t})
	if !errors.Is(err, replay.ErrFenced) || result.Completed != 0 || second.Completed != 700 {
		t.Errorf("the first replay completed %d and returned %v, the second completed %d; want 0, %v, 700", result.Completed, err, second.Completed, replay.ErrFenced)
	}
	e.run(e.job())
	e.checkReplayed(all)
}

// TestJournalIsReadAfterFencing has another replay commit just before a replay gets
// the transactional id. The replay must see those commits in the journal.
func TestJournalIsReadAfterFencing(t *testing.T) {
	e := newEnv(t)
	e.feed(1500)
	var inits atomic.Int32
	e.cluster.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		if inits.Add(1) == 1 {
			e.cluster.SleepControl(func() {
				j := e.job()
				j.Limit = 700
				e.run(j)
			})
		}
		return nil, nil, false
	})
	if r := e.run(e.job()); r.Completed != 800 {
		t.Errorf("%d completed after the other's 700, want 800", r.Completed)
	}
	e.checkReplayed(all)
}

// TestUnknownTransactionResult loses the responses to EndTxn, after the broker
// committed the transaction or without the request reaching it. The replay must
// find the result in the journal.
func TestUnknownTransactionResult(t *testing.T) {
	for name, applied := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.feed(1500)
			n, ours := 0, false
			e.cluster.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
				e.cluster.KeepControl()
				if n++; ours || n < 2 || n > 5 { // kgo retries before it gives up
					return nil, nil, false
				}
				if applied && n == 2 {
					ours = true
					e.cluster.SleepControl(func() {
						if _, err := e.feeder.Request(context.Background(), req); err != nil {
							t.Error(err)
						}
					})
					ours = false
				}
				return nil, errors.New("connection lost"), true
			})
			o := &watch{t: t}
			result, err := replay.Run(context.Background(), e.job(), o)
			if err != nil || result.Completed != 1500 || result.Expired != 0 {
				t.Errorf("%d completed, %d expired, %v", result.Completed, result.Expired, err)
			}
			if o.retries.Load() == 0 {
				t.Error("the run did not retry, so this test shows nothing")
			}
			e.checkReplayed(all)
		})
	}
}

// TestReinitialisedProducerDoesNotCommit makes kgo initialise a fenced transactional
// id again, as it does when retention deletes the last batch it produced, while a
// second replay runs. What the client then produces must not be committed.
func TestReinitialisedProducerDoesNotCommit(t *testing.T) {
	e := newEnv(t)
	e.feed(400)
	var armed atomic.Bool
	var second replay.Result
	var fenced []byte // producer id and epoch of the first replay, as in the header of its batches
	e.cluster.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		e.cluster.KeepControl()
		req := kreq.(*kmsg.ProduceRequest)
		producer := req.Topics[0].Partitions[0].Records[43:53]
		switch {
		case armed.Swap(false):
			fenced = slices.Clone(producer)
			e.cluster.SleepControl(func() {
				j := e.job()
				j.Limit = 100
				second = e.run(j)
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
	j := e.job()
	j.Rate = 200
	o := &watch{t: t, committed: func(n int) { armed.Store(n == 200) }}
	if _, err := replay.Run(context.Background(), j, o); !errors.Is(err, replay.ErrFenced) {
		t.Errorf("the first replay returned %v, want %v", err, replay.ErrFenced)
	}
	if second.Completed != 100 || o.retries.Load() != 1 {
		t.Errorf("the second replay completed %d, the first one retried %d times; want 100 and 1", second.Completed, o.retries.Load())
	}
	e.run(e.job())
	e.checkReplayed(all)
}
