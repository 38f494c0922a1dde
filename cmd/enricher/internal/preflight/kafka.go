package preflight

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"enricher/cmd/enricher/internal/credentials"
	"enricher/cmd/enricher/internal/hint"
	"enricher/consumer/progress"
	"enricher/consumer/session"
	"enricher/producer"
)

// seeds sends a request to each broker of the configuration and reports whether
// one responds.
func (r *run) seeds(ctx context.Context) bool {
	responses := r.requestVersions(ctx, r.cl.SeedBrokers(), func(ctx context.Context, b *kgo.Broker) (*kmsg.ApiVersionsResponse, error) {
		resp, err := brokerVersions(ctx, b)
		if err != nil {
			return nil, err
		}
		// Brokers respond to that before any login, but not to this.
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{} // none; nil: all
		_, err = req.RequestWith(ctx, b)
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %w", errNoLogin, err)
		}
		return resp, err
	})
	some := slices.ContainsFunc(responses, func(v versions) bool { return v.err == nil })
	for i, v := range responses {
		switch {
		case v.err == nil:
			r.ok(checkSeed, r.cfg.Brokers[i], "responds")
		case some: // the others suffice while they are up
			r.addReach(checkSeed, r.cfg.Brokers[i], Warning, v.err)
		default:
			r.addReach(checkSeed, r.cfg.Brokers[i], Fatal, v.err)
		}
	}
	return some
}

// versions is a broker's response with the versions of the requests and features
// that it supports.
type versions struct {
	resp *kmsg.ApiVersionsResponse
	err  error
}

// requestVersions sends a request to all brokers concurrently.
func (r *run) requestVersions(ctx context.Context, brokers []*kgo.Broker, request func(context.Context, *kgo.Broker) (*kmsg.ApiVersionsResponse, error)) []versions {
	responses := make([]versions, len(brokers))
	var wg sync.WaitGroup
	for i, b := range brokers {
		wg.Go(func() {
			responses[i].err = r.step(ctx, func(ctx context.Context) (err error) {
				responses[i].resp, err = request(ctx, b)
				return err
			})
		})
	}
	wg.Wait()
	return responses
}

func brokerVersions(ctx context.Context, b *kgo.Broker) (*kmsg.ApiVersionsResponse, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "enricher", "check"
	resp, err := req.RequestWith(ctx, b)
	if err != nil {
		return nil, err
	}
	return resp, kerr.ErrorForCode(resp.ErrorCode)
}

// cluster checks the brokers at the addresses that they advertise, and the features
// of the cluster.
func (r *run) cluster(ctx context.Context) {
	var brokers []*kgo.Broker
	for _, b := range r.metadata.Brokers {
		brokers = append(brokers, r.cl.Broker(int(b.NodeID)))
	}
	responses := r.requestVersions(ctx, brokers, brokerVersions)
	var releases []string
	level := map[string]int16{}
	for i, b := range r.metadata.Brokers {
		addr := net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
		if err := responses[i].err; err != nil {
			status := Warning
			if r.leads(b.NodeID) {
				status = Fatal
			}
			r.addReach(checkBroker, addr, status, err)
			continue
		}
		r.brokers = append(r.brokers, b.NodeID)
		version := release(responses[i].resp)
		releases = append(releases, version)
		for _, f := range responses[i].resp.FinalizedFeatures {
			level[f.Name] = f.MaxVersionLevel
		}
		r.ok(checkBroker, addr, "responds; Kafka %s", version)
	}
	slices.Sort(releases)
	if releases = slices.Compact(releases); len(releases) == 0 {
		return
	}
	r.ok(checkCluster, "brokers", "%d, Kafka %s", len(r.metadata.Brokers), strings.Join(releases, " and "))
	r.transactions(releases, level)
}

// leads reports whether a broker leads a partition of the checked topics.
func (r *run) leads(broker int32) bool {
	for _, t := range r.metadata.Topics {
		for _, p := range t.Partitions {
			if p.Leader == broker {
				return true
			}
		}
	}
	return false
}

// transactions checks for known problems with transactions.
func (r *run) transactions(releases []string, level map[string]int16) {
	r.transactionVersion = level["transaction.version"]
	if v := r.transactionVersion; v < 2 {
		r.add(checkTransactions, "cluster", Warning,
			fmt.Sprintf("%d: below 2 a delayed request can be applied to the next transaction, or leave one open forever", v),
			"with all brokers on Kafka 4.0 or later: kafka-features upgrade --feature transaction.version=2")
	} else {
		r.ok(checkTransactions, "cluster", "%d", v)
	}
	releases = append(slices.Clone(releases), metadataRelease(level[featureMetadata]))
	if i := slices.IndexFunc(releases, func(r string) bool { return slices.Contains(losingMarkers, r) }); i >= 0 {
		r.add(checkTransactionBug, "cluster", Warning,
			"Kafka "+releases[i]+" can lose the end of a transaction when a broker crashes at that moment (KAFKA-20734): read_committed consumers block forever and no client can recover",
			"run Kafka 4.2, or a later one whose release notes list KAFKA-20734 as fixed")
	} else {
		r.ok(checkTransactionBug, "cluster", "none known of this version")
	}
}

