package credentials

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2/clientcredentials"
)

const clientSecret = planted + "/+ &"

// newEndpoint returns one whose requests a handler serves.
func newEndpoint(t *testing.T, serve http.HandlerFunc) *endpoint {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	secret, err := openText("oauth-client-secret-file", newDir(t).write("secret", clientSecret+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return &endpoint{config: clientcredentials.Config{TokenURL: s.URL + "/token", ClientID: "me"}, secret: secret}
}

func respond(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Whatever a token endpoint responds with, the error names the flag that is most
// likely wrong, says what came back, and repeats neither the secret nor a token.
func TestTokenEndpointFails(t *testing.T) {
	const json, html = "application/json", "text/html"
	for name, test := range map[string]struct {
		serve http.HandlerFunc
		flag  string
		words string
	}{
		"wrong secret": {
			respond(401, json, `{"error":"invalid_client","error_description":"`+clientSecret+` is not\nright"}`),
			"oauth-client-secret-file", "401 " + http.StatusText(http.StatusUnauthorized) + ", invalid_client ([redacted] is not right)",
		},
		"wrong secret, encoded": {
			respond(400, json, `{"error":"invalid_client","error_description":"`+url.QueryEscape(clientSecret)+`"}`),
			"oauth-client-secret-file", "invalid_client ([redacted])",
		},
		"401 without a reason": {respond(401, html, planted), "oauth-client-secret-file", "responded with 401"},
		"scope":                {respond(400, json, `{"error":"invalid_scope"}`), "oauth-scope", "invalid_scope"},
		"not found":            {respond(404, html, "<html>"+planted), "oauth-token-url", "404 Not Found"},
		"unavailable":          {respond(503, html, "<html>"+planted), "oauth-token-url", "503 Service Unavailable"},
		"login page":           {respond(200, html, "<html>"+planted), "oauth-token-url", "not one of a token endpoint"},
		"nothing":              {respond(200, json, ""), "oauth-token-url", "not one of a token endpoint"},
		"empty object":         {respond(200, json, "{}"), "oauth-token-url", "not one of a token endpoint"},
		"wrong types":          {respond(200, json, `{"access_token":["`+planted+`"]}`), "oauth-token-url", "not one of a token endpoint"},
		"wrong life":           {respond(200, json, `{"access_token":"`+planted+`","expires_in":"`+planted+`"}`), "oauth-token-url", "not one of a token endpoint"},
		"token of two lines":   {respond(200, json, `{"access_token":"`+planted+`\nx"}`), "oauth-token-url", "no usable access_token"},
		"token with a break":   {respond(200, json, `{"access_token":"`+planted+`\u0001auth=x"}`), "oauth-token-url", "no usable access_token"},
		"redirect": {
			func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/token" {
					t.Error("a redirect is followed")
				}
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			},
			"oauth-token-url", "307 Temporary Redirect",
		},
		"connection lost": {
			func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"oauth-token-url", "EOF",
		},
		"no response": {
			func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // so that the server notices that the client is gone
				<-r.Context().Done()
			},
			"oauth-token-url", "no response within 8s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, test.serve)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, _, err := e.fetch(ctx)
			var got *Error
			if !errors.As(err, &got) || got.Flag != test.flag || !strings.Contains(got.Text, test.words) {
				t.Fatalf("%v; want --%s: …%s", err, test.flag, test.words)
			}
			if strings.ContainsAny(got.Text, "\r\n") {
				t.Errorf("more than one line: %q", got.Text)
			}
			if transient := slices.Contains([]string{"unavailable", "connection lost", "no response"}, name); got.Temporary() != transient {
				t.Errorf("transient: %v", got.Temporary())
			}
			assertNoLeak(t, err.Error())
			if errors.Unwrap(err) != nil {
				t.Error("the Kafka client sees what is behind the error")
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		e := newEndpoint(t, nil)
		e.config.TokenURL = "http://127.0.0.1:1/token"
		if _, _, err := e.fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "--oauth-token-url: http://127.0.0.1:1/token: dial tcp 127.0.0.1:1: connect: connection refused") {
			t.Error(err)
		}
	})
}

// A token request as the endpoint sees it; the life of the token comes from
// expires_in, otherwise from the token.
func TestTokenRequest(t *testing.T) {
	expires := time.Now().Add(time.Hour).Truncate(time.Second)
	life := `,"expires_in":60`
	e := newEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		secret, _ := url.QueryUnescape(password)
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		want := url.Values{"grant_type": {"client_credentials"}, "scope": {"a b"}, "audience": {"kafka"}}
		if user != "me" || secret != clientSecret || r.PostForm.Encode() != want.Encode() {
			t.Errorf("user %s, form %v", user, r.PostForm)
		}
		respond(200, "application/json", `{"token_type":"bearer","access_token":"`+jwt("service", expires)+`"`+life+`}`)(w, r)
	})
	e.config.Scopes, e.config.EndpointParams = []string{"a", "b"}, url.Values{"audience": {"kafka"}}
	got, until, err := e.fetch(t.Context())
	if err != nil || got.subject != "service" || time.Until(until) > time.Minute || time.Until(until) < 50*time.Second {
		t.Errorf("%v until %v: %v", got.subject, until, err)
	}
	life = ""
	if _, until, err := e.fetch(t.Context()); err != nil || !until.Equal(expires) {
		t.Errorf("until %v, want %v: %v", until, expires, err)
	}
}

// The endpoint may have a certificate of --tls-ca.
func TestTokenEndpointIsVerified(t *testing.T) {
	d, ca := newDir(t), newAuthority(t, "ca")
	_, _, pair := ca.issue("login", time.Hour)
	s := httptest.NewUnstartedServer(respond(200, "application/json", `{"access_token":"`+planted+`"}`))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	e := newEndpoint(t, nil)
	e.config.TokenURL = s.URL
	if _, _, err := e.fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Error(err)
	}
	var err error
	if e.ca, err = openCA("tls-ca", d.write("ca", ca.pem)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := e.fetch(t.Context()); err != nil || got.text != planted {
		t.Error(err)
	}
}
