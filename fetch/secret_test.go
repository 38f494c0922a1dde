package fetch_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// caught is a testing.TB that only counts.
type caught struct{ n int }

func (*caught) Helper()                 {}
func (c *caught) Errorf(string, ...any) { c.n++ }

// A secret planted in any form makes AssertAbsent fail, and a clean text does not.
func TestAssertAbsentFindsSecrets(t *testing.T) {
	api := fetchtest.New(fetchtest.Config{})
	c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)})
	send(t, c, api, "id")
	s := api.Secrets()
	if s.Key == "" || len(s.UserSigs) != 1 || len(s.URLs) != 1 {
		t.Fatalf("%+v", s)
	}
	for kind, secret := range map[string]string{"key": s.Key, "UserSig": s.UserSigs[0], "URL": s.URLs[0]} {
		for form, text := range map[string]string{
			"plain":          secret,
			"query-escaped":  url.QueryEscape(secret),
			"base64":         base64.StdEncoding.EncodeToString([]byte("x" + secret + "y")),
			"URL base64":     base64.URLEncoding.EncodeToString([]byte("xy" + secret)),
			"base64 escaped": base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(secret))),
			"hexadecimal":    fmt.Sprintf("%x", secret),
			"quoted":         fmt.Sprintf("%q", secret),
			"half":           secret[:len(secret)/2+len("http://127.0.0.1")],
		} {
			if kind == "URL" && form == "half" && len(secret)/2 < 100 {
				continue
			}
			var found caught
			s.AssertAbsent(&found, form, []byte(`{"error":"before `+text+` after"}`))
			if found.n == 0 {
				t.Errorf("a planted %s, %s, is not found", kind, form)
			}
		}
	}
	s.AssertAbsent(t, "a clean text", []byte("dial tcp 127.0.0.1:443: connection refused; usersig=[redacted]&sdkappid=1400000000"))
}

func TestSecretIsNeverPrinted(t *testing.T) {
	const text = "5bd2850fff3ecb11d7c805251c51ee46"
	s := fetch.NewSecret(text)
	holder := struct{ Inner struct{ secret fetch.Secret } }{}
	holder.Inner.secret = s
	var all strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&all, verb+verb+verb+"\n", s, &s, holder)
	}
	b, err := json.Marshal(map[string]any{"s": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	all.Write(b)
	slog.New(slog.NewTextHandler(&all, nil)).Info("x", "s", s, "h", holder)
	core, logs := observer.New(zapcore.DebugLevel)
	zap.New(core).Info("x", zap.Any("s", s), zap.Stringer("t", s), zap.Any("h", holder))
	for _, e := range logs.All() {
		fmt.Fprint(&all, e.ContextMap())
	}
	all.WriteString(fmt.Errorf("wrapped: %w", errors.New(s.String())).Error())
	fetchtest.Secrets{Key: text}.AssertAbsent(t, "what was printed", []byte(all.String()))
}

// On every failing path, whatever the API echoes, no response contains a secret:
// checkResponse, which send calls, looks for them.
func TestNoLeaks(t *testing.T) {
	api, server := listen(t, fetchtest.Config{})
	c := newClient(t, fetch.ClientConfig{BaseURL: server.URL})
	send(t, c, api, "warm")
	secrets := api.Secrets()
	faults := []fetchtest.Fault{
		fetchtest.Echo(60010), fetchtest.Echo(424242), fetchtest.Echo(101050), fetchtest.BadGateway(), fetchtest.CutBody(), fetchtest.Reset(),
		fetchtest.Redirect("http://127.0.0.1:1/?usersig=" + url.QueryEscape(secrets.UserSigs[0])),
		fetchtest.Body("echoed page", "text/html", "<html>"+secrets.URLs[0]+"</html>"),
		fetchtest.Body("echoed as JSON", "application/json", fmt.Sprintf(`{"ErrorCode":%q}`, secrets.URLs[0])),
		fetchtest.CodeInfo(60009, base64.StdEncoding.EncodeToString([]byte(secrets.URLs[0]))),
		fetchtest.CodeInfo(60009, secrets.Key), fetchtest.CodeInfo(60009, strings.Repeat("x", 1000)+secrets.UserSigs[0]),
		fetchtest.CodeInfo(60009, "usersig=another-signature-in-plain-text"),
	}
	for _, row := range fetch.Codes() {
		faults = append(faults, fetchtest.Echo(row.Code))
	}
	for _, f := range faults {
		api.Script("id", f)
		a := send(t, c, api, "id")
		if strings.Contains(a.Message, "another-signature") {
			t.Errorf("a foreign signature is passed on: %s", a.Message)
		}
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	send(t, c, api, "id")

	var sent fetchtest.Secrets // what the transports below were given
	quote := func(r *http.Request) string {
		sent = fetchtest.Secrets{Key: fetchtest.DemoKey, UserSigs: []string{r.URL.Query().Get("usersig")}, URLs: []string{r.URL.String()}}
		if len(sent.Find([]byte(r.URL.String()))) == 0 {
			t.Error("a planted URL is not found")
		}
		return r.URL.String()
	}
	broken := newClient(t, fetch.ClientConfig{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		return nil, &url.Error{Op: "Post", URL: quote(r), Err: errors.New("refused")}
	})})
	a := broken.Lookup(t.Context(), "id", nil)
	sent.AssertAbsent(t, "an error that quotes the URL", []byte(a.Message))
	if !strings.Contains(a.Message, "refused") {
		t.Errorf("the error is lost: %s", a.Message)
	}

	var o follower
	panics := newClient(t, fetch.ClientConfig{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		panic("cannot handle " + quote(r))
	})})
	defer func() {
		text := fmt.Sprint(recover())
		sent.AssertAbsent(t, "a panic that quotes the URL", []byte(text))
		if !strings.HasPrefix(text, "cannot handle ") || o.saw() != "begin" {
			t.Errorf("panicked with %q, the observer saw %q", text, o.saw())
		}
	}()
	panics.Lookup(t.Context(), "id", &o)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A key file that cannot be used is reported with the next look at it, whatever is