// losingMarkers are the releases that have KAFKA-20734, as far as they were tried: see
// TestKafkaMarkersSurviveAKill.
var losingMarkers = []string{"4.3", "4.4"}

const featureMetadata = "metadata.version"

// release returns the broker's release, such as 4.2. The newest metadata version
// that it supports gives it exactly; without one it is guessed from the supported
// requests.
func release(resp *kmsg.ApiVersionsResponse) string {
	for _, f := range resp.SupportedFeatures {
		if r := metadataRelease(f.MaxVersion); f.Name == featureMetadata && r != "" {
			return r
		}
	}
	return strings.ReplaceAll(kversion.FromApiVersionsResponse(resp).VersionGuess(), "v", "")
}

// metadataRelease returns the release that introduced a metadata version.
func metadataRelease(level int16) string {
	r, _, ok := strings.Cut(kversion.FeatureLevelDescription(featureMetadata, level), "-IV")
	if !ok {
		return ""
	}
	return r
}

// addReach adds a broker that does not respond: which layer fails, and why.
func (r *run) addReach(check, addr string, s Status, err error) {
	found, remedy := r.unreachable(addr, err)
	r.add(check, addr, s, found, remedy)
}

func (r *run) unreachable(addr string, err error) (found, remedy string) {
	var (
		dns   *net.DNSError
		cert  *tls.CertificateVerificationError
		name  x509.HostnameError
		plain tls.RecordHeaderError
		alert *net.OpError
		slow  net.Error
		login *credentials.Error
	)
	const (
		path = "check --brokers, firewalls on the path, and the broker's advertised.listeners"
		port = "check which port of the broker is for TLS and SASL, and --tls and --sasl-mechanism"
	)
	switch {
	case errors.As(err, &login):
		return login.Error(), hint.Connection(err)
	case errors.As(err, &dns):
		return "DNS: " + dns.Error(), "check --brokers, the broker's advertised.listeners and DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "TCP: connection refused", path
	case errors.As(err, &name):
		return "TLS: the certificate is for another name: " + name.Error(), "use the name in the certificate"
	case errors.As(err, &cert):
		return "TLS: the certificate is not trusted: " + cert.Err.Error(), "pass the certificate of its issuer as --tls-ca"
	case errors.As(err, &alert) && alert.Op == "remote error": // what crypto/tls makes of an alert
		return "TLS handshake rejected: " + alert.Error(), "if the broker requires a client certificate, pass one as --tls-cert and --tls-key"
	case errors.As(err, &plain), errors.Is(err, io.EOF) && r.handshake(addr) != nil:
		return "TLS: not a TLS port", port
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Sprintf("SASL: login%s with mechanism %s rejected", r.user(), r.cfg.SASLMechanism), r.loginRemedy()
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "SASL: the broker does not offer mechanism " + r.cfg.SASLMechanism, "check --sasl-mechanism and the broker's sasl.enabled.mechanisms"
	case errors.Is(err, kerr.IllegalSaslState):
		return "SASL is not enabled on this port", port
	case errors.Is(err, io.EOF) && r.cfg.SASLMechanism != "": // brokers before Kafka 1.0 give no reason
		return fmt.Sprintf("SASL: connection closed during the login%s with mechanism %s", r.user(), r.cfg.SASLMechanism), r.loginRemedy()
	case errors.Is(err, errNoLogin):
		return "SASL: connection closed without a response, as brokers do for unauthenticated clients", port
	case errors.Is(err, io.EOF):
		return "TLS: connection closed without a response, as brokers do for clients without TLS", port
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		if r.cfg.TLS {
			return "TCP or TLS: timed out", path
		}
		return "TCP: timed out", path
	}
	return err.Error(), path
}

func (r *run) user() string {
	if r.cfg.SASLUser == "" {
		return ""
	}
	return fmt.Sprintf(" of user %q", r.cfg.SASLUser)
}

