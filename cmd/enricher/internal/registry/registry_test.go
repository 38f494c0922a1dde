package registry_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"enricher/cmd/enricher/internal/credentials"
	"enricher/cmd/enricher/internal/registry"
	"enricher/schemas"
)

const secret = "not-a-real-secret/+&"

// server is a schema registry whose responses can be replaced.
type server struct {
	*httptest.Server
	fake    *srfake.Registry
	instead http.HandlerFunc // nil: the fake responds

	mu   sync.Mutex
	last *http.Request
}

// request returns the last request.
func (s *server) request() *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func start(t *testing.T, serve func(http.Handler) *httptest.Server) *server {
	t.Helper()
	s := &server{fake: srfake.NewRegistry()}
	s.Server = serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.last = r
		s.mu.Unlock()
		if s.instead != nil {
			s.instead(w, r)
			return
		}
		s.fake.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// client returns a client of the registry with the credentials of a configuration.
func (s *server) client(t *testing.T, cfg credentials.Config, format schemas.Format) *registry.Registry {
	t.Helper()
	cfg.Prefix = registry.FlagPrefix
	c := credentials.New(cfg, func(flag string, err error) { t.Fatalf("--%s: %v", flag, err) })
	return &registry.Registry{URLs: []string{s.URL}, Credentials: c, UserAgent: "enricher/test", Topic: "calls", Format: format}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A schema is found only after it was registered, and records name it so that the
// registry's own readers find it.
func TestRegisterAndFind(t *testing.T) {
	for _, f := range schemas.Formats() {
		t.Run(string(f), func(t *testing.T) {
			s := start(t, httptest.NewServer)
			r := s.client(t, credentials.Config{}, f)
			var missing *registry.NotRegisteredError
			if _, err := r.Find(t.Context()); !errors.As(err, &missing) || missing.Other || registry.Temporary(err) {
				t.Fatalf("found before it was registered: %v", err)
			}
			if err := r.Check(t.Context()); err != nil {
				t.Fatalf("an empty subject does not accept it: %v", err)
			}
			if s.fake.SubjectExists("calls-value") {
				t.Fatal("registered by a check")
			}
			created, err := r.Register(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			again, err := r.Register(t.Context())
			if err != nil || again != created {
				t.Errorf("registered again: %+v, %v; want %+v", again, err, created)
			}
			found, err := r.Find(t.Context())
			if err != nil || found != created {
				t.Fatalf("found %+v, %v; want %+v", found, err, created)
			}
			stored, ok := s.fake.GetSchema("calls-value", found.Version)
			if !ok || stored.Schema.Schema != f.Schema() || !strings.EqualFold(stored.Type.String(), map[schemas.Format]string{
				schemas.JSON: "JSON", schemas.Avro: "AVRO", schemas.Protobuf: "PROTOBUF"}[f]) {
				t.Errorf("stored as %+v", stored)
			}

			var h sr.ConfluentHeader
			id, rest, err := h.DecodeID(append(found.Frame(), "value"...))
			if err == nil && f == schemas.Protobuf {
				var index []int
				if index, rest, err = h.DecodeIndex(rest, 1); len(index) != 1 || index[0] != 0 {
					t.Errorf("message index %v", index)
				}
			}
			if err != nil || id != stored.ID || string(rest) != "value" {
				t.Errorf("frame %x: id %d, then %q, %v; want id %d", found.Frame(), id, rest, err, stored.ID)
			}
			value, err := found.HeaderValue()
			want := "01" + strings.ReplaceAll(stored.GUID, "-", "")
			if f == schemas.Protobuf {
				want += "00"
			}
			if got := hex.EncodeToString(value); err != nil || got != want {
				t.Errorf("header %s, %v; want %s", got, err, want)
			}
		})
	}
}

// Everything that a registry may respond instead: what it means, whether waiting
// helps, and that no text repeats the password.
func TestBadResponses(t *testing.T) {
	const missing, incompatible, noGUID, response = "missing", "incompatible", "no GUID", "response"
	body := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			user, password, _ := r.BasicAuth()
			replacer := strings.NewReplacer("PASSWORD", password, "QUERY", url.QueryEscape(password),
				"HEADER", r.Header.Get("Authorization"), "BASE64", base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
			_, _ = io.WriteString(w, replacer.Replace(text))
		}
	}
	for _, c := range []struct {
		name      string
		instead   http.HandlerFunc
		kind      string
		temporary bool
		text      string
	}{
		{name: "unknown subject", instead: body(404, `{"error_code":40401,"message":"no"}`), kind: missing, text: "has no schema"},
		{name: "unknown version", instead: body(404, `{"error_code":40402,"message":"no"}`), kind: missing, text: "has no schema"},
		{name: "another schema", instead: body(404, `{"error_code":40403,"message":"no"}`), kind: missing, text: "has other schemas"},
		{name: "another server", instead: body(404, `<html>not here PASSWORD`), kind: response, text: "HTTP 404: <html>"},
		{name: "a page", instead: body(200, `<html>PASSWORD QUERY</html>`), kind: response, text: "not that of a schema registry"},
		{name: "conflict", instead: body(409, `{"error_code":409,"message":"READER_FIELD_MISSING HEADER"}`), kind: incompatible, text: "READER_FIELD_MISSING"},
		{name: "invalid", instead: body(422, `{"error_code":42201,"message":"Invalid PASSWORD"}`), kind: response, text: "HTTP 422, code 42201: Invalid [redacted]"},
		{name: "not logged in", instead: body(401, `{"error_code":401,"message":"wrong: HEADER BASE64"}`), kind: response, temporary: true, text: "HTTP 401"},
		{name: "forbidden", instead: body(403, `{"error_code":40301,"message":"no"}`), kind: response, temporary: true, text: "HTTP 403"},
		{name: "slow down", instead: body(429, ``), kind: response, temporary: true, text: "HTTP 429"},
		{name: "store", instead: body(500, `{"error_code":50001,"message":"Error in the backend QUERY"}`), kind: response, temporary: true, text: "HTTP 500, code 50001"},
		{name: "gateway", instead: body(502, "<html>\nBad Gateway\nPASSWORD</html>"), kind: response, temporary: true, text: "HTTP 502: <html> Bad Gateway"},
		{name: "redirect", instead: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
		}, kind: response, text: "HTTP 302"},
		{name: "hangs up", instead: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, kind: response, temporary: true, text: "EOF"},
		{name: "endless", instead: func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, kind: response, text: "not that of a schema registry"},
		{name: "number of another kind", instead: body(200, `{"id":"one"}`), kind: response, text: "not that of a schema registry"},
		{name: "without a GUID", instead: body(200, `{"subject":"calls-value","id":7,"version":1}`), kind: noGUID, text: "has no GUID"},
		{name: "a GUID that is none", instead: body(200, `{"subject":"calls-value","id":7,"version":1,"guid":"00-zz"}`), kind: noGUID, text: "which is none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, httptest.NewServer)
			s.instead = c.instead
			r := s.client(t, credentials.Config{Mechanism: credentials.Basic, User: "user", PasswordFile: write(t, "password", secret)}, schemas.Avro)
			found, err := r.Find(t.Context())
			if err == nil {
				_, err = found.HeaderValue()
			}
			if err == nil {
				t.Fatalf("found %+v", found)
			}
			kinds := map[string]bool{
				missing: errors.As(err, new(*registry.NotRegisteredError)), incompatible: errors.As(err, new(*registry.IncompatibleError)),
				noGUID: errors.As(err, new(*registry.NoGUIDError)), response: errors.As(err, new(*registry.ResponseError)),
			}
			if !kinds[c.kind] || registry.Temporary(err) != c.temporary || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%T, temporary %v: %v; want %s, %v, %q", err, registry.Temporary(err), err, c.kind, c.temporary, c.text)
			}
			noLeak(t, err)
			if strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 700 {
				t.Errorf("not one line: %v", err)
			}
			if user, password, ok := s.request().BasicAuth(); !ok || user != "user" || password != secret || s.request().Header.Get("User-Agent") != "enricher/test" {
				t.Errorf("the request was %v", s.request().Header)
			}
		})
	}
}

