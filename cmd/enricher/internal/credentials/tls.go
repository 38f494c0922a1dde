package credentials

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
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

// tlsConfig returns a configuration that reads the files again for every
// connection. crypto/tls has a hook for the client's certificate, but none for the
// roots; so those are verified in VerifyConnection, as crypto/tls itself would.
func (c *Credentials) tlsConfig() *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.ca != nil {
		cfg.InsecureSkipVerify = true // VerifyConnection verifies
		cfg.VerifyConnection = c.verify
	}
	if c.pair != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair.get(), nil }
	}
	return cfg
}

func (c *Credentials) verify(conn tls.ConnectionState) error {
	opts := x509.VerifyOptions{Roots: c.ca.get().pool, DNSName: conn.ServerName, Intermediates: x509.NewCertPool()}
	for _, cert := range conn.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := conn.PeerCertificates[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: conn.PeerCertificates, Err: err}
	}
	return nil
}
