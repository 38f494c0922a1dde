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

// TestSound: nothing is wrong.
func TestSound(t *testing.T) { newWorld(t).look() }

// closed is an address where nobody listens.
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

// hangsUp is the address of one that ends every connection as soon as something
// is said, as a broker does that is spoken to in TLS and does not know it.
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

// nothing else is looked at when no broker answers.
const unasked = "skipped cluster topics, rights and group: no broker answers"

// TestReach: which layer keeps us from the brokers.
func TestReach(t *testing.T) {
	t.Run("one of several seeds is down", func(t *testing.T) {
		w := newWorld(t)
		addr := closed(t)
		w.reach(append([]string{addr}, w.cluster.ListenAddrs()...)...)
		w.look("warning seed_broker " + addr + ": TCP: nobody listens there")
	})
	t.Run("all are down", func(t *testing.T) {
		w := newWorld(t)
		addr := closed(t)
		w.reach(addr)
		w.look("fatal seed_broker "+addr+": TCP: nobody listens there", unasked)
	})
	t.Run("no such name", func(t *testing.T) {
		w := newWorld(t)
		w.reach("broker.invalid:9092")
		w.look("fatal seed_broker broker.invalid:9092: DNS: ", unasked)
	})
	t.Run("a broker is advertised where nobody listens", func(t *testing.T) {
		w := newWorld(t)
		addr := closed(t)
		w.advertise(addr, false)
		w.look("warning broker " + addr + ": TCP: nobody listens there → look at --brokers, at firewalls on the way, and at the broker's advertised.listeners")
	})
	t.Run("and leads partitions", func(t *testing.T) {
		w := newWorld(t)
		addr := closed(t)
		w.advertise(addr, true)
		w.look("fatal broker "+addr+": TCP: nobody listens there", "skipped lag calls: not looked at: ")
	})
	t.Run("TLS to a plain port", func(t *testing.T) {
		w := newWorld(t)
		w.reach(hangsUp(t))
		w.cfg.TLS = true
		w.cfg.Kafka = append(w.cfg.Kafka, kgo.DialTLSConfig(&tls.Config{}))
		w.look("fatal seed_broker "+w.cfg.Brokers[0]+": TLS: what listens there does not speak it", unasked)
	})
	login := func(w *world, mechanism, pw string) {
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
		{"wrong password", "SCRAM-SHA-256", "wrong", `SASL: the broker closes the connection when user "ops" logs in, with mechanism SCRAM-SHA-256`},
		{"mechanism not offered", "PLAIN", password, `SASL: the broker closes the connection when user "ops" logs in, with mechanism PLAIN`},
		{"no login", "", "", "SASL: the broker closes the connection without a word"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, secured...)
			if c.mechanism != "" {
				login(w, c.mechanism, c.password)
			}
			w.look("fatal seed_broker "+w.cfg.Brokers[0]+": "+c.want, unasked)
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
		{"not trusted", withTLS, &tls.Config{}, "127.0.0.1", "TLS: its certificate is not trusted: "},
		{"another name", withTLS, &tls.Config{RootCAs: roots}, "localhost", "TLS: its certificate is for another name: "},
		{"plain to a TLS port", withTLS, nil, "127.0.0.1", "TLS: the broker closes the connection without a word"},
		{"no certificate of our own", mutual, &tls.Config{RootCAs: roots}, "127.0.0.1", "TLS: the broker breaks it off: remote error: tls: certificate required"},
		{"TLS, but no login", append(withTLS, kfake.EnableSASL()), &tls.Config{RootCAs: roots}, "127.0.0.1", "SASL: the broker closes the connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.opts...)
			w.reach(strings.Replace(w.cfg.Brokers[0], "127.0.0.1", c.host, 1))
			if w.cfg.TLS = c.tls != nil; w.cfg.TLS {
				w.cfg.Kafka = append(w.cfg.Kafka, kgo.DialTLSConfig(c.tls))
			}
			w.look("fatal seed_broker "+w.cfg.Brokers[0]+": "+c.want, unasked)
		})
	}
}

// TestRefusedLogin: what brokers since Kafka 1.0 say; the embedded one hangs up.
func TestRefusedLogin(t *testing.T) {
	l := &look{cfg: Config{SASLMechanism: "PLAIN", SASLUser: "ops"}}
	for want, err := range map[string]error{
		`SASL: user "ops" is refused, with mechanism PLAIN`: kerr.SaslAuthenticationFailed,
		"SASL: the broker does not offer mechanism PLAIN":   kerr.UnsupportedSaslMechanism,
		"SASL: this port does not take a login":             kerr.IllegalSaslState,
	} {
		if got, remedy := l.unreachable("b:9092", fmt.Errorf("%w: because", err)); got != want || remedy == "" {
			t.Errorf("%v: %q, %q", err, got, remedy)
		}
	}
}

// TestVersions: what is known of versions of brokers.
func TestVersions(t *testing.T) {
	for name, c := range map[string]struct {
		version *kversion.Versions
		want    []string
	}{
		"4.2": {kversion.V4_2_0(), nil},
		"4.3": {kversion.V4_3_0(), []string{"warning transaction_bug cluster: KAFKA-20734"}},
		"3.9": {kversion.V3_9_0(), []string{"warning transaction_version cluster: 0: below 2"}},
		"3.0": {kversion.V3_0_0(), []string{"warning transaction_version cluster: 0: below 2"}},
		"2.8": {kversion.V2_8_0(), []string{"warning transaction_version cluster: 0: below 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, kfake.MaxVersions(c.version))
			w.look(c.want...)
		})
	}
}

// TestTransactionVersion: a cluster whose brokers could do better than they are
// told to.
func TestTransactionVersion(t *testing.T) {
	w := newWorld(t)
	down := kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: 1, UpgradeType: 2}
	if _, err := kadm.NewClient(w.client()).UpdateFeatures(t.Context(), false, down); err != nil {
		t.Fatal(err)
	}
	w.look("warning transaction_version cluster: 1: below 2")
}