// noLeak checks that a text has no secret, in any spelling that is sent.
func noLeak(t *testing.T, err error) {
	t.Helper()
	for _, s := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte("user:" + secret))} {
		if strings.Contains(err.Error(), s) {
			t.Errorf("%q leaks the password", err)
		}
		if !strings.Contains("planted "+s, s) {
			t.Errorf("a planted secret is not found")
		}
	}
}

// Passwords and tokens are read again for every request.
func TestCredentialsAreReadAgain(t *testing.T) {
	s := start(t, httptest.NewServer)
	for _, c := range []struct {
		config func(path string) credentials.Config
		sent   func(*http.Request) string
	}{
		{func(path string) credentials.Config {
			return credentials.Config{Mechanism: credentials.Basic, User: "user", PasswordFile: path}
		}, func(r *http.Request) string { _, password, _ := r.BasicAuth(); return password }},
		{func(path string) credentials.Config {
			return credentials.Config{Mechanism: credentials.Bearer, OAuth: credentials.OAuth{TokenFile: path}}
		}, func(r *http.Request) string { return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") }},
	} {
		path := write(t, "credential", "first\n")
		r := s.client(t, c.config(path), schemas.JSON)
		r.Headers = url.Values{"target-sr-cluster": {"lsrc-1"}}
		for _, want := range []string{"first", "second"} {
			if err := os.WriteFile(path, []byte(want+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _ = r.Find(t.Context())
			last := s.request()
			if got := c.sent(last); got != want || last.Header.Get("Target-Sr-Cluster") != "lsrc-1" {
				t.Errorf("sent %q, want %q; headers %v", got, want, last.Header)
			}
		}
	}
}

// A token comes from a token endpoint, whose failures are those of a credential.
func TestTokenEndpoint(t *testing.T) {
	broken := false
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if broken {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client","error_description":"`+secret+`"}`)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"a-token","token_type":"Bearer","expires_in":3600}`)
	}))
	defer endpoint.Close()
	s := start(t, httptest.NewServer)
	cfg := credentials.Config{Mechanism: credentials.Bearer, OAuth: credentials.OAuth{TokenURL: endpoint.URL, ClientID: "id", ClientSecretFile: write(t, "secret", secret)}}
	if _, err := s.client(t, cfg, schemas.Avro).Register(t.Context()); err != nil || s.request().Header.Get("Authorization") != "Bearer a-token" {
		t.Errorf("registered with %v: %v", s.request().Header, err)
	}
	broken = true
	_, err := s.client(t, cfg, schemas.Avro).Find(t.Context())
	var login *credentials.Error
	if !errors.As(err, &login) || login.Flag != "schema-registry-oauth-client-secret-file" || !registry.Temporary(err) {
		t.Errorf("%v", err)
	}
	noLeak(t, err)
}

// The certificate of the registry is verified, and so is its name.
func TestTLS(t *testing.T) {
	s := start(t, httptest.NewTLSServer)
	ca := write(t, "ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	if _, err := s.client(t, credentials.Config{CA: ca}, schemas.JSON).Register(t.Context()); err != nil {
		t.Error(err)
	}
	untrusted := s.client(t, credentials.Config{}, schemas.JSON)
	otherName := s.client(t, credentials.Config{CA: ca}, schemas.JSON)
	otherName.URLs = []string{strings.Replace(s.URL, "127.0.0.1", "localhost", 1)}
	for name, r := range map[string]*registry.Registry{"untrusted": untrusted, "of another host": otherName} {
		_, err := r.Find(t.Context())
		if err == nil || !strings.Contains(err.Error(), "certificate") || !registry.Temporary(err) {
			t.Errorf("a certificate %s: %v", name, err)
		}
	}
}

// Of several addresses the first that responds is used.
func TestSeveralAddresses(t *testing.T) {
	s := start(t, httptest.NewServer)
	r := s.client(t, credentials.Config{}, schemas.Protobuf)
	r.URLs = []string{"http://127.0.0.1:1", s.URL}
	if _, err := r.Register(t.Context()); err != nil {
		t.Error(err)
	}
	r.URLs = r.URLs[:1]
	if _, err := r.Find(t.Context()); !registry.Temporary(err) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("%v", err)
	}
}
