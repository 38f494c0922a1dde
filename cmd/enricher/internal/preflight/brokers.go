package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// seeds asks each of the brokers named in the configuration; true: one answers.
func (l *look) seeds(ctx context.Context) bool {
	answers := l.askVersions(ctx, l.cl.SeedBrokers())
	some := slices.ContainsFunc(answers, func(a versions) bool { return a.err == nil })
	for i, a := range answers {
		switch {
		case a.err == nil:
			l.ok(checkSeed, l.cfg.Brokers[i], "answers")
		case some: // the others will do until they, too, are away
			l.addReach(checkSeed, l.cfg.Brokers[i], Warning, a.err)
		default:
			l.addReach(checkSeed, l.cfg.Brokers[i], Fatal, a.err)
		}
	}
	return some
}

// versions is a broker's answer to the question what it can do.
type versions struct {
	resp *kmsg.ApiVersionsResponse
	err  error
}

// askVersions asks all of them at once.
func (l *look) askVersions(ctx context.Context, brokers []*kgo.Broker) []versions {
	answers := make([]versions, len(brokers))
	var wg sync.WaitGroup
	for i, b := range brokers {
		wg.Go(func() {
			answers[i].err = l.step(ctx, func(ctx context.Context) error {
				req := kmsg.NewPtrApiVersionsRequest()
				req.ClientSoftwareName, req.ClientSoftwareVersion = "enricher", "check"
				resp, err := req.RequestWith(ctx, b)
				if err == nil {
					err = kerr.ErrorForCode(resp.ErrorCode)
				}
				answers[i].resp = resp
				return err
			})
		})
	}
	wg.Wait()
	return answers
}

// cluster looks at the brokers under the addresses that they advertise
// themselves, and at what the cluster can do.
func (l *look) cluster(ctx context.Context) {
	var brokers []*kgo.Broker
	for _, b := range l.metadata.Brokers {
		brokers = append(brokers, l.cl.Broker(int(b.NodeID)))
	}
	answers := l.askVersions(ctx, brokers)
	var releases []string
	level := map[string]int16{}
	for i, b := range l.metadata.Brokers {
		addr := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
		if err := answers[i].err; err != nil {
			status := Warning
			if l.leads(b.NodeID) {
				status = Fatal
			}
			l.addReach(checkBroker, addr, status, err)
			continue
		}
		l.brokers = append(l.brokers, b.NodeID)
		r := release(answers[i].resp)
		releases = append(releases, r)
		for _, f := range answers[i].resp.FinalizedFeatures {
			level[f.Name] = f.MaxVersionLevel
		}
		l.ok(checkBroker, addr, "answers; Kafka %s", r)
	}
	slices.Sort(releases)
	if releases = slices.Compact(releases); len(releases) == 0 {
		return
	}
	l.ok(checkCluster, "brokers", "%d, Kafka %s", len(l.metadata.Brokers), strings.Join(releases, " and "))
	l.transactions(releases, level)
}

// leads says whether a broker leads a partition of our topics.
func (l *look) leads(broker int32) bool {
	for _, t := range l.metadata.Topics {
		for _, p := range t.Partitions {
			if p.Leader == broker {
				return true
			}
		}
	}
	return false
}

// transactions looks at what is known to go wrong with them.
func (l *look) transactions(releases []string, level map[string]int16) {
	if v := level["transaction.version"]; v < 2 {
		l.add(checkTransactions, "cluster", Warning,
			fmt.Sprintf("%d: below 2 a late request of one transaction can end up in the next one, or leave one open for ever", v),
			"with all brokers on Kafka 4.0 or later: kafka-features upgrade --feature transaction.version=2")
	} else {
		l.ok(checkTransactions, "cluster", "%d", v)
	}
	// KAFKA-20734; the brokers of this release and no earlier one have it.
	const bad = "4.3"
	if slices.Contains(releases, bad) || metadataRelease(level[featureMetadata]) == bad {
		l.add(checkTransactionBug, "cluster", Warning,
			"Kafka "+bad+" can lose the end of a transaction when a broker dies at that moment (KAFKA-20734): its readers wait for ever, and no client can mend that",
			"run Kafka 4.2, or a later one whose release notes list KAFKA-20734 as fixed")
	} else {
		l.ok(checkTransactionBug, "cluster", "none known of this version")
	}
}

const featureMetadata = "metadata.version"

// release is the broker's release, such as 4.2: exactly by the newest metadata
// that it can read, or else as guessed from the requests that it knows.
func release(resp *kmsg.ApiVersionsResponse) string {
	for _, f := range resp.SupportedFeatures {
		if r := metadataRelease(f.MaxVersion); f.Name == featureMetadata && r != "" {
			return r
		}
	}
	return strings.ReplaceAll(kversion.FromApiVersionsResponse(resp).VersionGuess(), "v", "")
}

// metadataRelease is the release that brought a level of the metadata's format.
func metadataRelease(level int16) string {
	r, _, ok := strings.Cut(kversion.FeatureLevelDescription(featureMetadata, level), "-IV")
	if !ok {
		return ""
	}
	return r
}

// addReach notes a broker that does not answer: which layer fails, and why.
func (l *look) addReach(check, addr string, s Status, err error) {
	found, remedy := l.unreachable(err)
	l.add(check, addr, s, found, remedy)
}

func (l *look) unreachable(err error) (found, remedy string) {
	var (
		dns   *net.DNSError
		first *kgo.ErrFirstReadEOF
		cert  *tls.CertificateVerificationError
		host  x509.HostnameError
		plain tls.RecordHeaderError
		alert tls.AlertError
		slow  net.Error
	)
	const path = "look at --brokers, at firewalls on the way, and at advertised.listeners of the broker"
	switch {
	case errors.As(err, &dns):
		return "DNS: its name is not found: " + dns.Error(), "look at --brokers and at the name server"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "TCP: nobody listens there", path
	case errors.As(err, &host):
		return "TLS: its certificate is for another name: " + host.Error(), "name the broker as its certificate does"
	case errors.As(err, &cert):
		return "TLS: its certificate is not trusted: " + cert.Err.Error(), "give the certificate of who signed it as --tls-ca"
	case errors.As(err, &plain), l.cfg.TLS && errors.As(err, &first) && l.cfg.SASLMechanism == "":
		return "TLS: what listens there does not speak it", "take the TLS port, or leave out --tls"
	case errors.As(err, &alert):
		return "TLS: the broker breaks the handshake off: " + alert.Error(), "if it asks for a certificate, give one as --tls-cert and --tls-key"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Sprintf("SASL: the broker refuses user %q with mechanism %s", l.cfg.SASLUser, l.cfg.SASLMechanism),
			"look at --sasl-user, --sasl-password-file and --sasl-mechanism"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "SASL: the broker does not know mechanism " + l.cfg.SASLMechanism, "look at --sasl-mechanism and the broker's sasl.enabled.mechanisms"
	case errors.Is(err, kerr.IllegalSaslState):
		return "SASL: the broker does not expect a login on this port", "take the SASL port, or leave out --sasl-mechanism"
	case errors.As(err, &first):
		return "the broker closes the connection at once, as it does when it wants TLS or SASL and gets none", "look at --tls and --sasl-mechanism, and which port is which"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return "TCP: no answer in time", path
	}
	return err.Error(), path
}
