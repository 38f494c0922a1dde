// Package proxy stands between one Kafka client and its brokers. It reads the
// framing of Kafka's protocol, so that a test can stop at a chosen request or
// answer and then kill, cut or lose whatever it likes, and it knows whether its
// client has a transaction open.
//
// It changes no message. So that the client keeps to it, every broker needs a
// listener whose advertised address is the proxy's (kafka.Config.Listeners). It
// cannot read TLS or SASL.
package proxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Point is a moment at which a message can be held.
type Point struct {
	Key kmsg.Key
	// Answer: when the broker's answer has come and the client does not have
	// it; otherwise when the request has come and the broker does not have it.
	Answer bool
}

func (p Point) String() string {
	if p.Answer {
		return "answer to " + p.Key.Name()
	}
	return p.Key.Name()
}

// Proxy is one client's way to a cluster. It is safe for use by many goroutines.
type Proxy struct {
	fronts []net.Listener // by broker
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	links  map[*link]struct{}
	hole   chan struct{} // not nil: nothing passes until it is closed
	delay  time.Duration
	hold   *hold // nil: nothing is to be held
	txn    transactions
}

// hold waits for a message at a point.
type hold struct {
	point  Point
	caught chan *Held
}

// Held is a message that waits in the proxy. Its connection carries nothing
// more in this direction until Release or Drop.
type Held struct {
	once sync.Once
	link *link
	gone chan struct{} // closed by Release and Drop
}

// Release lets the message go on.
func (h *Held) Release() { h.once.Do(func() { close(h.gone) }) }

// Drop closes the message's connection, so that the message is lost.
func (h *Held) Drop() {
	h.link.close()
	h.Release()
}

// Listen makes a proxy with an address for each of so many brokers.
func Listen(brokers int) (*Proxy, error) {
	p := &Proxy{links: make(map[*link]struct{})}
	for range brokers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.fronts = append(p.fronts, l)
	}
	return p, nil
}

// Addrs are where the proxy listens, by broker.
func (p *Proxy) Addrs() []string {
	var addrs []string
	for _, l := range p.fronts {
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// Forward begins to accept connections, for brokers at these addresses. Until
// then they wait.
func (p *Proxy) Forward(brokers []string) {
	for i, l := range p.fronts {
		p.wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return // closed
				}
				p.wg.Go(func() { p.serve(c, brokers[i]) })
			}
		})
	}
}

// Close ends everything.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	var errs []error
	for _, l := range p.fronts {
		errs = append(errs, l.Close())
	}
	p.Mend()
	p.Cut()
	p.wg.Wait()
	return errors.Join(errs...)
}

// Cut closes all connections. New ones are welcome.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// Hole swallows everything in both directions, the ends of connections
// included, until Mend; then it arrives late, as packets do that were sent
// again.
func (p *Proxy) Hole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hole == nil && !p.closed {
		p.hole = make(chan struct{})
	}
}

// Mend ends a hole.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hole != nil {
		close(p.hole)
		p.hole = nil
	}
}

// SetDelay delays every message, each way, by d.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Hold waits until a message reaches the point, and holds it there. Only one
// caller may wait at a time.
func (p *Proxy) Hold(ctx context.Context, at Point) (*Held, error) {
	h := &hold{point: at, caught: make(chan *Held, 1)}
	p.mu.Lock()
	p.hold = h
	p.mu.Unlock()
	select {
	case held := <-h.caught:
		return held, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.hold = nil
	p.mu.Unlock()
	select {
	case held := <-h.caught: // at the last moment
		return held, nil
	default:
		return nil, ctx.Err()
	}
}

// catch stops a message at a point if somebody waits for it there.
func (p *Proxy) catch(l *link, at Point) {
	p.mu.Lock()
	h := p.hold
	if h == nil || h.point != at {
		p.mu.Unlock()
		return
	}
	p.hold = nil
	p.mu.Unlock()
	held := &Held{link: l, gone: make(chan struct{})}
	h.caught <- held
	<-held.gone
}

// pass waits until there is no hole.
func (p *Proxy) pass() {
	for {
		p.mu.Lock()
		hole := p.hole
		p.mu.Unlock()
		if hole == nil {
			return
		}
		<-hole
	}
}

// late waits as SetDelay said.
func (p *Proxy) late() {
	p.mu.Lock()
	d := p.delay
	p.mu.Unlock()
	if d > 0 {
		<-time.After(d)
	}
}
