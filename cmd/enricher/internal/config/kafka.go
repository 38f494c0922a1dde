package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// KafkaFlags configure the connections to the brokers.
type KafkaFlags struct {
	Brokers          List   `default:"127.0.0.1:9092" help:"Kafka bootstrap servers."`
	TLS              bool   `name:"tls" help:"Use TLS for Kafka."`
	TLSCA            string `name:"tls-ca" placeholder:"FILE" help:"PEM file with CA certificates, instead of the system's."`
	TLSCert          string `name:"tls-cert" placeholder:"FILE" help:"PEM client certificate."`
	TLSKey           string `name:"tls-key" placeholder:"FILE" help:"PEM private key of --tls-cert."`
	SASLMechanism    string `name:"sasl-mechanism" placeholder:"NAME" help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."`
	SASLUser         string `name:"sasl-user" placeholder:"NAME" help:"SASL user name."`
	SASLPasswordFile string `name:"sasl-password-file" placeholder:"FILE" help:"File with the SASL password."`

	Options []kgo.Opt `kong:"-"` // reach the brokers; set by Check
}

// Check implements Checker.
func (f *KafkaFlags) Check(src *Sources) {
	if len(f.Brokers) == 0 {
		src.Problem("brokers", "must be given")
	}
	for _, b := range f.Brokers {
		if err := checkBroker(b); err != nil {
			src.Problem("brokers", "%v", err)
		}
	}
	f.Options = []kgo.Opt{kgo.SeedBrokers(f.Brokers...)}
	if f.UsesTLS() {
		f.Options = append(f.Options, kgo.DialTLSConfig(f.tlsConfig(src)))
	}
	if f.SASLMechanism != "" || f.SASLUser != "" || f.SASLPasswordFile != "" {
		if m := f.mechanism(src); m != nil {
			f.Options = append(f.Options, kgo.SASL(m))
		}
	}
}

// UsesTLS reports whether connections to the brokers use TLS.
func (f *KafkaFlags) UsesTLS() bool {
	return f.TLS || f.TLSCA != "" || f.TLSCert != "" || f.TLSKey != ""
}

func (f *KafkaFlags) tlsConfig(src *Sources) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.TLSCA != "" {
		pem, err := os.ReadFile(f.TLSCA)
		c.RootCAs = x509.NewCertPool()
		if err == nil && !c.RootCAs.AppendCertsFromPEM(pem) {
			err = fmt.Errorf("%s contains no PEM certificate", f.TLSCA)
		}
		if err != nil {
			src.Problem("tls-ca", "%v", err)
		}
	}
	if (f.TLSCert == "") != (f.TLSKey == "") {
		src.Problem("tls-cert", "requires --tls-key, and the other way round; set both or neither")
	} else if f.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(f.TLSCert, f.TLSKey)
		if err != nil {
			src.Problem("tls-cert", "%v", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c
}

func (f *KafkaFlags) mechanism(src *Sources) sasl.Mechanism {
	src.Required("sasl-user", f.SASLUser)
	src.Required("sasl-password-file", f.SASLPasswordFile)
	var password string
	if f.SASLPasswordFile != "" {
		b, err := os.ReadFile(f.SASLPasswordFile)
		password = strings.TrimRight(string(b), "\r\n")
		if err == nil && password == "" {
			err = fmt.Errorf("%s is empty", f.SASLPasswordFile)
		}
		if err != nil {
			src.Problem("sasl-password-file", "%v", err)
		}
	}
	switch f.SASLMechanism {
	case "PLAIN":
		return plain.Auth{User: f.SASLUser, Pass: password}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: f.SASLUser, Pass: password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		return scram.Auth{User: f.SASLUser, Pass: password}.AsSha512Mechanism()
	}
	src.Problem("sasl-mechanism", "%q must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", f.SASLMechanism)
	return nil
}

// Principal returns the Kafka principal of the SASL user, such as User:enricher,
// or "" if there is no SASL user.
func (f *KafkaFlags) Principal() string {
	if f.SASLUser == "" {
		return ""
	}
	return "User:" + f.SASLUser
}
