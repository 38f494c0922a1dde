package consumer_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// network is an instance's way to the brokers, request by request. It can be
// cut, it can swallow packets, and a single request can meet with a fate.
type network struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	cut    bool
	hole   chan struct{} // not nil: no packet passes; closed when they do again
	tamper func(kmsg.Key) *fate
	wires  map[*wire]struct{}
}

// fate is what becomes of one request.
type fate struct {
	before func() // is called before the request goes on, also if the client gave up meanwhile
	lost   bool   // it never arrives
	after  func() // is called before the answer goes on
	// answer changes the answer, or makes the one to a lost request.
	answer func(kmsg.Request, kmsg.Response)
	cut    bool // the connection breaks instead of an answer
}

// onRequest asks tamper about the fate of every request; nil: the usual one.
func (n *network) onRequest(tamper func(kmsg.Key) *fate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tamper = tamper
}

// set cuts all connections and lets no new ones through, or lets them again.
func (n *network) set(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
	if cut {
		for w := range n.wires {
			w.close()
		}
	}
}

// vanish makes a black hole: whatever is sent, either way, waits, the end of a
// connection included. Nobody is told.
func (n *network) vanish() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hole = make(chan struct{})
}

// reappear delivers what waits.
func (n *network) reappear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hole != nil {
		close(n.hole)
		n.hole = nil
	}
}

// pass waits until packets pass, or until ctx ends.
func (n *network) pass(ctx context.Context) error {
	for {
		n.mu.Lock()
		hole := n.hole
		n.mu.Unlock()
		if hole == nil {
			return nil
		}
		select {
		case <-hole:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *network) fateOf(key kmsg.Key) *fate {
	n.mu.Lock()
	tamper := n.tamper
	n.mu.Unlock()
	if tamper == nil {
		return nil
	}
	return tamper(key)
}

var errCut = errors.New("the network is cut")

func (n *network) DialContext(ctx context.Context, proto, address string) (net.Conn, error) {
	if err := n.pass(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		return nil, errCut
	}
	server, err := n.dial(ctx, proto, address)
	if err != nil {
		return nil, err
	}
	client, end := net.Pipe()
	w := &wire{n: n, client: end, server: server, requests: make(chan []byte, 1024)}
	if n.wires == nil {
		n.wires = make(map[*wire]struct{})
	}
	n.wires[w] = struct{}{}
	go w.read()
	go w.send()
	go w.answers()
	return client, nil
}

// wire is one connection: a pipe from the client, and the connection to the
// broker, with what is under way between them.
type wire struct {
	n              *network
	client, server net.Conn
	requests       chan []byte // read from the client, not sent yet

	mu    sync.Mutex
	asked []*asked // by order of sending, which is also that of answers
}

// asked is a request whose answer did not reach the client yet.
type asked struct {
	request []byte
	fate    *fate
	answer  []byte // nil: not there
}

func (w *wire) close() {
	_ = w.client.Close() // ends the connection, whatever it says
	_ = w.server.Close()
}

// read takes requests off the client, who does not wait for the network.
func (w *wire) read() {
	defer close(w.requests)
	for {
		frame, err := readFrame(w.client)
		if err != nil {
			return
		}
		w.requests <- frame
	}
}

func (w *wire) send() {
	for frame := range w.requests {
		a := &asked{request: frame, fate: w.n.fateOf(keyOf(frame))}
		if a.fate == nil {
			a.fate = &fate{}
		}
		if a.fate.before != nil {
			a.fate.before()
		}
		_ = w.n.pass(context.Background()) // has no end
		w.mu.Lock()
		w.asked = append(w.asked, a)
		w.mu.Unlock()
		switch {
		case !a.fate.lost:
			if _, err := w.server.Write(frame); err != nil {
				w.close()
			}
		case a.fate.cut:
			w.close()
		case a.fate.answer != nil:
			w.answered(a, nil)
		}
	}
	_ = w.n.pass(context.Background()) // has no end
	_ = w.server.Close()               // of an ended connection, at worst
}

func (w *wire) answers() {
	defer func() {
		w.close()
		w.n.mu.Lock()
		defer w.n.mu.Unlock()
		delete(w.n.wires, w)
	}()
	for {
		frame, err := readFrame(w.server)
		if err != nil {
			return
		}
		_ = w.n.pass(context.Background()) // has no end
		a := w.find(binary.BigEndian.Uint32(frame[4:]))
		if a.fate.after != nil {
			a.fate.after()
		}
		if a.fate.cut {
			return
		}
		w.answered(a, frame)
	}
}

func (w *wire) find(correlation uint32) *asked {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.asked {
		if binary.BigEndian.Uint32(a.request[8:]) == correlation {
			return a
		}
	}
	panic(fmt.Sprintf("the broker answered request %d, which was never sent", correlation))
}

// answered hands an answer to the client, once those before it are through.
func (w *wire) answered(a *asked, frame []byte) {
	if a.fate.answer != nil {
		frame = tampered(a, frame)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	a.answer = frame
	for len(w.asked) > 0 && w.asked[0].answer != nil {
		_, _ = w.client.Write(w.asked[0].answer) // the client may be gone
		w.asked = w.asked[1:]
	}
}

// tampered is the answer as the fate has it; frame nil: there is none to start with.
func tampered(a *asked, frame []byte) []byte {
	req := kmsg.RequestForKey(int16(keyOf(a.request)))
	req.SetVersion(int16(binary.BigEndian.Uint16(a.request[6:])))
	const header = 4 + 2 + 2 + 4 // size, key, version, correlation
	clientID := int(int16(binary.BigEndian.Uint16(a.request[header:])))
	body := a.request[header+2+max(0, clientID):]
	if req.IsFlexible() {
		body = body[1:] // the client sends no tags in its headers
	}
	if err := req.ReadFrom(body); err != nil {
		panic(err)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	answerHeader := 8
	if req.IsFlexible() {
		answerHeader++ // no tags either
	}
	if frame != nil {
		if err := resp.ReadFrom(frame[answerHeader:]); err != nil {
			panic(err)
		}
	}
	a.fate.answer(req, resp)
	out := make([]byte, answerHeader, 256)
	copy(out[4:8], a.request[8:12])
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

func keyOf(frame []byte) kmsg.Key { return kmsg.Key(binary.BigEndian.Uint16(frame[4:])) }

// readFrame reads a request or an answer, with its size in front.
func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, 4+binary.BigEndian.Uint32(size[:]))
	copy(frame, size[:])
	_, err := io.ReadFull(r, frame[4:])
	return frame, err
}
