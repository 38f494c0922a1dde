package preflight

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

func TestHealthyClusterHasNoFindings(t *testing.T) { newEnv(t).check() }

// closed returns an address that refuses connections.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// hangsUp returns the address of a server that closes every connection as soon as it
// receives something, as a broker without TLS does with a TLS handshake.
func hangsUp(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

// noBroker is the finding in place of all checks that need a broker.
const noBroker = "skipped cluster topics, permissions and group: no broker responds"

// TestConnectivityErrors: the finding names the layer that fails.
func TestConnectivityErrors(t *testing.T) {
	t.Run("one of several seeds is down", func(t *testing.T) {
		w := newEnv(t)
		addr := closed(t)
		w.reach(append([]string{addr}, w.cluster.ListenAddrs()...)...)
		w.check("warning seed_broker " + addr + ": TCP: connection refused")
	})
	t.Run("all seeds are down", func(t *testing.T) {
		w := newEnv(t)
		addr := closed(t)
		w.reach(addr)
		w.check("fatal seed_broker "+addr+": TCP: connection refused", noBroker)
	})
	t.Run("no such name", func(t *testing.T) {
		w := newEnv(t)
		w.reach("broker.invalid:9092")
		w.check("fatal seed_broker broker.invalid:9092: DNS: ", noBroker)
	})
	t.Run("an advertised address refuses connections", func(t *testing.T) {
		w := newEnv(t)
		addr := closed(t)
		w.advertise(addr, false)
		w.check("warning broker " + addr + ": TCP: connection refused → check --brokers, firewalls on the path, and the broker's advertised.listeners")
	})
	t.Run("an advertised address of a leader refuses connections", func(t *testing.T) {
		w := newEnv(t)
		addr := closed(t)
		w.advertise(addr, true)
		w.check("fatal broker "+addr+": TCP: connection refused", "skipped lag calls: ")
	})
	t.Run("TLS to a plain port", func(t *testing.T) {
		w := newEnv(t)
		w.reach(hangsUp(t))
		w.cfg.TLS = true
		w.cfg.Kafka = append(w.cfg.Kafka, kgo.DialTLSConfig(&tls.Config{}))
		w.check("fatal seed_broker "+w.cfg.Brokers[0]+": TLS: not a TLS port", noBroker)
	})
	login := func(w *env, mechanism, pw string) {
		w.cfg.SASLMechanism, w.cfg.SASLUser = mechanism, "ops"
		m := scram.Auth{User: "ops", Pass: pw}.AsSha256Mechanism()
		if mechanism == "PLAIN" {
			m = plain.Auth{User: "ops", Pass: pw}.AsMechanism()
		}
		w.cfg.Kafka = append(w.cfg.Kafka, kgo.SASL(m))
	}
	secured := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "ops", password), kfake.NumBrokers(1)}
	for _, c := range []struct {
		name                string
		mechanism, password string
		want                string
	}{
		{name: "wrong password", mechanism: "SCRAM-SHA-256", password: "wrong", want: `SASL: connection closed during the login of user "ops" with mechanism SCRAM-SHA-256`},
		{name: "mechanism not offered", mechanism: "PLAIN", password: password, want: `SASL: connection closed during the login of user "ops" with mechanism PLAIN`},
		{name: "no login", want: "SASL: connection closed without a response"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newEnv(t, secured...)
			if c.mechanism != "" {
				login(w, c.mechanism, c.password)
			}
			w.check("fatal seed_broker "+w.cfg.Brokers[0]+": "+c.want, noBroker)
		})
	}

	server := certified(t)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	withTLS := []kfake.Opt{kfake.NumBrokers(1), kfake.TLS(&tls.Config{Certificates: server.TLS.Certificates})}
	mutual := []kfake.Opt{kfake.NumBrokers(1), kfake.TLS(&tls.Config{Certificates: server.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert})}
	for _, c := range []struct {
		name string
		opts []kfake.Opt
		tls  *tls.Config
		host string
		want string
	}{
		{name: "untrusted certificate", opts: withTLS, tls: &tls.Config{}, host: "127.0.0.1", want: "TLS: the certificate is not trusted: "},
		{name: "certificate for another name", opts: withTLS, tls: &tls.Config{RootCAs: roots}, host: "localhost", want: "TLS: the certificate is for another name: "},
		{name: "plain connection to a TLS port", opts: withTLS, host: "127.0.0.1", want: "TLS: connection closed without a response"},
		{name: "no client certificate", opts: mutual, tls: &tls.Config{RootCAs: roots}, host: "127.0.0.1", want: "TLS handshake rejected: remote error: tls: certificate required"},
		{name: "TLS without login", opts: append(withTLS, kfake.EnableSASL()), tls: &tls.Config{RootCAs: roots}, host: "127.0.0.1", want: "SASL: connection closed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newEnv(t, c.opts...)
			w.reach(strings.Replace(w.cfg.Brokers[0], "127.0.0.1", c.host, 1))
			if w.cfg.TLS = c.tls != nil; w.cfg.TLS {
				w.cfg.Kafka = append(w.cfg.Kafka, kgo.DialTLSConfig(c.tls))
			}
			w.check("fatal seed_broker "+w.cfg.Brokers[0]+": "+c.want, noBroker)
		})
	}
}

// TestRejectedLogin covers the errors of brokers since Kafka 1.0. The embedded broker
// closes the connection instead.
func TestRejectedLogin(t *testing.T) {
	r := &run{cfg: Config{SASLMechanism: "PLAIN", SASLUser: "ops"}}
	for want, err := range map[string]error{
		`SASL: login of user "ops" with mechanism PLAIN rejected`: kerr.SaslAuthenticationFailed,
		"SASL: the broker does not offer mechanism PLAIN":         kerr.UnsupportedSaslMechanism,
		"SASL is not enabled on this port":                        kerr.IllegalSaslState,
	} {
		if got, remedy := r.unreachable("b:9092", fmt.Errorf("%w: because", err)); got != want || remedy == "" {
			t.Errorf("%v: %q, %q", err, got, remedy)
		}
	}
}

// TestBrokerVersions covers the known problems of broker versions.
func TestBrokerVersions(t *testing.T) {
	for name, c := range map[string]struct {
		version *kversion.Versions
		want    []string
	}{
		"4.2": {kversion.V4_2_0(), nil},
		"4.4": {kversion.V4_4_0(), []string{"warning transaction_bug cluster: KAFKA-20734"}},
		"4.3": {kversion.V4_3_0(), []string{"warning transaction_bug cluster: KAFKA-20734"}},
		"3.9": {kversion.V3_9_0(), []string{"warning transaction_version cluster: 0: below 2"}},
		"3.0": {kversion.V3_0_0(), []string{"warning transaction_version cluster: 0: below 2"}},
		"2.8": {kversion.V2_8_0(), []string{"warning transaction_version cluster: 0: below 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newEnv(t, kfake.MaxVersions(c.version))
			w.check(c.want...)
		})
	}
}

// TestOldTransactionVersion: the brokers support a newer transaction version than the
// cluster uses.
func TestOldTransactionVersion(t *testing.T) {
	w := newEnv(t)
	down := kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: 1, UpgradeType: 2}
	if _, err := kadm.NewClient(w.client()).UpdateFeatures(t.Context(), false, down); err != nil {
		t.Fatal(err)
	}
	w.check("warning transaction_version cluster: 1: below 2")
}
