package preflight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// seeds asks each of the brokers named in the configuration; true: one answers.
func (l *look) seeds(ctx context.Context) bool {
	answers := l.askAll(ctx, l.cl.SeedBrokers(), func(ctx context.Context, b *kgo.Broker) (*kmsg.ApiVersionsResponse, error) {
		resp, err := askVersions(ctx, b)
		if err != nil {
			return nil, err
		}
		// That was answered before any login. This is not.
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{} // none; nil: all
		_, err = req.RequestWith(ctx, b)
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %w", errNoLogin, err)
		}
		return resp, err
	})
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

// askAll asks all of them at once.
func (l *look) askAll(ctx context.Context, brokers []*kgo.Broker, ask func(context.Context, *kgo.Broker) (*kmsg.ApiVersionsResponse, error)) []versions {
	answers := make([]versions, len(brokers))
	var wg sync.WaitGroup
	for i, b := range brokers {
		wg.Go(func() {
			answers[i].err = l.step(ctx, func(ctx context.Context) (err error) {
				answers[i].resp, err = ask(ctx, b)
				return err
			})
		})
	}
	wg.Wait()
	return answers
}

func askVersions(ctx context.Context, b *kgo.Broker) (*kmsg.ApiVersionsResponse, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "enricher", "check"
	resp, err := req.RequestWith(ctx, b)
	if err != nil {
		return nil, err
	}
	return resp, kerr.ErrorForCode(resp.ErrorCode)
}

// cluster looks at the brokers under the addresses that they advertise
// themselves, and at what the cluster can do.
func (l *look) cluster(ctx context.Context) {
	var brokers []*kgo.Broker
	for _, b := range l.metadata.Brokers {
		brokers = append(brokers, l.cl.Broker(int(b.NodeID)))
	}
	answers := l.askAll(ctx, brokers, askVersions)
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