func (r *run) loginRemedy() string {
	switch r.cfg.SASLMechanism {
	case credentials.OAuthBearer:
		return "check which issuer, audience and scope of tokens the brokers accept"
	case credentials.AWSMSKIAM:
		return "check the AWS credentials of this process, and that their policy allows kafka-cluster:Connect"
	}
	return "check --sasl-user, --sasl-password-file and --sasl-mechanism"
}

// errNoLogin means that a broker closed the connection of a client that had not
// logged in.
var errNoLogin = errors.New("the broker requires a login")

// handshake tries TLS alone, if TLS is configured. The Kafka client returns the same
// error for a port without TLS as for one that requires a login.
func (r *run) handshake(addr string) error {
	if !r.cfg.TLS {
		return nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, "9092") // as the client does
	}
	dial := r.cl.OptValue(kgo.Dialer).(func(context.Context, string, string) (net.Conn, error))
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// limit bounds a setting of a broker.
type limit struct {
	setting string
	unit    time.Duration // 0: a plain number
	least   int64
	most    int64 // 0: no upper bound
	status  Status
	why     string // what happens beyond the limit
}

var limits = []limit{
	{
		setting: "offset.metadata.max.bytes", least: progress.MaxOffsetMetadataBytes, status: Fatal,
		why: "commits are rejected as soon as many events complete out of order",
	},
	{
		setting: "transaction.max.timeout.ms", unit: time.Millisecond, least: producer.TransactionTimeout.Milliseconds(), status: Fatal,
		why: "the service's transactions are rejected",
	},
	{
		setting: "group.min.session.timeout.ms", unit: time.Millisecond, most: session.DefaultSessionTimeout.Milliseconds(), status: Fatal,
		why: "the service cannot join its group",
	},
	{
		setting: "group.max.session.timeout.ms", unit: time.Millisecond, least: session.DefaultSessionTimeout.Milliseconds(), status: Fatal,
		why: "the service cannot join its group",
	},
	{
		setting: "transactional.id.expiration.ms", unit: time.Millisecond, least: time.Hour.Milliseconds(), status: Warning,
		why: "the transactional id of an idle service expires, and the service restarts its Kafka session at the next event",
	},
	{
		setting: "offsets.retention.minutes", unit: time.Minute, least: int64(weekend / time.Minute), status: Warning,
		why: "a service that was stopped over a weekend restarts at --auto-offset-reset, not at its last position",
	},
}

// brokerConfigs compares the settings of all brokers with what the service needs.
// Any broker may become the coordinator of the group or of the transactions.
func (r *run) brokerConfigs(ctx context.Context) {
	if len(r.brokers) == 0 {
		r.skip(checkBrokerConfig, "all", "%v", errNoBroker)
		return
	}
	var got kadm.ResourceConfigs
	err := r.step(ctx, func(ctx context.Context) (err error) {
		got, err = kadm.NewClient(r.cl).DescribeBrokerConfigs(ctx, r.brokers...)
		return err
	})
	var brokers []settings
	for _, id := range r.brokers {
		s := newSettings(strconv.Itoa(int(id)), got, err)
		if s.denied != "" {
			r.skip(checkBrokerConfig, fmt.Sprintf("all of broker %d", id), "%s", s.denied)
			continue
		}
		brokers = append(brokers, s)
	}
	if len(brokers) == 0 {
		return
	}
	for _, want := range limits {
		want.judge(&r.Report, brokers)
	}
}

// judge checks the worst value of all brokers. It is pure.
func (w *limit) judge(r *Report, brokers []settings) {
	var worst int64
	known := false
	for _, b := range brokers {
		n, ok := b.number(w.setting)
		switch {
		case !ok:
		case !known, w.most > 0 && n > worst, w.most == 0 && n < worst:
			worst, known = n, true
		}
	}
	switch {
	case !known:
		r.notReported(checkBrokerConfig, w.setting)
	case worst < w.least:
		r.add(checkBrokerConfig, w.setting, w.status, fmt.Sprintf("%s, less than %s: %s", w.text(worst), w.text(w.least), w.why),
			fmt.Sprintf("in the brokers' configuration: %s=%d", w.setting, w.least))
	case w.most > 0 && worst > w.most:
		r.add(checkBrokerConfig, w.setting, w.status, fmt.Sprintf("%s, more than %s: %s", w.text(worst), w.text(w.most), w.why),
			fmt.Sprintf("in the brokers' configuration: %s=%d", w.setting, w.most))
	default:
		r.ok(checkBrokerConfig, w.setting, "%s", w.text(worst))
	}
}

func (w *limit) text(n int64) string {
	if w.unit == 0 || n > math.MaxInt64/int64(w.unit) {
		return strconv.FormatInt(n, 10)
	}
	return formatDuration(time.Duration(n) * w.unit)
}
