// Package kafkaproxy is a proxy between one Kafka client and its brokers. It
// understands the framing of Kafka's protocol, so that a test can stop at a chosen
// request or response and then kill, cut, lose, delay or change whatever it needs
// to, and it reports whether its client has a transaction open.
//
// It has two fronts: New wraps a dial function of a client in the same process,
// also in memory and in a bubble of virtual time; Listen accepts TCP connections of
// another process. The faults are the same. It changes no message unless an Action
// says so, and it understands neither TLS nor SASL.
package kafkaproxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DialFunc connects to a broker, like the method DialContext of net.Dialer.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Proxy is one client's way to a cluster. It is safe for concurrent use.
type Proxy struct {
	dial      DialFunc
	listeners []net.Listener  // by broker; none after New
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	wg        sync.WaitGroup // accept loops and connections

	mu          sync.Mutex
	connections map[*connection]struct{}
	offline     bool
	blackhole   chan struct{} // not nil: no message passes until it is closed
	delay       time.Duration
	onRequest   func(kmsg.Key) *Action // may be nil
	hold        *Held                  // nil: no message is to be held
	txn         transactions
}

// New returns a proxy whose method DialContext is for the client to dial with; the
// proxy itself reaches the brokers with dial. It needs no Close.
func New(dial DialFunc) *Proxy {
	p := &Proxy{dial: dial, connections: make(map[*connection]struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// dialTimeout is short, because all brokers of a test are on this machine.
const dialTimeout = time.Second

// Listen returns a proxy that listens on one local TCP address for each broker. So
// that the client keeps to the proxy, every broker needs a listener that advertises
// the proxy's address (kafka.Config.Listeners).
func Listen(brokers int) (*Proxy, error) {
	p := New((&net.Dialer{Timeout: dialTimeout}).DialContext)
	for range brokers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.listeners = append(p.listeners, l)
	}
	return p, nil
}

// Addrs returns where the proxy listens, by broker.
func (p *Proxy) Addrs() []string {
	var addrs []string
	for _, l := range p.listeners {
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// Forward begins to accept connections and forwards them to brokers at these
// addresses. Until then connections wait.
func (p *Proxy) Forward(brokers []string) {
	for i, l := range p.listeners {
		p.wg.Go(func() {
			for {
				client, err := l.Accept()
				if err != nil {
					return // closed
				}
				p.wg.Go(func() {
					if err := p.connect(p.ctx, client, "tcp", brokers[i]); err != nil {
						_ = client.Close() // the client sees a broker that is down
					}
				})
			}
		})
	}
}

// DialContext connects the client to a broker through the proxy.
func (p *Proxy) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	client, end := net.Pipe()
	if err := p.connect(ctx, end, network, address); err != nil {
		return nil, err
	}
	return client, nil
}

var errOffline = errors.New("the proxy is offline")

// connect joins a client's connection with one to the broker.
func (p *Proxy) connect(ctx context.Context, client net.Conn, network, address string) error {
	if !p.pass(ctx.Done()) {
		return ctx.Err()
	}
	broker, err := p.dial(ctx, network, address)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.offline {
		return errors.Join(errOffline, broker.Close())
	}
	c := newConnection(p, client, broker)
	p.connections[c] = struct{}{}
	p.wg.Go(c.run)
	return nil
}

// Close closes all listeners and connections, and waits for their goroutines. A
// message that is held must be released before.
func (p *Proxy) Close() error {
	var errs []error
	for _, l := range p.listeners {
		errs = append(errs, l.Close())
	}
	p.cancel()
	p.SetOffline(true)
	p.wg.Wait()
	return errors.Join(errs...)
}

// Disconnect closes all connections. New ones can be made.
func (p *Proxy) Disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disconnect()
}

// disconnect needs p.mu.
func (p *Proxy) disconnect() {
	for c := range p.connections {
		c.close()
	}
}

// SetOffline switches the proxy off or on: with true it closes all connections and
// refuses new ones, until it is called with false.
func (p *Proxy) SetOffline(offline bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offline = offline
	if offline {
		p.disconnect()
	}
}

// SetBlackhole makes or ends a blackhole. With true it stops all messages in both
// directions, and the news that a connection has ended, so that neither the client
// nor the broker sees an error. With false it delivers what was stopped, late, as a
// network does when packets are sent again.
func (p *Proxy) SetBlackhole(blackhole bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case blackhole && p.blackhole == nil:
		p.blackhole = make(chan struct{})
	case !blackhole && p.blackhole != nil:
		close(p.blackhole)
		p.blackhole = nil
	}
}

// SetDelay delays every message, in each direction, by d.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// pass waits until messages pass. It reports false if done is closed before.
func (p *Proxy) pass(done <-chan struct{}) bool {
	for {
		p.mu.Lock()
		blackhole := p.blackhole
		p.mu.Unlock()
		if blackhole == nil {
			return true
		}
		select {
		case <-blackhole:
		case <-done:
			return false
		}
	}
}
