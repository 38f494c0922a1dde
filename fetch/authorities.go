package fetch

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// authorities are the CA certificates of a file that may be replaced.
type authorities struct {
	path string // "" for the system's

	mu      sync.Mutex
	current *x509.CertPool // of the last read that succeeded; nil for the system's
	problem error          // of the last read
}

// pool reads the file again, and returns the certificates that it has now, or had
// before if it cannot be used.
func (a *authorities) pool() *x509.CertPool {
	_ = a.read() // see err
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.current
}

// err returns why the last read of the file failed; nil if it did not.
func (a *authorities) err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.problem
}

func (a *authorities) read() error {
	if a.path == "" {
		return nil
	}
	pool, err := readAuthorities(a.path, time.Now())
	if err != nil {
		err = fmt.Errorf("CA file: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.problem = err
	if err == nil {
		a.current = pool
	}
	return err
}

// readAuthorities reads a PEM file, which must contain a certificate that is valid
// at the moment.
func readAuthorities(path string, now time.Time) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	problem := errors.New("contains no PEM certificate")
	usable := false
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			problem = fmt.Errorf("contains a certificate that cannot be read: %w", err)
		case now.After(cert.NotAfter):
			problem = fmt.Errorf("its certificate expired on %s", cert.NotAfter.UTC().Format(time.DateOnly))
		default:
			pool.AddCert(cert)
			usable = true
		}
	}
	if !usable {
		return nil, fmt.Errorf("%s: %w", path, problem)
	}
	return pool, nil
}