// wrong with it, and the key that was read before stays in use.
func TestBrokenKeyFileIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, broken := range map[string]struct {
		spoil func()
		want  string
	}{
		"empty":        {func() { write("") }, "is empty"},
		"blank":        {func() { write(" \r\n") }, "is empty"},
		"missing":      {func() { _ = os.Remove(path) }, "no such file"},
		"a directory":  {func() { _ = os.Remove(path); _ = os.Mkdir(path, 0o700) }, "is a directory"},
		"two lines":    {func() { write(fetchtest.DemoKey + "\n" + fetchtest.DemoKey) }, "white space"},
		"UTF-16":       {func() { write("\xff\xfe5\x00b\x00d\x002\x008\x005\x000\x00") }, "control characters"},
		"cut":          {func() { write(fetchtest.DemoKey[:5]) }, "shorter than 12 bytes"},
		"another file": {func() { write(strings.Repeat("x", 5000)) }, "longer than 4096 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			write(fetchtest.DemoKey)
			defer func() { _ = os.Remove(path) }()
			key, err := fetch.KeyFromFile(path)
			if err != nil {
				t.Fatal(err)
			}
			api := fetchtest.New(fetchtest.Config{})
			c := newClient(t, fetch.ClientConfig{Key: key, Transport: fetchtest.Transport(api)})
			now := time.Now()
			check := func(want string) {
				t.Helper()
				now = now.Add(2 * time.Second)
				changed, problem := c.CheckKey(now)
				if changed || (problem == nil) != (want == "") || problem != nil && !strings.Contains(problem.Error(), want) {
					t.Errorf("changed: %v, problem %v, want %q", changed, problem, want)
				}
				if a := send(t, c, api, "id"); a.Verdict != fetch.Found {
					t.Errorf("%+v", a)
				}
			}
			check("")
			broken.spoil()
			check(broken.want)
			_ = os.Remove(path)
			write(fetchtest.DemoKey)
			check("")
		})
	}
}
