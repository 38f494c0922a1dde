package replay_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer/replay"
	"enricher/schemas"
)

// polite returns a job that does not take over from another run.
func (e *env) polite() replay.Job {
	j := e.job()
	j.TakeOver, j.By, j.Host = false, "ops", "host-1"
	return j
}

// TestSecondRunLeavesTheFirstAlone starts a second run, of another selection, while
// the first one makes a transaction every ten seconds.
func TestSecondRunLeavesTheFirstAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newVirtualEnv(t)
		e.feed(30)
		first := e.polite()
		first.Reasons, first.Rate = []schemas.Reason{schemas.NotFound}, 0.1
		var result replay.Result
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			result, err = replay.Run(context.Background(), first, &watch{t: t})
		}()
		time.Sleep(25 * time.Second)
		second := e.polite()
		second.Reasons = []schemas.Reason{schemas.LookupFailed}
		o := &watch{t: t}
		_, secondErr := replay.Run(context.Background(), second, o)
		var running *replay.RunningError
		if !errors.As(secondErr, &running) || running.Other.By != "ops" || running.Other.Host != "host-1" {
			t.Errorf("the second run returned %v, want a RunningError that names the first", secondErr)
		}
		if len(o.waiting) != 1 {
			t.Errorf("the second run reported %d others, want 1", len(o.waiting))
		}
		<-done
		if err != nil || result.Completed != 10 {
			t.Errorf("the first run completed %d, %v; want 10", result.Completed, err)
		}
		if r := e.run(second); r.Completed != 20 {
			t.Errorf("the second selection: %d completed, want 20", r.Completed)
		}
		e.checkReplayed(all)
	})
}

// TestRunAfterOneThatWasCutOff: a run that cannot say that it ended is taken for dead
// once it has been silent, and only once.
func TestRunAfterOneThatWasCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newVirtualEnv(t)
		e.feed(100)
		var mu sync.Mutex // guards the two below
		var cut bool
		var conns []net.Conn
		first := e.polite()
		first.Rate = 20
		first.Kafka = []kgo.Opt{kgo.SeedBrokers(e.brokers...), kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if cut {
				return nil, errors.New("cut off")
			}
			c, err := e.dial(ctx, network, address)
			if err == nil {
				conns = append(conns, c)
			}
			return c, err
		})}
		ctx, cancel := context.WithCancel(context.Background())
		_, err := replay.Run(ctx, first, &watch{t: t, committed: func(n int) {
			if n == 40 {
				mu.Lock()
				cut = true
				for _, c := range conns {
					_ = c.Close()
				}
				mu.Unlock()
				cancel()
			}
		}})
		if err == nil {
			t.Fatal("the first run was not cut off, so this test shows nothing")
		}
		start, o := time.Now(), &watch{t: t}
		result, err := replay.Run(context.Background(), e.polite(), o)
		if err != nil || result.Completed != 60 || len(o.waiting) != 1 {
			t.Errorf("%d completed, %v, %d others; want 60 after one other", result.Completed, err, len(o.waiting))
		}
		if d := time.Since(start); d < 4*time.Second || d > 30*time.Second {
			t.Errorf("the second run took %v", d)
		}
		o = &watch{t: t}
		if _, err := replay.Run(context.Background(), e.polite(), o); err != nil || len(o.waiting) != 0 {
			t.Errorf("the third run: %v, %d others; want none", err, len(o.waiting))
		}
		e.checkReplayed(all)
	})
}

// TestReopenUndoesDiscard discards half of the dead letters by mistake and reopens
// them; those that were replayed are not reopened.
func TestReopenUndoesDiscard(t *testing.T) {
	e := newEnv(t)
	e.feed(1200)
	j := e.job()
	j.Limit = 300
	e.run(j)
	discard := e.polite()
	discard.Action, discard.Note = replay.Discarded, "a mistake"
	if r := e.run(discard); r.Completed != 900 {
		t.Errorf("%d discarded, want 900", r.Completed)
	}
	reopen := e.polite()
	reopen.Action, reopen.Limit = replay.Open, 600
	if r := e.run(reopen); r.Completed != 600 || r.Expired != 0 {
		t.Errorf("%d reopened, %d expired; want 600", r.Completed, r.Expired)
	}
	reopen.Limit = 0
	if r := e.run(reopen); r.Completed != 300 || r.Plan.DeadLetters != 300 {
		t.Errorf("%d of %d reopened, want 300", r.Completed, r.Plan.DeadLetters)
	}
	if r := e.run(e.polite()); r.Completed != 900 {
		t.Errorf("%d replayed, want 900", r.Completed)
	}
	for v, n := range e.replayed() {
		if n != 1 {
			t.Errorf("%s replayed %d times", v, n)
		}
	}
	if n := len(e.replayed()); n != 1200 {
		t.Errorf("%d replayed, want 1200", n)
	}
	s, err := replay.OpenSnapshot(context.Background(), e.topics())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pos := e.positions[1199]
	history, err := s.History(context.Background(), []replay.Position{pos})
	if err != nil {
		t.Fatal(err)
	}
	var actions []replay.State
	for _, m := range history[pos] {
		if m.By != "ops" {
			t.Errorf("%s by %q", m.Action, m.By)
		}
		actions = append(actions, m.Action)
	}
	if len(actions) != 3 || actions[0] != replay.Discarded || actions[1] != replay.Open || actions[2] != replay.Replayed {
		t.Errorf("the history is %v", actions)
	}
}
