package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// newTransport returns a pool of connections.
//
// HTTP/1.1 only. Over HTTP/2 all requests would share one connection: a lost
// packet delays all of them, a lost connection fails all of them, and Go's
// HTTP/2 sends requests again by itself when a server winds a connection down.
//
// Only the proxy that the configuration names is used, whatever the environment says.
func newTransport(cfg ClientConfig, roots *x509.CertPool) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	secure := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if cfg.SmallHello {
		secure.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	}
	var proxy func(*http.Request) (*url.URL, error)
	if cfg.Proxy != nil {
		proxy = http.ProxyURL(cfg.Proxy)
	}
	dial := cfg.Dial
	if dial == nil {
		dial = dialer{&net.Dialer{Timeout: cfg.Timeout, KeepAlive: 15 * time.Second}}.dial
	}
	return &http.Transport{
		Protocols:              &protocols,
		Proxy:                  proxy,
		OnProxyConnectResponse: refusedByProxy,
		DialContext:            dial,
		TLSClientConfig:        secure,
		// A connection is opened on behalf of no single request. Those that wait for it
		// are to report their own timeout.
		TLSHandshakeTimeout: cfg.Timeout + time.Second,
		// By default Go keeps two idle connections per host: each further request
		// of a burst would open one and throw it away.
		MaxIdleConnsPerHost: cfg.Concurrency,
		MaxConnsPerHost:     cfg.Concurrency,
		// A request that begins while its generation ends may open a connection that
		// no other will use.
		IdleConnTimeout: cfg.ConnectionAge,
		// Responses are small, so compression gains nothing; and a small compressed
		// body can be a huge one.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// refusedByProxy returns the error for a proxy's response. Its text may be anything,
// also the credentials that it was sent.
func refusedByProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return fmt.Errorf("the proxy responds HTTP %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
}

// dialer opens connections of which nothing is left once they are closed.
type dialer struct{ *net.Dialer }

// dial makes a close reset the connection. Otherwise the kernel would go on
// sending a request that has timed out for minutes after the close, and the API
// would count it when the limiter does not any more.
func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, address)
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a connection that is gone already
	}
	return conn, err
}
