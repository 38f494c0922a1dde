package credentials

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// authorize adds a credential to a request, and returns it.
type authorize func(*http.Request) (secret string, err error)

func basic(user string, password *file[string]) authorize {
	return func(r *http.Request) (string, error) {
		p := password.get()
		r.SetBasicAuth(user, p)
		return p, nil
	}
}

func withToken(get func(context.Context) (token, error)) authorize {
	return func(r *http.Request) (string, error) {
		t, err := get(r.Context())
		if err == nil {
			r.Header.Set("Authorization", "Bearer "+t.text)
		}
		return t.text, err
	}
}

// Client sends HTTP requests with the credentials as they are when it is made.
type Client struct {
	http.Client
	credentials *Credentials
	secrets     []string // that were sent
}

// Client returns a client for a few requests, one after the other. It has to be closed.
func (c *Credentials) Client(timeout time.Duration) *Client {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.ca != nil {
		cfg.RootCAs = c.ca.get().pool
	}
	if c.pair != nil {
		cfg.Certificates = []tls.Certificate{*c.pair.get()}
	}
	client := &Client{credentials: c}
	client.Client = http.Client{
		Timeout:   timeout,
		Transport: bounded{&http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: cfg, MaxResponseHeaderBytes: 64 << 10}},
		// A credential must not go elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return client
}

// bounded cuts the bodies of responses.
type bounded struct{ *http.Transport }

// maxBodyBytes is many times what a registry says of one schema.
const maxBodyBytes = 1 << 20

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxBodyBytes), resp.Body}
	}
	return resp, err
}

// Authorize adds the credential to a request.
func (c *Client) Authorize(r *http.Request) error {
	if c.credentials.authorize == nil {
		return nil
	}
	secret, err := c.credentials.authorize(r)
	c.secrets = append(c.secrets, secret, url.QueryEscape(secret), strings.TrimPrefix(r.Header.Get("Authorization"), "Basic "))
	return err
}

// Clean returns a text from elsewhere on one line, without a secret that it may repeat.
func (c *Client) Clean(text string) string { return clean(text, c.secrets...) }

// Close closes the connections.
func (c *Client) Close() { c.CloseIdleConnections() }

// SendsSecret reports whether HTTP requests carry a password or a token.
func (c *Credentials) SendsSecret() bool { return c.authorize != nil }
