package consumer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Kinds of Kafka client errors, as the metric enricher_kafka_errors_total labels
// them.
const (
	errorConnection     = "connection"     // a broker cannot be reached
	errorAuthentication = "authentication" // TLS or SASL failed
	errorGroup          = "group"          // the group does not accept this member
)

func errorKinds() []string { return []string{errorConnection, errorAuthentication, errorGroup} }

// ErrCredential is what an error is that the options of a Kafka client return because a
// credential of theirs cannot be used.
var ErrCredential = errors.New("a credential cannot be used")

// clientErrorAge is how long an error may explain why an instance is not ready.
// While it cannot connect or join, the client tries again every few seconds.
const clientErrorAge = time.Minute

// clientErrors remembers the last error of an instance's Kafka clients that they
// do not return: they try again for ever. It is a hook of the clients.
type clientErrors struct {
	count *prometheus.CounterVec

	mu   sync.Mutex
	last error
	at   time.Time
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (c *clientErrors) OnBrokerConnect(broker kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) {
		return
	}
	kind := errorConnection
	if isAuthentication(err) {
		kind = errorAuthentication
	}
	c.add(kind, fmt.Errorf("broker %s: %w", net.JoinHostPort(broker.Host, fmt.Sprint(broker.Port)), err))
}

// OnGroupManageError implements kgo.HookGroupManageError.
func (c *clientErrors) OnGroupManageError(err error) { c.add(errorGroup, err) }

func (c *clientErrors) add(kind string, err error) {
	c.count.WithLabelValues(kind).Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.at = err, time.Now()
}

// explain returns the last error, also in words, if it is recent.
func (c *clientErrors) explain(now time.Time) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || now.Sub(c.at) > clientErrorAge {
		return "", nil
	}
	return fmt.Sprintf("; last error of the Kafka client: %v", c.last), c.last
}

// isAuthentication reports whether a broker or this program rejected the other's
// credentials.
func isAuthentication(err error) bool {
	var certificate *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var remote *net.OpError
	switch {
	case errors.Is(err, ErrCredential), errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState),
		errors.As(err, &certificate), errors.As(err, &header), errors.As(err, &unknown):
		return true
	}
	return errors.As(err, &remote) && remote.Op == "remote error" // a TLS alert
}
