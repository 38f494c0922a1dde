package kafkaproxy_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/test/kafkaproxy"
)

// TestTransactionIsTracked: at every point of a transaction the proxy reports
// whether it is open, and afterwards how it ended.
func TestTransactionIsTracked(t *testing.T) {
	onBothFronts(t, 20, func(e *env) {
		for _, step := range []struct {
			at   kafkaproxy.Point
			open bool
		}{
			{kafkaproxy.Point{Key: kmsg.Produce}, false},
			{kafkaproxy.Point{Key: kmsg.Produce, Response: true}, true},
			{kafkaproxy.Point{Key: kmsg.EndTxn}, true},
			{kafkaproxy.Point{Key: kmsg.EndTxn, Response: true}, false},
		} {
			h, done := e.transactionHeldAt(step.at)
			if got := e.proxy.InTransaction(); got != step.open {
				e.Errorf("at %v: open is %v", step.at, got)
			}
			e.hangs(done, step.at.String())
			h.Release()
			if err := <-done; err != nil {
				e.Errorf("after %v: %v", step.at, err)
			}
		}
		if err := <-e.transaction(kgo.TryAbort); err != nil {
			e.Error(err)
		}
		if got, want := e.proxy.Ends(), (kafkaproxy.Ends{Committed: 4, Aborted: 1}); got != want {
			e.Errorf("ends %+v, want %+v", got, want)
		}
	})
}

// TestHeldMessageIsDropped: after a lost response the broker has committed, and
// the client does not know it. A lost request has no effect.
func TestHeldMessageIsDropped(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		response bool
	}{{"response", true}, {"request", false}} {
		t.Run(test.name, func(t *testing.T) {
			onBothFronts(t, 0, func(e *env) {
				h, done := e.transactionHeldAt(kafkaproxy.Point{Key: kmsg.EndTxn, Response: test.response})
				h.Drop()
				if err := <-done; err == nil {
					e.Error("the client got a result")
				}
				n, err := e.committed()
				if test.response && (err != nil || n != 1) {
					e.Errorf("%d records, %v; want the one that was committed", n, err)
				}
				if !test.response && err == nil {
					e.Errorf("the transaction ended, with %d records", n)
				}
			})
		})
	}
}

// TestHoldGivesUp: a message that does not come is not held later either.
func TestHoldGivesUp(t *testing.T) {
	onBothFronts(t, 20, func(e *env) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		if err := e.proxy.Hold(kafkaproxy.Point{Key: kmsg.EndTxn}).Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			e.Errorf("got %v", err)
		}
		e.commit()
		e.proxy.Hold(kafkaproxy.Point{Key: kmsg.EndTxn}).Release()
		e.commit()
	})
}

// TestBlackhole: no message passes and no connection breaks; afterwards the
// messages arrive.
func TestBlackhole(t *testing.T) {
	onBothFronts(t, 20, func(e *env) {
		e.commit()
		e.proxy.SetBlackhole(true)
		done := e.transaction(kgo.TryCommit)
		e.hangs(done, "in the blackhole")
		e.proxy.SetBlackhole(false)
		if err := <-done; err != nil {
			e.Errorf("after the blackhole: %v", err)
		}
	})
}

// TestBlackholeDeliversLate: a request reaches the broker after the blackhole even
// if the client has closed the connection meanwhile.
func TestBlackholeDeliversLate(t *testing.T) {
	onBothFronts(t, 20, func(e *env) {
		h, done := e.transactionHeldAt(kafkaproxy.Point{Key: kmsg.EndTxn})
		e.proxy.SetBlackhole(true)
		h.Release()
		e.client.Close()
		if err := <-done; err == nil {
			e.Error("the client got a result")
		}
		if n, err := e.committed(); err == nil {
			e.Errorf("the transaction ended in the blackhole, with %d records", n)
		}
		e.proxy.SetBlackhole(false)
		if n, err := e.committed(); err != nil || n != 1 {
			e.Errorf("%d records, %v; want the one that was committed late", n, err)
		}
	})
}

// TestDisconnect: connections break, and the next ones work.
func TestDisconnect(t *testing.T) {
	onBothFronts(t, 20, func(e *env) {
		h, done := e.transactionHeldAt(kafkaproxy.Point{Key: kmsg.Produce})
		e.proxy.Disconnect()
		h.Release()
		if err := <-done; err != nil { // the client sends it again
			e.Error(err)
		}
	})
}

