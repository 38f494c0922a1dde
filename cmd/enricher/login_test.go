package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/fetch/fetchtest"
)

// Every command that connects to Kafka logs in the same way, and says in one line,
// with a remedy, what is wrong with the login. The secret is in no output, also not
// if the token endpoint repeats it.
func TestFailedLoginIsOneLine(t *testing.T) {
	const secret = "client-secret-that-must-not-leak"
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"error":"invalid_client","error_description":"` + secret + `"}`))
	}))
	t.Cleanup(tokens.Close)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cluster.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return req.ResponseKind(), nil, true
	})
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	login := []string{
		"--brokers", cluster.ListenAddrs()[0], "--sasl-mechanism", "OAUTHBEARER",
		"--oauth-token-url", tokens.URL, "--oauth-client-id", "me", "--oauth-client-secret-file", file,
	}
	service := []string{"--api-url", "http://127.0.0.1:1", "--sdk-app-id", "1400000000"}
	for name, command := range map[string][]string{
		"stats":   {"dlq", "stats"},
		"ls":      {"dlq", "ls"},
		"show":    {"dlq", "show", "0:1"},
		"replay":  {"dlq", "replay"},
		"discard": {"dlq", "discard", "0:1", "--note", "x"},
		"skip":    {"skip", "calls:0", "--to", "5", "--note", "x"},
		"check":   slices.Concat([]string{"check"}, service),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("ENRICHER_SECRET_KEY", fetchtest.DemoKey)
			var out, errs bytes.Buffer
			code := run(slices.Concat(command, login), &out, &errs)
			text := out.String() + errs.String()
			if code != exitFailed {
				t.Errorf("exit code %d", code)
			}
			if strings.Contains(text, secret) || strings.Contains(text, fetchtest.DemoKey) {
				t.Errorf("a secret leaks:\n%s", text)
			}
			fact := "--oauth-client-secret-file: the token endpoint responded with 401 " + http.StatusText(http.StatusUnauthorized) + ", invalid_client ([redacted])"
			const remedy = "check --oauth-client-id and the file of --oauth-client-secret-file"
			if strings.Count(text, fact) != 1 || strings.Count(text, remedy) != 1 {
				t.Errorf("%q and %q must be there once:\n%s", fact, remedy, text)
			}
		})
	}
}
