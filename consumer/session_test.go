package consumer_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/consumer"
	"enricher/consumer/session"
)

// Ways in which the Kafka client or the broker is known to mislead a program
// like this one. They run in real time, on an embedded and on a real Kafka.

// members waits until the group has that many, all partitions are theirs, and
// none has nothing.
func (w *world) members(n int) {
	w.t.Helper()
	adm := kadm.NewClient(w.feeder)
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(50 * time.Millisecond) {
		groups, err := adm.DescribeGroups(context.Background(), w.Group) // fails until the group has a coordinator
		g := groups[w.Group]
		held, idle := 0, 0
		for _, m := range g.Members {
			size := 0
			if a, ok := m.Assigned.AsConsumer(); ok {
				for _, t := range a.Topics {
					size += len(t.Partitions)
				}
			}
			held += size
			if size == 0 {
				idle++
			}
		}
		if g.State == "Stable" && len(g.Members) == n && held == partitions && idle == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the group is %s, with %d members that hold %d partitions; %v", g.State, len(g.Members), held, err)
		}
	}
}

// twoJoins: two members join one after the other, and the first one ends no
// transaction in between, so that its client keeps silent about the second
// loss. It must not commit for a partition that is another's.
func twoJoins(t *testing.T, w *world) {
	w.calls("c", 10*partitions)
	late := func(c *consumer.Config) {
		quick(c)
		c.Retry.LookupDelay = 6 * time.Second
	}
	a := w.start("a", late)
	w.members(1)
	w.start("b", late)
	w.members(2)
	w.start("c", late)
	w.members(3)
	if a.metric("enricher_transactions_total") > 0 {
		t.Fatal("a transaction ended before the second join: this test shows nothing")
	}
	w.await(time.Minute)
	w.calls("d", 2*partitions)
	w.await(time.Minute)
	w.check()
}

// unknownEnd: the end of a transaction is answered with an unknown server
// error, which the client passes off as an abort.
func unknownEnd(happened bool) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		i := w.start("a", quick)
		var ends, forged atomic.Int64
		i.network.onRequest(func(k kmsg.Key) *fate {
			if k != kmsg.EndTxn || ends.Add(1)%3 != 0 || forged.Load() == 2 {
				return nil
			}
			forged.Add(1)
			return &fate{lost: !happened, answer: func(_ kmsg.Request, resp kmsg.Response) {
				resp.(*kmsg.EndTxnResponse).ErrorCode = kerr.UnknownServerError.Code
			}}
		})
		for n := 0; forged.Load() < 2 || n < 10; n++ {
			if n > 150 {
				t.Fatal("no second transaction ends: ", w.ledger.Check(w.outputs()))
			}
			w.calls("c"+strconv.Itoa(n)+"-", partitions)
			<-time.After(200 * time.Millisecond)
		}
		w.await(time.Minute)
		w.check()
	}
}

// expel makes the group's coordinator forget an instance.
func (w *world) expel(instance string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	groups, err := kadm.NewClient(w.feeder).DescribeGroups(ctx, w.Group)
	if err != nil {
		w.t.Error(err)
		return
	}
	for _, m := range groups[w.Group].Members {
		if !strings.HasPrefix(m.ClientID, instance+"@") {
			continue
		}
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group, req.MemberID = w.Group, m.MemberID
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		req.Members = append(req.Members, member)
		resp, err := req.RequestWith(ctx, w.feeder)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			w.t.Error(err)
		}
		return
	}
	w.t.Errorf("%s is no member", instance)
}

// expelled: a member is expelled while it holds rebalances back, between its
// poll and the end of its transaction. The end waits for the heartbeats, which
// wait for a rebalance to be allowed.
func expelled(t *testing.T, w *world) {
	i := w.start("a", quick)
	w.calls("warm-", partitions)
	w.await(time.Minute)
	var armed atomic.Bool
	i.network.onRequest(func(k kmsg.Key) *fate {
		if k != kmsg.Produce || !armed.CompareAndSwap(true, false) {
			return nil
		}
		return &fate{before: func() {
			w.expel("a")
			<-time.After(400 * time.Millisecond) // the next heartbeat tells it
		}}
	})
	for n := range 3 {
		armed.Store(true)
		w.calls("c"+strconv.Itoa(n)+"-", partitions)
		w.await(15 * time.Second)
		if armed.Load() {
			t.Fatal("the member was not expelled: this test shows nothing")
		}
	}
	w.check()
	if n := i.metric("enricher_kafka_session_restarts_total"); n > 0 {
		t.Errorf("%v sessions were rebuilt; an expelled member needs none", n)
	}
}

