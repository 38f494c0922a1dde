package fetchtest

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
)

// Server is an HTTP server on the loopback interface that counts its connections.
type Server struct {
	URL string // http://127.0.0.1:port

	server *http.Server
	served chan error // the result of Serve

	mu     sync.Mutex
	opened int
	open   map[net.Conn]bool // true: idle
}

// Listen serves h on a free port of 127.0.0.1 until Close.
func Listen(h http.Handler) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + l.Addr().String(), served: make(chan error, 1), open: map[net.Conn]bool{}}
	s.server = &http.Server{
		Handler:   h,
		ConnState: s.track,
		ErrorLog:  log.New(io.Discard, "", 0), // broken connections, which are intended
	}
	go func() { s.served <- s.server.Serve(l) }()
	return s, nil
}

func (s *Server) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.opened++
		s.open[c] = false
	case http.StateIdle:
		s.open[c] = true
	case http.StateActive:
		s.open[c] = false
	case http.StateClosed, http.StateHijacked:
		delete(s.open, c)
	}
}

// Connections returns the number of connections that were ever opened.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// DropIdle closes idle connections, as a server does after its keep-alive timeout.
func (s *Server) DropIdle() {
	s.mu.Lock()
	var idle []net.Conn
	for c, isIdle := range s.open {
		if isIdle {
			idle = append(idle, c)
		}
	}
	s.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}

// Close closes all connections and waits for the server to end.
func (s *Server) Close() error {
	err := s.server.Close()
	served := <-s.served
	s.served <- served // for a second Close
	if !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
