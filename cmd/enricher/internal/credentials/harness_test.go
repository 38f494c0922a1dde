package credentials

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// planted is part of every secret of these tests; it must appear in no text.
const planted = "planted-secret"

func assertNoLeak(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(text, planted) || strings.Contains(text, base64.RawURLEncoding.EncodeToString([]byte(planted))) {
			t.Errorf("a secret leaks: %s", text)
		}
	}
}

// dir is a directory with the files of a test.
type dir struct {
	t    testing.TB
	path string
}

func newDir(t testing.TB) dir { return dir{t, t.TempDir()} }

func (d dir) file(name string) string { return filepath.Join(d.path, name) }

func (d dir) write(name, content string) string {
	d.t.Helper()
	if err := os.WriteFile(d.file(name), []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return d.file(name)
}

// jwt returns an unsigned token that expires at a time.
func jwt(subject string, expires time.Time) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return part(`{"alg":"none"}`) + "." + part(fmt.Sprintf(`{"sub":%q,"exp":%d}`, subject, expires.Unix())) + "." + planted
}

// authority is a certificate authority.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key, a.pem, _ = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotAfter: time.Now().Add(time.Hour),
	})
	return a
}

// issue returns a certificate for 127.0.0.1 and its key, as PEM and as a pair.
func (a *authority) issue(name string, life time.Duration) (cert, key string, pair tls.Certificate) {
	a.t.Helper()
	return a.issueFor(net.IPv4(127, 0, 0, 1), name, life)
}

// issueFor is issue for another address.
func (a *authority) issueFor(ip net.IP, name string, life time.Duration) (cert, key string, pair tls.Certificate) {
	a.t.Helper()
	_, _, cert, key = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(life), IPAddresses: []net.IP{ip},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, pair
}

func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Minute)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	encode := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return cert, key, encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8)
}

// open makes credentials that must be usable.
func open(t testing.TB, cfg Config) *Credentials {
	t.Helper()
	return New(cfg, func(flag string, err error) { t.Fatalf("--%s: %v", flag, err) })
}
