package kafkaproxy

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxQueued is how many requests of one connection can wait in the proxy: more
// than a Kafka client has in flight.
const maxQueued = 1024

// connection is one connection of the client together with the one to the broker.
// A goroutine reads the client's requests, so that the client never waits for the
// network; one forwards them, one forwards the responses.
type connection struct {
	proxy          *Proxy
	client, broker net.Conn
	requests       chan []byte    // read from the client, not forwarded yet
	forwarded      chan *exchange // requests that the broker has to respond to, in its order

	closing sync.Once
	closed  chan struct{}
}

// exchange is a request and its response.
type exchange struct {
	frame  []byte // the request
	key    kmsg.Key
	action *Action
	done   chan struct{} // closed when the client has the response
}

func newConnection(p *Proxy, client, broker net.Conn) *connection {
	return &connection{
		proxy: p, client: client, broker: broker,
		requests: make(chan []byte, maxQueued), forwarded: make(chan *exchange, maxQueued), closed: make(chan struct{}),
	}
}

// close closes both ends at once. What is still queued is lost.
func (c *connection) close() {
	c.closing.Do(func() { close(c.closed) })
	_ = c.client.Close() // closed already, at worst
	_ = c.broker.Close()
}

func (c *connection) run() {
	var loops sync.WaitGroup
	loops.Go(c.readRequests)
	loops.Go(c.forwardRequests)
	loops.Go(c.forwardResponses)
	loops.Wait()
	c.close()
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	delete(c.proxy.connections, c)
}

func (c *connection) readRequests() {
	defer close(c.requests)
	for {
		frame, err := readFrame(c.client)
		if err != nil {
			return
		}
		select {
		case c.requests <- frame:
		case <-c.closed:
			return
		}
	}
}

// forwardRequests forwards what the client sent, also after the client has closed
// its end: its last requests are on their way to the broker.
func (c *connection) forwardRequests() {
	last := make(chan struct{}) // closed when the responses to all forwarded requests are delivered
	close(last)
	for frame := range c.requests {
		x := c.proxy.exchange(frame)
		if x.action.Before != nil {
			x.action.Before()
		}
		if !c.passed(Point{Key: x.key}) {
			return
		}
		forward := frame
		if x.action.Request != nil {
			forward = changeRequest(x)
		}
		if x.action.Drop || forward == nil {
			if !c.dropped(x, last) {
				return
			}
			continue
		}
		c.proxy.requested(x.key)
		if !c.delayed() {
			return
		}
		select {
		case c.forwarded <- x: // before the broker can respond
		case <-c.closed:
			return
		}
		if _, err := c.broker.Write(forward); err != nil {
			c.close()
			return
		}
		last = x.done
	}
	c.proxy.pass(c.closed)
	_ = c.broker.Close() // ends forwardResponses
}

// dropped makes the response to a request that is not forwarded, after those to
// the requests before it. It reports whether the connection goes on.
func (c *connection) dropped(x *exchange, last <-chan struct{}) bool {
	if x.action.Disconnect {
		c.close()
		return false
	}
	if x.action.Respond == nil {
		return true
	}
	select {
	case <-last:
	case <-c.closed:
		return false
	}
	_, _ = c.client.Write(changeResponse(x, nil)) // the client may have closed its end
	return true
}

func (c *connection) forwardResponses() {
	defer c.close()
	for {
		frame, err := readFrame(c.broker)
		if !c.proxy.pass(c.closed) || err != nil {
			return
		}
		x := c.exchangeOf(frame)
		c.proxy.responded(x, frame)
		if x.action.After != nil {
			x.action.After()
		}
		if !c.passed(Point{Key: x.key, Response: true}) || !c.delayed() || x.action.Disconnect {
			return
		}
		if x.action.Respond != nil {
			frame = changeResponse(x, frame)
		}
		_, _ = c.client.Write(frame) // the client may have closed its end
		close(x.done)
	}
}

// exchangeOf finds the request of a response: a broker responds in order.
func (c *connection) exchangeOf(response []byte) *exchange {
	select {
	case x := <-c.forwarded:
		if correlationOfRequest(x.frame) == correlationOfResponse(response) {
			return x
		}
	default:
	}
	panic(fmt.Sprintf("the broker sent response %d out of order or without a request", correlationOfResponse(response)))
}

// passed waits until messages pass, and while this one is held. It reports false
// if the connection was closed meanwhile.
func (c *connection) passed(at Point) bool {
	if !c.proxy.pass(c.closed) {
		return false
	}
	c.proxy.holdAt(c, at)
	select {
	case <-c.closed:
		return false
	default:
		return true
	}
}

// delayed waits for the delay of the proxy, and for a blackhole that was made
// meanwhile. It reports false if the connection was closed meanwhile.
func (c *connection) delayed() bool {
	c.proxy.mu.Lock()
	d := c.proxy.delay
	c.proxy.mu.Unlock()
	if d > 0 {
		select {
		case <-time.After(d):
		case <-c.closed:
			return false
		}
	}
	return c.proxy.pass(c.closed)
}