// TestOffline: connections break and no new ones are made until the proxy is
// online again.
func TestOffline(t *testing.T) {
	onBothFronts(t, 20, func(e *env) {
		e.commit()
		e.proxy.SetOffline(true)
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		if err := e.client.Ping(ctx); err == nil {
			e.Error("the client reached the broker")
		}
		e.proxy.SetOffline(false)
		e.commit()
	})
}

func TestDelay(t *testing.T) {
	onBothFronts(t, 20, func(e *env) {
		adm := kadm.NewClient(e.client)
		if _, err := adm.BrokerMetadata(context.Background()); err != nil {
			e.Fatal(err)
		}
		e.proxy.SetDelay(100 * time.Millisecond)
		start := time.Now()
		if _, err := adm.ListEndOffsets(context.Background(), topic); err != nil {
			e.Fatal(err)
		}
		if took := time.Since(start); took < 200*time.Millisecond {
			e.Errorf("request and response took %v, with a delay of 100ms each", took)
		}
	})
}

// TestAction: what an action does to the end of a transaction, as the client and
// as a reader see it.
func TestAction(t *testing.T) {
	t.Parallel()
	respond := func(code int16) func(kmsg.Request, kmsg.Response) {
		return func(req kmsg.Request, resp kmsg.Response) {
			if !req.(*kmsg.EndTxnRequest).Commit {
				panic("the transaction is to be committed")
			}
			resp.(*kmsg.EndTxnResponse).ErrorCode = code
		}
	}
	for _, test := range []struct {
		name      string
		action    kafkaproxy.Action
		result    error // that the client gets; nil: success
		anyError  bool  // instead of result
		committed bool
		responses int // of the broker
	}{
		{name: "none", committed: true, responses: 1},
		{
			name:   "changed response",
			action: kafkaproxy.Action{Respond: respond(kerr.InvalidTxnState.Code)},
			result: kerr.InvalidTxnState, committed: true, responses: 1,
		},
		{
			name:   "made response",
			action: kafkaproxy.Action{Drop: true, Respond: respond(kerr.InvalidTxnState.Code)},
			result: kerr.InvalidTxnState,
		},
		{name: "made success", action: kafkaproxy.Action{Drop: true, Respond: respond(0)}},
		{name: "lost response", action: kafkaproxy.Action{Disconnect: true}, anyError: true, committed: true, responses: 1},
		{name: "lost request", action: kafkaproxy.Action{Drop: true, Disconnect: true}, anyError: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBothFronts(t, 0, func(e *env) {
				var requests, responses atomic.Int64
				action := test.action
				action.Before = func() { requests.Add(1) }
				action.After = func() { responses.Add(1) }
				e.proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
					if k == kmsg.EndTxn {
						return &action
					}
					return nil
				})
				err := <-e.transaction(kgo.TryCommit)
				switch {
				case test.anyError && err == nil:
					e.Error("the client got a result")
				case !test.anyError && !errors.Is(err, test.result):
					e.Errorf("the client got %v, want %v", err, test.result)
				}
				if n, err := e.committed(); (err == nil && n == 1) != test.committed {
					e.Errorf("%d records, %v; committed: %v", n, err, test.committed)
				}
				if requests.Load() != 1 || responses.Load() != int64(test.responses) {
					e.Errorf("the hooks saw %d requests and %d responses, want 1 and %d", requests.Load(), responses.Load(), test.responses)
				}
			})
		})
	}
}

// TestMadeResponseKeepsOrder: the response that an action makes waits for those to
// earlier requests of the connection, as the protocol demands.
func TestMadeResponseKeepsOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := new(kfake.VirtualNetwork)
		e := newEnv(t, network.DialContext, kfake.Ports(9092), kfake.ListenFn(network.Listen))
		p := kafkaproxy.New(network.DialContext)
		p.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
			if k == kmsg.Metadata {
				return &kafkaproxy.Action{After: func() { <-time.After(time.Second) }}
			}
			return &kafkaproxy.Action{Drop: true, Respond: func(kmsg.Request, kmsg.Response) {}}
		})
		conn, err := p.DialContext(t.Context(), "tcp", e.broker.ListenAddrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		formatter := kmsg.NewRequestFormatter()
		for i, req := range []kmsg.Request{kmsg.NewPtrMetadataRequest(), kmsg.NewPtrFindCoordinatorRequest()} {
			if _, err := conn.Write(formatter.AppendRequest(nil, req, int32(i))); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 2 {
			if got := readResponse(t, conn); got != i {
				t.Errorf("response %d came when %d was due", got, i)
			}
		}
	})
}
