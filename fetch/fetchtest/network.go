package fetchtest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// dialTimeout is how long a dial waits for a server that does not respond.
const dialTimeout = 5 * time.Second

// Network is a network in memory, on which one name leads to one server at a time.
// It works in virtual time.
type Network struct {
	// TLS makes servers use it.
	TLS *tls.Config
	// Segment is the size above which packets are dropped; 0: any size passes.
	Segment int

	mu      sync.Mutex
	address string // what the name resolves to
	servers map[string]*networkServer
}

type networkServer struct {
	http.Server
	accept  chan net.Conn
	closed  chan struct{}
	dropped bool // no packet arrives any more; guarded by Network.mu
	dials   int  // guarded by Network.mu
	open    int  // guarded by Network.mu
}

// Serve adds a server. The name leads to the first one until SetAddress is called.
func (n *Network) Serve(address string, h http.Handler) {
	s := &networkServer{accept: make(chan net.Conn), closed: make(chan struct{})}
	s.Handler = h
	s.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, acceptedKey{}, time.Now())
	}
	s.ConnState = func(_ net.Conn, state http.ConnState) {
		n.mu.Lock()
		defer n.mu.Unlock()
		switch state {
		case http.StateNew:
			s.open++
		case http.StateClosed:
			s.open--
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.servers == nil {
		n.servers, n.address = map[string]*networkServer{}, address
	}
	n.servers[address] = s
	if n.TLS == nil {
		go func() { _ = s.Serve(s) }()
		return
	}
	s.TLSConfig = n.TLS
	s.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail, as intended
	go func() { _ = s.ServeTLS(s, "", "") }()
}

// SetAddress changes where new connections lead.
func (n *Network) SetAddress(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.address = address
}

// Drop makes every packet to a server vanish, also on open connections.
func (n *Network) Drop(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[address].dropped = true
}

// Dials returns how often a connection to a server was opened.
func (n *Network) Dials(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.servers[address].dials
}

// Open returns how many connections to a server are open.
func (n *Network) Open(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.servers[address].open
}

// Dial opens a connection to where the name leads at the moment.
func (n *Network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	s := n.servers[n.address]
	s.dials++
	dropped := s.dropped
	n.mu.Unlock()
	if dropped {
		select {
		case <-ctx.Done():
		case <-time.After(dialTimeout):
		}
		return nil, errors.New("i/o timeout")
	}
	client, server := net.Pipe()
	select {
	case s.accept <- server:
		return &networkConn{client, n, s}, nil
	case <-s.closed:
		return nil, errors.New("connection refused")
	}
}

// Close ends the servers and their connections.
func (n *Network) Close() {
	n.mu.Lock()
	servers := slices.Collect(maps.Values(n.servers))
	n.mu.Unlock()
	for _, s := range servers {
		_ = s.Server.Close()
	}
}

type acceptedKey struct{}

// ConnectionAge returns how old the connection of a request is.
func ConnectionAge(r *http.Request) time.Duration {
	return time.Since(r.Context().Value(acceptedKey{}).(time.Time))
}

// Accept implements net.Listener.
func (s *networkServer) Accept() (net.Conn, error) {
	select {
	case c := <-s.accept:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: http.Server calls it once.
func (s *networkServer) Close() error {
	close(s.closed)
	return nil
}

// Addr implements net.Listener.
func (s *networkServer) Addr() net.Addr { return &net.TCPAddr{} }

// networkConn is the client's end of a connection.
type networkConn struct {
	net.Conn
	network *Network
	server  *networkServer
}

func (c *networkConn) Write(b []byte) (int, error) {
	c.network.mu.Lock()
	dropped := c.server.dropped || c.network.Segment > 0 && len(b) > c.network.Segment
	c.network.mu.Unlock()
	if dropped {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
