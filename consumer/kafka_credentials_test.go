package consumer_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"enricher/fetch/fetchtest"
	"enricher/test/kafka"
)

const (
	tokenLife    = 12 * time.Second
	sessionLife  = 4 * time.Second
	clientSecret = "client-secret-that-must-not-leak"
	tokenIssuer  = "https://login.example"
)

// tokenServer issues tokens for the super user and serves the key that brokers
// verify them with.
type tokenServer struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu     sync.Mutex
	down   bool // every request for a token is refused
	tokens []string
}

func newTokenServer(t *testing.T) *tokenServer {
	t.Helper()
	s := &tokenServer{}
	var err error
	if s.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		encode := base64.RawURLEncoding.EncodeToString
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k", "n": encode(s.key.N.Bytes()), "e": encode(big.NewInt(int64(s.key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if id, secret, _ := r.BasicAuth(); s.down || id != "enricher" || secret != clientSecret {
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client", "error_description": "not " + secret})
			return
		}
		token := s.sign(r.FormValue("audience"))
		s.tokens = append(s.tokens, token)
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "token_type": "bearer", "expires_in": int(tokenLife.Seconds())})
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) sign(audience string) string {
	encode := base64.RawURLEncoding.EncodeToString
	now := time.Now()
	claims, _ := json.Marshal(map[string]any{ // never fails
		"sub": kafka.SuperUser, "iss": tokenIssuer, "aud": audience, "iat": now.Unix(), "exp": now.Add(tokenLife).Unix(),
	})
	text := encode([]byte(`{"alg":"RS256","typ":"JWT","kid":"k"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	signature, _ := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	return text + "." + encode(signature)
}

// setDown makes the server refuse to issue tokens, or issue them again.
func (s *tokenServer) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *tokenServer) issued() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.tokens...)
}

// properties make the secured listener accept the server's tokens.
func (s *tokenServer) properties() map[string]string {
	const listener = "listener.name.sasl_ssl.oauthbearer."
	return map[string]string{
		"sasl.enabled.mechanisms":                       "SCRAM-SHA-256,OAUTHBEARER",
		listener + "sasl.jaas.config":                   "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
		listener + "sasl.server.callback.handler.class": "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler",
		listener + "connections.max.reauth.ms":          strconv.FormatInt(sessionLife.Milliseconds(), 10),
		"sasl.oauthbearer.jwks.endpoint.url":            s.URL + "/keys",
		"sasl.oauthbearer.expected.audience":            "kafka",
		"sasl.oauthbearer.expected.issuer":              tokenIssuer,
	}
}

// TestKafkaShortLivedCredentials runs the command with tokens that live for 12 s,
// sessions that a broker ends after 4 s. All certificates and the authority are
// replaced by others, which live for two minutes; a key file is
// emptied; the token server refuses until the last token has expired. Events go on
// meanwhile while anything is valid, and every one has exactly one outcome.
func TestKafkaShortLivedCredentials(t *testing.T) {
	t.Parallel()
	tokens := newTokenServer(t)
	e, c := ownKafkaEnv(t, kafka.Config{
		Secured: true, Properties: tokens.properties(),
		JavaOptions: []string{"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + tokens.URL + "/keys"},
	})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(clientSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out := program{
		binary: build(t),
		args: []string{
			"run", "--brokers", strings.Join(c.Secured.Brokers, ","), "--log-level", "debug",
			"--tls-ca", c.Secured.CA, "--tls-cert", c.Secured.Cert, "--tls-key", c.Secured.Key,
			"--sasl-mechanism", "OAUTHBEARER", "--oauth-token-url", tokens.URL + "/token", "--oauth-client-id", "enricher",
			"--oauth-client-secret-file", secret, "--oauth-param", "audience=kafka", "--oauth-scope", "calls",
			"--group", e.Group, "--instance", "a", "--input-topics", e.In, "--enriched-topic", e.Enriched, "--dead-letter-topic", e.Dead,
			"--api-url", e.serveAPI(), "--sdk-app-id", strconv.Itoa(fetchtest.DemoSDKAppID), "--lookup-delay", "0s", "--admin-addr", "127.0.0.1:0",
		},
	}.start(t)
	admin := &adminPages{t: t, out: out}
	fed := 0
	// feed feeds an event every 20 ms for a time, and waits for the outcomes.
	feed := func(d time.Duration) {
		t.Helper()
		for end := time.Now().Add(d); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
			e.FeedCall(int32(fed%partitions), "c"+strconv.Itoa(fed))
			fed++
		}
		e.Await(time.Minute)
	}

	feed(2 * sessionLife)
	if n := strings.Count(out.String(), "reauthenticating"); n < 2 {
		t.Errorf("the sessions were authenticated again %d times", n)
	}
	if errs := admin.metric("enricher_kafka_errors_total"); errs != 0 {
		t.Errorf("%v errors of the Kafka client while nothing is wrong", errs)
	}

	// The broker trusts the new authority only.
	if err := errors.Join(c.Shutdown(0), c.Secured.Renew(2*time.Minute), c.Run(0), c.Await(t.Context(), 1)); err != nil {
		t.Fatal(err)
	}
	feed(sessionLife)

	key, err := os.ReadFile(c.Secured.Key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(c.Secured.Key, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(nil)
	admin.await(5*time.Second, 200, "--tls-cert: what was read before is still in use: file "+c.Secured.Key+" is empty; replace the file")
	feed(time.Second)
	write(key)
	admin.await(5*time.Second, 200, `"warnings":[]`)

	tokens.setDown(true)
	admin.await(tokenLife, 200, "--oauth-client-secret-file: cannot be renewed, and expires at ")
	cause := "--oauth-client-secret-file: the token endpoint responded with 401 " + http.StatusText(http.StatusUnauthorized) + ", invalid_client (not [redacted]); check --oauth-client-id"
	admin.await(tokenLife+30*time.Second, 503, cause)
	e.FeedCall(0, "waits")
	tokens.setDown(false)
	feed(sessionLife)
	admin.await(10*time.Second, 200, `"warnings":[]`)
	e.Check()

	texts := []string{out.String(), admin.get("/metrics"), admin.get("/readyz"), admin.seen}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, text := range append(texts, out.String()) {
		for _, secret := range append(tokens.issued(), clientSecret, string(key)) {
			if strings.Contains(text, secret) {
				t.Error("a secret leaks")
			}
		}
	}
	if n := len(tokens.issued()); n < 3 {
		t.Errorf("%d tokens were issued", n)
	}
}

// adminPages are the pages of a running command.
type adminPages struct {
	t    *testing.T
	out  *output
	seen string // everything that /readyz returned
}

func (a *adminPages) get(path string) string {
	a.t.Helper()
	_, body := a.request(path)
	return body
}

func (a *adminPages) request(path string) (status int, body string) {
	a.t.Helper()
	m := regexp.MustCompile(`"admin":"([^"]+)"`).FindStringSubmatch(a.out.String())
	if m == nil {
		return 0, "not started"
	}
	resp, err := http.Get("http://" + m[1] + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// await waits until /readyz has the status and contains the words.
func (a *adminPages) await(limit time.Duration, status int, words string) {
	a.t.Helper()
	for deadline := time.Now().Add(limit); ; <-time.After(50 * time.Millisecond) {
		got, body := a.request("/readyz")
		a.seen += body
		if got == status && strings.Contains(body, words) {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("/readyz: %d %s; want %d with %s\n%s", got, body, status, words, lastLines(a.out.String()))
		}
	}
}

// metric returns the sum of all series of a metric.
func (a *adminPages) metric(name string) float64 {
	a.t.Helper()
	var sum float64
	for line := range strings.Lines(a.get("/metrics")) {
		if strings.HasPrefix(line, name) {
			var v float64
			if _, err := fmt.Sscan(line[strings.LastIndex(line, " "):], &v); err != nil {
				a.t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

func lastLines(text string) string {
	const n = 4000
	return text[max(0, len(text)-n):]
}
