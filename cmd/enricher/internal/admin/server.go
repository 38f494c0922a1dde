// Package admin shows operators the state of a process: an HTTP server for
// liveness, readiness, metrics and profiles, and the metrics and log of the Kafka
// client. It changes nothing in the process.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// idleTimeout is longer than the interval between two scrapes.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes is what other servers allow by default; Go's default is 1 MiB.
	maxHeaderBytes = 8 << 10
)

// Server is the HTTP server for operators.
type Server struct {
	// Addr is the address that the server listens on.
	Addr net.Addr

	server http.Server
	served chan error
}

// Handler serves liveness, readiness with its reasons, metrics and profiles. alive
// reports whether the main loop turns; ready lists why the process is not ready,
// and warnings what does not keep it from being so.
func Handler(alive func() bool, ready, warnings func() []string, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		if !alive() {
			http.Error(w, "the main loop has not turned for a minute", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status := struct {
			Ready    bool     `json:"ready"`
			Reasons  []string `json:"reasons"`
			Warnings []string `json:"warnings"`
		}{Reasons: append([]string{}, ready()...), Warnings: append([]string{}, warnings()...)}
		status.Ready = len(status.Reasons) == 0
		w.Header().Set("Content-Type", "application/json")
		if !status.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(status)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	// All profiles, but not the page with the command line, which might contain secrets.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// Listen serves h at addr until Close.
func Listen(addr string, h http.Handler) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: l.Addr(), served: make(chan error, 1), server: http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
	}}
	go func() { s.served <- s.server.Serve(l) }()
	return s, nil
}

// Close stops the server. Requests that are still running after a second are
// aborted.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.server.Close()
	}
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
