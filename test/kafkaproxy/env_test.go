package kafkaproxy_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
	"enricher/test/kafkaproxy"
)

const topic = "t"

// env is a broker, a proxy in front of it, and a transactional client that reaches
// the broker only through the proxy.
type env struct {
	*testing.T
	proxy  *kafkaproxy.Proxy
	client *kgo.Client
	broker *kfake.Cluster
	direct []kgo.Opt // reach the broker without the proxy
}

// onBothFronts runs a test with a wrapped dial function, in memory and in virtual
// time, and with TCP. retries is how often the client sends a request again.
func onBothFronts(t *testing.T, retries int, test func(*env)) {
	t.Parallel()
	t.Run("dialer", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			network := new(kfake.VirtualNetwork)
			e := newEnv(t, network.DialContext, kfake.Ports(9092), kfake.ListenFn(network.Listen))
			e.proxy = kafkaproxy.New(network.DialContext)
			defer e.proxy.SetBlackhole(false)
			e.connect(e.proxy.DialContext, retries)
			test(e)
		})
	})
	t.Run("TCP", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, new(net.Dialer).DialContext)
		p, err := kafkaproxy.Listen(1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		p.Forward(e.broker.ListenAddrs())
		e.proxy = p
		// The embedded broker advertises only its own address.
		e.connect(func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.Addrs()[0])
		}, retries)
		test(e)
	})
}

func newEnv(t *testing.T, dial kafkaproxy.DialFunc, opts ...kfake.Opt) *env {
	t.Helper()
	broker, err := kfake.NewCluster(append(opts, kfake.NumBrokers(1), kfake.SeedTopics(1, topic))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return &env{T: t, broker: broker, direct: []kgo.Opt{kgo.SeedBrokers(broker.ListenAddrs()...), kgo.Dialer(dial)}}
}

func (e *env) connect(dial kafkaproxy.DialFunc, retries int) {
	e.Helper()
	var err error
	e.client, err = kgo.NewClient(kgo.SeedBrokers(e.broker.ListenAddrs()...), kgo.Dialer(dial), kgo.DefaultProduceTopic(topic),
		kgo.TransactionalID("x"), kgo.RequestRetries(retries))
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(e.client.Close)
}

// transaction runs a transaction with one record on another goroutine and sends
// its result.
func (e *env) transaction(end kgo.TransactionEndTry) <-chan error {
	e.Helper()
	if err := e.client.BeginTransaction(); err != nil {
		e.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		ctx := context.Background()
		if err := e.client.ProduceSync(ctx, kgo.StringRecord("v")).FirstErr(); err != nil {
			done <- err
			return
		}
		done <- e.client.EndTransaction(ctx, end)
	}()
	return done
}

// commit commits a transaction, which must succeed.
func (e *env) commit() {
	e.Helper()
	if err := <-e.transaction(kgo.TryCommit); err != nil {
		e.Fatal(err)
	}
}

// transactionHeldAt starts a transaction and waits until it reaches a point.
func (e *env) transactionHeldAt(at kafkaproxy.Point) (*kafkaproxy.Held, <-chan error) {
	e.Helper()
	h := e.proxy.Hold(at)
	done := e.transaction(kgo.TryCommit)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Wait(ctx); err != nil {
		e.Fatalf("hold %v: %v", at, err)
	}
	return h, done
}

// hangs checks that a transaction does not end.
func (e *env) hangs(done <-chan error, when string) {
	e.Helper()
	select {
	case err := <-done:
		e.Errorf("%s: the transaction went on: %v", when, err)
	case <-time.After(50 * time.Millisecond):
	}
}

// committed returns the number of records that a reader sees; an error if a
// transaction is open.
func (e *env) committed() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	records, err := audit.Read(ctx, e.direct, topic)
	return len(records), err
}

// readResponse reads a response and returns its correlation id.
func readResponse(t *testing.T, conn net.Conn) int {
	t.Helper()
	var header [8]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(header[:]))-4); err != nil {
		t.Fatal(err)
	}
	return int(binary.BigEndian.Uint32(header[4:]))
}
