// Package admin shows operators the state of a process: an HTTP server for
// liveness, readiness, metrics and profiles, and the metrics and log of the Kafka
// client. It changes nothing in the process.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"go.uber.org/zap"
)

const (
	// headerTimeout and readTimeout are for clients that send nothing or slowly.
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	// writeTimeout is longer than a scrape may take by default, 10 s. A profile has the
	// time that it is to last in addition.
	writeTimeout = 15 * time.Second
	// idleTimeout is longer than the interval between two scrapes.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes is what other servers allow by default; Go's default is 1 MiB.
	maxHeaderBytes = 8 << 10
)

// Config configures a Server.
type Config struct {
	// Addr is the address to listen on.
	Addr string
	// WebConfigFile has certificates and logins, in the format that Prometheus
	// exporters share; "" for plain HTTP without a login.
	WebConfigFile string
	// Profiles serves Go's profiles.
	Profiles bool
	// Alive reports whether the main loop turns.
	Alive func() bool
	// Ready lists why the process is not ready, and Warnings what does not keep it
	// from being so.
	Ready, Warnings func() []string
	Metrics         prometheus.Gatherer
	Log             *zap.Logger
}

// Server is the HTTP server for operators.
type Server struct {
	// Addr is the address that the server listens on.
	Addr net.Addr

	server http.Server
	served chan error
}

// Listen serves liveness, readiness with its reasons, metrics, and profiles if
// wanted, until Close.
func Listen(cfg Config) (*Server, error) {
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, err
	}
	probes := http.NewServeMux()
	probes.HandleFunc("GET /livez", cfg.livez)
	probes.HandleFunc("GET /readyz", cfg.readyz)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{}))
	if cfg.Profiles {
		// All profiles, but not the page with the command line, which might contain secrets.
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	s := &Server{Addr: l.Addr(), served: make(chan error, 1), server: http.Server{
		Handler: mux, ConnState: newConnections(maxConnections).track,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: log.New(errorLog{cfg.Log}, "", 0),
	}}
	// Probes have no login: those of Kubernetes would need its password in the pod's
	// specification. The toolkit puts its login in front of the whole handler before
	// it serves, so they get around it here.
	s.server.BaseContext = func(net.Listener) context.Context {
		probes.Handle("/", s.server.Handler)
		s.server.Handler = probes
		return context.Background()
	}
	go func() {
		if cfg.WebConfigFile == "" {
			s.served <- s.server.Serve(l)
			return
		}
		s.served <- web.Serve(l, &s.server, &web.FlagConfig{WebConfigFile: &cfg.WebConfigFile}, slog.New(webLog{cfg.Log}))
	}()
	return s, nil
}

func (cfg *Config) livez(w http.ResponseWriter, _ *http.Request) {
	if !cfg.Alive() {
		http.Error(w, "the main loop has not turned for a minute", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

func (cfg *Config) readyz(w http.ResponseWriter, _ *http.Request) {
	status := struct {
		Ready    bool     `json:"ready"`
		Reasons  []string `json:"reasons"`
		Warnings []string `json:"warnings"`
	}{Reasons: append([]string{}, cfg.Ready()...), Warnings: append([]string{}, cfg.Warnings()...)}
	status.Ready = len(status.Reasons) == 0
	w.Header().Set("Content-Type", "application/json")
	if !status.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(status)
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