// blackHole: all packets of one member vanish, in the middle of the end of a
// transaction. The others take over; what it sent before arrives late and does
// no harm; it goes on when packets pass again, and can be ended while they do
// not.
func blackHole(t *testing.T, w *world) {
	a := w.start("a", quick, func(c *consumer.Config) { c.DrainTimeout = 3 * time.Second })
	w.start("b", quick)
	w.members(2)
	w.calls("warm-", 2*partitions)
	w.await(time.Minute)

	gone := make(chan struct{})
	var once atomic.Bool
	a.network.onRequest(func(k kmsg.Key) *fate {
		if k != kmsg.EndTxn || !once.CompareAndSwap(false, true) {
			return nil
		}
		return &fate{before: func() {
			a.network.vanish()
			close(gone)
		}}
	})
	w.calls("c", 2*partitions)
	<-gone
	start := time.Now()
	w.calls("d", 2*partitions)
	// b has to wait for the session time-out, and for the transaction to time
	// out: before that, nobody may know the offsets.
	w.await(30 * time.Second)
	t.Logf("others went on after %v", time.Since(start))
	a.network.reappear()
	w.members(2)
	w.calls("e", 2*partitions)
	w.await(30 * time.Second)
	w.check()

	a.network.vanish()
	start = time.Now()
	a.stop()
	<-a.done
	if took := time.Since(start); a.err != nil || took > 4*time.Second {
		t.Errorf("ended after %v: %v", took, a.err)
	}
	w.calls("f", 2*partitions)
	w.await(30 * time.Second)
	w.check()
}

// closeInHole: a session whose packets vanish is closed nevertheless. A plain
// close takes minutes.
func closeInHole(t *testing.T, w *world) {
	n := &network{dial: w.dial}
	s := w.open(kgo.Dialer(n.DialContext))
	for len(s.TakeAssignments()) == 0 {
		s.AllowRebalance()
		w.poll(s)
	}
	n.vanish()
	defer n.reappear()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	select {
	case <-closed:
	case <-time.After(9 * time.Second):
		t.Error("the close takes more than 9 s")
	}
}

// open opens a session of its own, with nothing around it.
func (w *world) open(opts ...kgo.Opt) *session.Session {
	w.t.Helper()
	s, err := session.Open(context.Background(), session.Config{
		Kafka: w.opts, GroupOpts: opts, Group: w.Group, Instance: "alone", Started: time.Now(),
		Topics: []string{w.In}, Start: kgo.NewOffset().AtStart(), Log: zap.NewNop(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) poll(s *session.Session) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	s.Poll(ctx, 100)
}

// heldTooLong: a request of a transaction, or its answer, is on its way for
// longer than the broker keeps a transaction open.
func heldTooLong(key kmsg.Key, answer bool) func(*testing.T, *world) {
	return func(t *testing.T, w *world) {
		i := w.start("a", quick)
		w.calls("warm-", partitions)
		w.await(time.Minute)
		var held sync.Once
		arrived := make(chan struct{})
		i.network.onRequest(func(k kmsg.Key) *fate {
			if k != key {
				return nil
			}
			// The client tries again after ten seconds, perhaps just in time.
			wait := func() {
				held.Do(func() { time.AfterFunc(12*time.Second, func() { close(arrived) }) })
				<-arrived
			}
			if answer {
				return &fate{after: wait}
			}
			return &fate{before: wait}
		})
		for n := range 5 {
			w.calls("c"+strconv.Itoa(n)+"-", partitions)
			<-time.After(200 * time.Millisecond)
		}
		<-arrived
		w.calls("d", partitions)
		w.await(time.Minute)
		w.check()
		if i.metric("enricher_kafka_session_restarts_total") == 0 && i.logs.FilterMessageSnippet("transaction aborted").Len() == 0 {
			t.Error("the transaction committed in time: this test shows nothing")
		}
	}
}
