package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// addReach notes a broker that does not answer: which layer fails, and why.
func (l *look) addReach(check, addr string, s Status, err error) {
	found, remedy := l.unreachable(addr, err)
	l.add(check, addr, s, found, remedy)
}

func (l *look) unreachable(addr string, err error) (found, remedy string) {
	var (
		dns   *net.DNSError
		cert  *tls.CertificateVerificationError
		name  x509.HostnameError
		plain tls.RecordHeaderError
		alert *net.OpError
		slow  net.Error
	)
	const (
		path = "look at --brokers, at firewalls on the way, and at the broker's advertised.listeners"
		port = "look at which port of the broker is for what, and at --tls and --sasl-mechanism"
	)
	switch {
	case errors.As(err, &dns):
		return "DNS: " + dns.Error(), "look at --brokers, the broker's advertised.listeners and the name server"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "TCP: nobody listens there", path
	case errors.As(err, &name):
		return "TLS: its certificate is for another name: " + name.Error(), "name the broker as its certificate does"
	case errors.As(err, &cert):
		return "TLS: its certificate is not trusted: " + cert.Err.Error(), "give the certificate of who signed it as --tls-ca"
	case errors.As(err, &alert) && alert.Op == "remote error": // what crypto/tls makes of an alert
		return "TLS: the broker breaks it off: " + alert.Error(), "if it asks for a certificate, give one as --tls-cert and --tls-key"
	case errors.As(err, &plain), errors.Is(err, io.EOF) && l.handshake(addr) != nil:
		return "TLS: what listens there does not speak it", port
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Sprintf("SASL: user %q is refused, with mechanism %s", l.cfg.SASLUser, l.cfg.SASLMechanism),
			"look at --sasl-user, --sasl-password-file and --sasl-mechanism"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "SASL: the broker does not offer mechanism " + l.cfg.SASLMechanism, "look at --sasl-mechanism and the broker's sasl.enabled.mechanisms"
	case errors.Is(err, kerr.IllegalSaslState):
		return "SASL: this port does not take a login", port
	case errors.Is(err, io.EOF) && l.cfg.SASLMechanism != "": // brokers before Kafka 1.0 say no more than this
		return fmt.Sprintf("SASL: the broker closes the connection when user %q logs in, with mechanism %s", l.cfg.SASLUser, l.cfg.SASLMechanism),
			"look at --sasl-user, --sasl-password-file and --sasl-mechanism"
	case errors.Is(err, errNoLogin):
		return "SASL: the broker closes the connection without a word, as it does to those who do not log in", port
	case errors.Is(err, io.EOF):
		return "TLS: the broker closes the connection without a word, as it does to those who do not speak TLS", port
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		if l.cfg.TLS {
			return "TCP or TLS: no answer in time", path
		}
		return "TCP: no answer in time", path
	}
	return err.Error(), path
}

// errNoLogin: a broker that knows us no better than by our address was heard, but
// does not answer more than that.
var errNoLogin = errors.New("the broker wants a login")

// handshake tries TLS alone, if we are to speak it: the Kafka client says the
// same of a port without TLS and of one that wants a login.
func (l *look) handshake(addr string) error {
	cfg, ok := l.cl.OptValue(kgo.DialTLSConfig).(*tls.Config)
	if !ok || cfg == nil {
		return nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, "9092") // as the client does
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: dialTimeout}, "tcp", addr, cfg)
	if err != nil {
		return err
	}
	return conn.Close()
}
