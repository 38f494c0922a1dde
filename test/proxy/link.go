package proxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxFrame is larger than anything a client or broker of a test sends.
const maxFrame = 128 << 20

// link is one connection of the client, and the one that goes with it.
type link struct {
	client, broker net.Conn

	mu    sync.Mutex
	asked map[int32]request // by correlation id
}

// request is what is remembered of one until its answer comes.
type request struct {
	key     kmsg.Key
	version int16
	commit  bool // of EndTxn
}

func (l *link) close() {
	_ = l.client.Close() // closed already, at worst
	_ = l.broker.Close()
}

func (p *Proxy) serve(client net.Conn, address string) {
	defer client.Close()
	p.pass()
	broker, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return // the client sees a broker that is away
	}
	l := &link{client: client, broker: broker, asked: make(map[int32]request)}
	defer l.close()
	p.mu.Lock()
	closed := p.closed
	p.links[l] = struct{}{}
	p.mu.Unlock()
	if closed {
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, client, broker, p.request) })
	pumps.Go(func() { p.pump(l, broker, client, p.answer) })
	pumps.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// pump carries messages one way until an end is closed, which closes the other.
func (p *Proxy) pump(l *link, from, to net.Conn, came func(*link, []byte) error) {
	var frame []byte
	for {
		var err error
		frame, err = readFrame(from, frame)
		p.pass()
		if err != nil {
			break
		}
		if err := came(l, frame[4:]); err != nil {
			break
		}
		p.late()
		p.pass() // a hole that was made while the message was held
		if _, err := to.Write(frame); err != nil {
			break
		}
	}
	l.close()
}

// readFrame reads a message with its length.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes: this is not Kafka's protocol", n)
	}
	if cap(buf) < int(n)+4 {
		buf = make([]byte, n+4)
	}
	buf = buf[:n+4]
	copy(buf, length[:])
	_, err := io.ReadFull(r, buf[4:])
	return buf, err
}

// request takes note of a request and holds it if it is to be.
func (p *Proxy) request(l *link, msg []byte) error {
	r, id, err := parseRequest(msg)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.asked[id] = r
	l.mu.Unlock()
	p.catch(l, Point{Key: r.key})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.txn.requested(r.key)
	return nil
}

// answer takes note of an answer and holds it if it is to be.
func (p *Proxy) answer(l *link, msg []byte) error {
	if len(msg) < 4 {
		return errShort
	}
	id := int32(binary.BigEndian.Uint32(msg))
	l.mu.Lock()
	r, ok := l.asked[id]
	delete(l.asked, id)
	l.mu.Unlock()
	if !ok {
		return fmt.Errorf("an answer to request %d, which nobody made", id)
	}
	if r.key == kmsg.EndTxn {
		p.mu.Lock()
		p.txn.answered(r, msg)
		p.mu.Unlock()
	}
	p.catch(l, Point{Key: r.key, Answer: true})
	return nil
}
