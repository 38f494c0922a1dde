package kafkaproxy

import (
	"context"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Action is what happens to one request and to its response. The zero value
// forwards both.
type Action struct {
	Before func() // is called before the request is forwarded, even if the client has closed its end meanwhile
	Drop   bool   // the broker never receives the request
	// Request changes the request; with false the broker never receives it. Respond
	// has the request as it was.
	Request func(kmsg.Request) bool
	After   func() // is called before the response is forwarded
	// Respond changes the response, or makes the one to a dropped request.
	Respond func(kmsg.Request, kmsg.Response)
	// Disconnect closes the connection in place of the response.
	Disconnect bool
}

// RefuseRecords returns an action for Produce: INVALID_RECORD for the records of
// some topics. The broker never gets them: it would keep their sequence numbers.
func RefuseRecords(refused func(kmsg.ProduceRequestTopic) bool) *Action {
	return &Action{
		Request: func(r kmsg.Request) bool {
			req := r.(*kmsg.ProduceRequest)
			req.Topics = slices.DeleteFunc(req.Topics, refused)
			return len(req.Topics) > 0
		},
		Respond: func(req kmsg.Request, r kmsg.Response) {
			resp := r.(*kmsg.ProduceResponse)
			for _, t := range req.(*kmsg.ProduceRequest).Topics {
				if !refused(t) {
					continue
				}
				topic := kmsg.NewProduceResponseTopic()
				topic.Topic, topic.TopicID = t.Topic, t.TopicID
				for _, p := range t.Partitions {
					partition := kmsg.NewProduceResponseTopicPartition()
					partition.Partition, partition.ErrorCode = p.Partition, kerr.InvalidRecord.Code
					topic.Partitions = append(topic.Partitions, partition)
				}
				resp.Topics = append(resp.Topics, topic)
			}
		},
	}
}

// OnRequest has f choose what happens to every request from now on; nil, of f or
// from it, forwards the request. Calls of f for different connections are
// concurrent.
func (p *Proxy) OnRequest(f func(kmsg.Key) *Action) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onRequest = f
}

func (p *Proxy) exchange(frame []byte) *exchange {
	x := &exchange{frame: frame, key: keyOf(frame), action: &Action{}, done: make(chan struct{})}
	p.mu.Lock()
	f := p.onRequest
	p.mu.Unlock()
	if f == nil {
		return x
	}
	if a := f(x.key); a != nil {
		x.action = a
	}
	return x
}

// Point is a moment at which a message can be held.
type Point struct {
	Key kmsg.Key
	// Response: the response has come from the broker, and the client does not
	// have it. Otherwise the request has come from the client, and the broker does
	// not have it.
	Response bool
}

func (p Point) String() string {
	if p.Response {
		return "response to " + p.Key.Name()
	}
	return p.Key.Name()
}

// Held is a message that waits in the proxy, or will when it reaches its point.
// While it waits, its connection forwards nothing more in this direction.
type Held struct {
	proxy      *Proxy
	point      Point
	reached    chan struct{} // closed when the message waits
	connection *connection   // of the message, set before reached is closed
	releasing  sync.Once
	released   chan struct{}
}

// Hold holds the next message that reaches the point, until Release or Drop. It
// replaces an earlier Hold that no message has reached.
func (p *Proxy) Hold(at Point) *Held {
	h := &Held{proxy: p, point: at, reached: make(chan struct{}), released: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = h
	return h
}

// Wait waits until the message is held. After an error no message will be.
func (h *Held) Wait(ctx context.Context) error {
	select {
	case <-h.reached:
		return nil
	case <-ctx.Done():
	}
	h.cancel()
	select {
	case <-h.reached: // at the last moment
		return nil
	default:
		return ctx.Err()
	}
}

// cancel gives up a message that has not come yet.
func (h *Held) cancel() {
	h.proxy.mu.Lock()
	defer h.proxy.mu.Unlock()
	if h.proxy.hold == h {
		h.proxy.hold = nil
	}
}

// Release forwards the message. If it has not come yet, it will not be held.
func (h *Held) Release() {
	h.cancel()
	h.releasing.Do(func() { close(h.released) })
}

// Drop closes the message's connection, so that the message is lost. It needs a
// Wait without error before.
func (h *Held) Drop() {
	h.connection.close()
	h.Release()
}

// holdAt holds a message if it is the one that a Hold waits for.
func (p *Proxy) holdAt(c *connection, at Point) {
	p.mu.Lock()
	h := p.hold
	if h == nil || h.point != at {
		p.mu.Unlock()
		return
	}
	p.hold = nil
	h.connection = c
	close(h.reached)
	p.mu.Unlock()
	<-h.released
}
