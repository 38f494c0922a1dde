package admin

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/crypto/bcrypt"
)

// serve starts a server and returns its log.
func serve(t *testing.T, cfg Config) (*Server, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	none := func() []string { return nil }
	cfg.Addr, cfg.Log, cfg.Alive, cfg.Ready, cfg.Warnings = "127.0.0.1:0", zap.New(core), func() bool { return true }, none, none
	cfg.Metrics = prometheus.NewRegistry()
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, logs
}

// get requests a page over a new connection.
func get(t *testing.T, url, user, password string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	resp, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Profiles are served only if that is asked for.
func TestProfilesOnRequest(t *testing.T) {
	for _, profiles := range []bool{false, true} {
		s, _ := serve(t, Config{Profiles: profiles})
		want := http.StatusNotFound
		if profiles {
			want = http.StatusOK
		}
		for _, page := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/trace?seconds=0.01"} {
			if got := get(t, "http://"+s.Addr.String()+page, "", ""); got != want {
				t.Errorf("profiles %v: %s: HTTP %d", profiles, page, got)
			}
		}
		if got := get(t, "http://"+s.Addr.String()+"/debug/pprof/cmdline", "", ""); got != http.StatusNotFound {
			t.Errorf("the command line: HTTP %d", got)
		}
	}
}

// However many connections clients hold, and whatever they send over them, a probe
// gets its response at once, and the number of connections is bounded.
func TestHeldConnectionsKeepNoProbeOut(t *testing.T) {
	for name, hold := range map[string]func(net.Conn){
		"silent":        func(net.Conn) {},
		"half a header": func(c net.Conn) { _, _ = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost:") },
		"idle": func(c net.Conn) {
			_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err == nil {
				_ = resp.Body.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := serve(t, Config{})
			var held []net.Conn
			for i := range 3 * maxConnections {
				c, err := net.Dial("tcp", s.Addr.String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				held = append(held, c)
				hold(c)
				if i%20 == 0 {
					start := time.Now()
					if got := get(t, "http://"+s.Addr.String()+"/readyz", "", ""); got != http.StatusOK || time.Since(start) > 2*time.Second {
						t.Errorf("%d connections are held: HTTP %d after %v", i, got, time.Since(start))
					}
				}
			}
			closed, deadline := 0, time.Now().Add(3*time.Second)
			for _, c := range held[:maxConnections] { // the oldest
				_ = c.SetReadDeadline(deadline)
				if _, err := io.Copy(io.Discard, c); err == nil || !os.IsTimeout(err) {
					closed++
				}
			}
			if closed != maxConnections {
				t.Errorf("%d of the %d oldest connections are closed", closed, maxConnections)
			}
		})
	}
}

// With a web configuration, pages need TLS and the login; probes only TLS. Neither
// the password nor what is in the files is logged.
func TestWebConfiguration(t *testing.T) {
	const password = "a-password-to-plant"
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "web.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login := fmt.Sprintf("basic_auth_users:\n  prometheus: %s\n", hash)
	check := func(base string, right int) {
		t.Helper()
		for _, c := range []struct {
			page, user, password string
			want                 int
		}{
			{"/livez", "", "", 200},
			{"/readyz", "", "", 200},
			{"/metrics", "", "", 401},
			{"/metrics", "prometheus", password + "x", 401},
			{"/metrics", "prometheus", password, right},
			{"/debug/pprof/", "", "", 401},
			{"/debug/pprof/", "prometheus", password, right},
			{"/other", "", "", 401},
		} {
			want := c.want
			if right >= 500 && c.want == 401 {
				want = right
			}
			if got := get(t, base+c.page, c.user, c.password); got != want {
				t.Errorf("%s as %q: HTTP %d, want %d", c.page, c.user, got, want)
			}
		}
	}

	write(login)
	s, logs := serve(t, Config{WebConfigFile: file, Profiles: true})
	check("http://"+s.Addr.String(), 200)
	write(login + "unknown: " + password)
	check("http://"+s.Addr.String(), 500)
	if logs.FilterMessage("web configuration cannot be used").Len() == 0 {
		t.Errorf("nothing about a broken file in the log: %v", logs.All())
	}
	write(login)
	check("http://"+s.Addr.String(), 200)

	certificate, key := testCertificate(t)
	write(login + fmt.Sprintf("tls_server_config:\n  cert_file: %s\n  key_file: %s\n", certificate, key))
	secure, secureLogs := serve(t, Config{WebConfigFile: file, Profiles: true})
	check("https://"+secure.Addr.String(), 200)
	if got := get(t, "http://"+secure.Addr.String()+"/livez", "", ""); got != http.StatusBadRequest {
		t.Errorf("plain HTTP: HTTP %d", got)
	}
	if n := secureLogs.Len(); n > 0 {
		t.Errorf("%d lines in the log: %v", n, secureLogs.All())
	}
	for _, l := range append(logs.All(), secureLogs.All()...) {
		if line := fmt.Sprint(l.Message, l.ContextMap()); strings.Contains(line, password) || strings.Contains(line, string(hash)) {
			t.Errorf("a secret is logged: %s", line)
		}
	}
}

// testCertificate writes a certificate and its key into files.
func testCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	server.Close()
	pair := server.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		key:         {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}
