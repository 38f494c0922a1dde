package proxy_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer/audit"
	"enricher/test/proxy"
)

const topic = "t"

// behind makes a broker, a proxy before it, and a transactional client that
// knows only the proxy.
func behind(t *testing.T, retries int) (*proxy.Proxy, *kgo.Client, *kfake.Cluster) {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	p, err := proxy.Listen(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	p.Forward(broker.ListenAddrs())
	// The broker tells its own address; the client must come here all the same.
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, p.Addrs()[0])
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.Addrs()...), kgo.Dialer(dial), kgo.DefaultProduceTopic(topic),
		kgo.TransactionalID("x"), kgo.RequestRetries(retries))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return p, cl, broker
}

// transaction runs one, on a goroutine of its own; the channel tells its end.
func transaction(t *testing.T, cl *kgo.Client, end kgo.TransactionEndTry) <-chan error {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		ctx := context.Background()
		if err := cl.ProduceSync(ctx, kgo.StringRecord("v")).FirstErr(); err != nil {
			done <- err
			return
		}
		done <- cl.EndTransaction(ctx, end)
	}()
	return done
}

func hold(t *testing.T, p *proxy.Proxy, at proxy.Point) *proxy.Held {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	h, err := p.Hold(ctx, at)
	if err != nil {
		t.Fatalf("hold %v: %v", at, err)
	}
	return h
}

// TestTransactionIsFollowed: at every point of a transaction the proxy knows
// whether it is open, and afterwards how it ended.
func TestTransactionIsFollowed(t *testing.T) {
	p, cl, _ := behind(t, 20)
	for _, step := range []struct {
		at   proxy.Point
		open bool
	}{
		{proxy.Point{Key: kmsg.Produce}, false},
		{proxy.Point{Key: kmsg.Produce, Answer: true}, true},
		{proxy.Point{Key: kmsg.EndTxn}, true},
		{proxy.Point{Key: kmsg.EndTxn, Answer: true}, false},
	} {
		done := transaction(t, cl, kgo.TryCommit)
		h := hold(t, p, step.at)
		if got := p.InTransaction(); got != step.open {
			t.Errorf("at %v: open is %v", step.at, got)
		}
		select {
		case err := <-done:
			t.Errorf("at %v: the transaction went on: %v", step.at, err)
		case <-time.After(50 * time.Millisecond):
		}
		h.Release()
		if err := <-done; err != nil {
			t.Errorf("after %v: %v", step.at, err)
		}
	}
	if err := <-transaction(t, cl, kgo.TryAbort); err != nil {
		t.Error(err)
	}
	if got, want := p.Ends(), (proxy.Ends{Committed: 4, Aborted: 1}); got != want {
		t.Errorf("ends %+v, want %+v", got, want)
	}
}

// TestAnswerIsLost: the broker commits, the client never hears of it. A lost
// request does not happen.
func TestAnswerIsLost(t *testing.T) {
	for _, answer := range []bool{true, false} {
		p, cl, broker := behind(t, 0) // a client that does not send it again
		done := transaction(t, cl, kgo.TryCommit)
		hold(t, p, proxy.Point{Key: kmsg.EndTxn, Answer: answer}).Drop()
		if err := <-done; err == nil {
			t.Errorf("answer=%v: the client believes to know the end", answer)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		records, err := audit.Read(ctx, []kgo.Opt{kgo.SeedBrokers(broker.ListenAddrs()...)}, topic)
		if answer && (err != nil || len(records) != 1) {
			t.Errorf("answer lost: %d records, %v", len(records), err)
		}
		if !answer && err == nil {
			t.Errorf("request lost: the transaction ended all the same, with %d records", len(records))
		}
	}
}

// TestHole: nothing comes through and nothing breaks; afterwards what was sent
// arrives.
func TestHole(t *testing.T) {
	p, cl, _ := behind(t, 20)
	if err := <-transaction(t, cl, kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	p.Hole()
	done := transaction(t, cl, kgo.TryCommit)
	select {
	case err := <-done:
		t.Errorf("ended in a hole: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	p.Mend()
	if err := <-done; err != nil {
		t.Errorf("after the hole: %v", err)
	}
}

// TestCut: connections break, and the next ones work.
func TestCut(t *testing.T) {
	p, cl, _ := behind(t, 20)
	done := transaction(t, cl, kgo.TryCommit)
	h := hold(t, p, proxy.Point{Key: kmsg.Produce})
	p.Cut()
	h.Release()
	if err := <-done; err != nil { // the client sends it again
		t.Error(err)
	}
}

func TestDelay(t *testing.T) {
	p, cl, _ := behind(t, 20)
	adm := kadm.NewClient(cl)
	if _, err := adm.BrokerMetadata(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.SetDelay(100 * time.Millisecond)
	start := time.Now()
	if _, err := adm.ListEndOffsets(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("request and answer took %v, with 100ms of delay each", took)
	}
}
