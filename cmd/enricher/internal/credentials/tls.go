package credentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"time"
)

// trust is what the brokers' certificates are verified against.
type trust struct {
	pem  []byte
	pool *x509.CertPool
}

func openCA(flag, path string) (*file[trust], error) {
	return openFile(flag, []string{path}, nil, func(contents ...[]byte) (trust, error) {
		t := trust{contents[0], x509.NewCertPool()}
		if !t.pool.AppendCertsFromPEM(t.pem) {
			return trust{}, fmt.Errorf("file %s contains no PEM certificate", path)
		}
		return t, nil
	})
}

// openPair reads a certificate and its key. One of them that was replaced before the
// other replaces nothing.
func openPair(flag, cert, key string) (*file[*tls.Certificate], error) {
	expires := func(c *tls.Certificate) time.Time { return c.Leaf.NotAfter }
	return openFile(flag, []string{cert, key}, expires, func(contents ...[]byte) (*tls.Certificate, error) {
		pair, err := tls.X509KeyPair(contents[0], contents[1])
		if err != nil {
			return nil, fmt.Errorf("files %s and %s: %w", cert, key, err)
		}
		return &pair, nil
	})
}

// dialTimeout bounds a connection and its handshake, as the Kafka client's default does.
const dialTimeout = 10 * time.Second

// dial opens a TLS connection with what the files hold now. The Kafka client has an
// option for a configuration that stays the same.
func (c *Credentials) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.ca != nil {
		cfg.RootCAs = c.ca.get().pool
	}
	if c.pair != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair.get(), nil }
	}
	return (&tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: cfg}).DialContext(ctx, network, addr)
}
