package fetch

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// newTransport is the client's own pool of connections.
//
// HTTP/1.1 only. Over HTTP/2 all requests would share one connection: a lost
// packet holds all of them up, a lost connection fails all of them, and Go's
// HTTP/2 sends requests again by itself when a server winds a connection down.
//
// No proxy, whatever the environment says: over plain http it would read the
// UserSig, and a simulator on this machine must not be asked through one.
func newTransport(cfg ClientConfig) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Protocols:           &protocols,
		Proxy:               nil,
		DialContext:         (&net.Dialer{Timeout: cfg.Timeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: cfg.Timeout,
		// Go keeps two idle connections to a host; every further request of a
		// burst would open one and throw it away.
		MaxIdleConnsPerHost: cfg.Concurrency,
		MaxConnsPerHost:     cfg.Concurrency,
		IdleConnTimeout:     time.Minute,
		// Answers are small. And a small compressed one can be a huge one.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}
