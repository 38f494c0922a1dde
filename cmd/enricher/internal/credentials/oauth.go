package credentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// bearer is the mechanism OAUTHBEARER. get returns a token that is valid now.
// flag names where it comes from.
func bearer(flag string, get func(context.Context) (token, error), extensions map[string]string) sasl.Mechanism {
	return mechanism{
		flag: flag,
		Mechanism: oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			t, err := get(ctx)
			return oauth.Auth{Token: t.text, Extensions: extensions}, err
		}),
	}
}

// mechanism makes errors of a login those of a credential.
type mechanism struct {
	sasl.Mechanism
	flag string // that the credential comes from
}

// Authenticate implements sasl.Mechanism.
func (m mechanism) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	s, first, err := m.Mechanism.Authenticate(ctx, host)
	var credential *Error
	if err != nil && ctx.Err() == nil && !errors.As(err, &credential) {
		err = &Error{Flag: m.flag, Text: clean(err.Error())}
	}
	return session{s, m.flag}, first, err
}

// session is one login.
type session struct {
	sasl.Session
	flag string
}

// Challenge implements sasl.Session. A broker explains why it rejects a token in a
// challenge, which franz-go only calls unexpected (RFC 7628, section 3.2.2).
func (s session) Challenge(resp []byte) (bool, []byte, error) {
	done, next, err := s.Session.Challenge(resp)
	if err == nil || len(resp) == 0 {
		return done, next, err
	}
	why := struct {
		Status string `json:"status"`
		Scope  string `json:"scope"`
	}{}
	text := "the broker rejected the token"
	if json.Unmarshal(resp, &why) == nil && why.Status != "" {
		text += ": " + clean(why.Status)
		if why.Scope != "" {
			text += ", scope " + clean(why.Scope)
		}
	}
	return false, nil, &Error{Flag: s.flag, Text: text, Rejected: true}
}

// endpoint requests tokens with a client's secret.
type endpoint struct {
	config clientcredentials.Config
	prefix string // of the flags' names
	secret *file[string]
	ca     *file[trust] // besides the system's; nil: none
}

// fetch requests a token. renewed calls it from one goroutine at a time.
func (e *endpoint) fetch(ctx context.Context) (token, time.Time, error) {
	client := &http.Client{
		Transport: e.transport(),
		// The secret must not go elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	e.config.ClientSecret = e.secret.get()
	got, err := e.config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return token{}, time.Time{}, e.explain(err)
	}
	t := newToken(got.AccessToken)
	if !isToken(t.text) {
		return token{}, time.Time{}, e.at("the response contains no usable access_token")
	}
	if !got.Expiry.IsZero() { // relative to now, so that this machine's clock does not matter
		t.expires = got.Expiry
	}
	return t, t.expires, nil
}

// transport returns one for a single request: there is one per life of a token.
func (e *endpoint) transport() *http.Transport {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.ca != nil {
		if pool, err := x509.SystemCertPool(); err == nil {
			cfg.RootCAs = pool
		} else {
			cfg.RootCAs = x509.NewCertPool()
		}
		cfg.RootCAs.AppendCertsFromPEM(e.ca.get().pem)
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: new(net.Dialer).DialContext, TLSClientConfig: cfg,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// explain returns the error of a token request without what the response says
// verbatim: it may repeat the secret.
func (e *endpoint) explain(err error) *Error {
	var response *oauth2.RetrieveError
	var request *url.Error
	switch {
	case errors.As(err, &response):
		text := "the token endpoint responded with " + clean(response.Response.Status)
		if response.ErrorCode != "" {
			text += ", " + e.clean(response.ErrorCode)
		}
		if response.ErrorDescription != "" {
			text += " (" + e.clean(response.ErrorDescription) + ")"
		}
		flag := e.prefix + "oauth-token-url"
		switch {
		case response.ErrorCode == "invalid_scope":
			flag = e.prefix + "oauth-scope"
		case strings.HasSuffix(response.ErrorCode, "_client"), // invalid, unauthorised
			response.Response.StatusCode == http.StatusUnauthorized:
			flag = e.prefix + "oauth-client-secret-file"
		}
		return &Error{Flag: flag, Text: text, Transient: response.Response.StatusCode >= 500}
	case errors.As(err, &request) && request.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return e.unreachable(fmt.Sprintf("no response within %v", renewTimeout))
	case errors.As(err, &request):
		return e.unreachable(e.clean(request.Err.Error()))
	}
	return e.at("the response is not one of a token endpoint")
}

func (e *endpoint) at(text string) *Error {
	return &Error{Flag: e.prefix + "oauth-token-url", Text: e.config.TokenURL + ": " + text}
}

func (e *endpoint) unreachable(text string) *Error {
	err := e.at(text)
	err.Transient = true
	return err
}

func (e *endpoint) clean(text string) string {
	secret := e.config.ClientSecret
	return clean(text, secret, url.QueryEscape(secret))
}

// Pairs reads values of the form name=value.
func Pairs(values []string) (url.Values, error) {
	pairs := url.Values{}
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q must have the form name=value", v)
		}
		pairs.Add(name, value)
	}
	return pairs, nil
}
