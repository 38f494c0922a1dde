package kafka

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The super user of a secured cluster, by SCRAM-SHA-256.
const (
	SuperUser     = "ops"
	SuperPassword = "ops-password"
)

// Secured is what clients need to use the secured listeners.
type Secured struct {
	Brokers []string // addresses, by node
	CA      string   // PEM file with the certificate to trust
	// PEM files with the certificate that the brokers demand from clients, and its key.
	Cert, Key string

	keystore string // PEM file with the brokers' certificate and key
}

// secure creates a certificate authority, and certificates for brokers and clients.
func secure(dir string) (*Secured, error) {
	s := &Secured{
		CA:   filepath.Join(dir, "ca.pem"),
		Cert: filepath.Join(dir, "client.pem"), Key: filepath.Join(dir, "client-key.pem"),
		keystore: filepath.Join(dir, "broker.pem"),
	}
	return s, s.Renew(24 * time.Hour)
}

// Renew replaces the authority, all certificates and their keys by others that live
// for a time. A broker uses them when it is started again.
func (s *Secured) Renew(life time.Duration) error {
	ca, err := newCertificate(life, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	if err != nil {
		return err
	}
	broker, err := newCertificate(life, &x509.Certificate{
		Subject: pkix.Name{CommonName: "broker"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca)
	if err != nil {
		return err
	}
	client, err := newCertificate(life, &x509.Certificate{
		Subject:  pkix.Name{CommonName: "client"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca)
	if err != nil {
		return err
	}
	for file, content := range map[string][]byte{
		s.CA: ca.certPEM, s.Cert: client.certPEM, s.Key: client.keyPEM,
		s.keystore: bytes.Join([][]byte{broker.keyPEM, broker.certPEM}, nil),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// properties returns those of a broker whose secured listener has the address.
func (s *Secured) properties(plain, address, controller string) map[string]string {
	return map[string]string{
		"listeners":                      "PLAINTEXT://" + plain + ",SASL_SSL://" + address + ",CONTROLLER://" + controller,
		"advertised.listeners":           "PLAINTEXT://" + plain + ",SASL_SSL://" + address,
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",

		"ssl.keystore.type": "PEM", "ssl.keystore.location": s.keystore,
		"ssl.truststore.type": "PEM", "ssl.truststore.location": s.CA, "ssl.client.auth": "required",
		"sasl.enabled.mechanisms":                               "SCRAM-SHA-256",
		"listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"authorizer.class.name":                                 "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                                           "User:" + SuperUser + ";User:ANONYMOUS", // for the plain listeners, which the brokers use among themselves
	}
}

type certificate struct {
	cert            *x509.Certificate
	key             *ecdsa.PrivateKey
	certPEM, keyPEM []byte
}

// newCertificate creates a certificate from a template; signer nil: a self-signed
// one.
func newCertificate(life time.Duration, template *x509.Certificate, signer *certificate) (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(life)
	parent, parentKey := template, key
	if signer != nil {
		parent, parentKey = signer.cert, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, fmt.Errorf("create the certificate of %s: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &certificate{
		cert: cert, key: key,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}, nil
}
