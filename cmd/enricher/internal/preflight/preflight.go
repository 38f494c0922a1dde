// Package preflight looks at everything the service needs of Kafka and of the
// call-record API, and says what is wrong and what to do about it.
//
// It changes nothing: it creates no topic, joins no group, commits nothing and
// initialises no transactional id. It does not even ask which broker
// coordinates a group, because that makes a new cluster create its internal
// topics; it asks one broker after the other instead.
package preflight

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/fetch"
)

// How long a broker may take to answer, and one step of the look altogether.
const (
	dialTimeout = 5 * time.Second
	stepTimeout = 15 * time.Second
)

// weekend is how long something may go unnoticed when nobody is at work: from
// Friday evening to Monday morning.
const weekend = 3 * 24 * time.Hour

// apiRetention is how long the API keeps a call's record.
const apiRetention = 7 * 24 * time.Hour

// Config says what the service would run with.
type Config struct {
	// Kafka reaches the brokers; Brokers, TLS, SASLMechanism and SASLUser say
	// how, for the messages.
	Kafka                   []kgo.Opt
	Brokers                 []string
	TLS                     bool
	SASLMechanism, SASLUser string

	Needs
	Instance        string
	DeadLetterTopic string // also one of Needs.Write
	Start           consumer.AutoOffsetReset
	APIRate         float64 // calls a second for the whole group; 0: no limit
	API             *fetch.Client
}

// Look looks at all of it. The error is of the configuration; whatever is wrong
// elsewhere is in the report.
func Look(ctx context.Context, cfg Config) (*Report, error) {
	cl, err := kgo.NewClient(append(cfg.Kafka[:len(cfg.Kafka):len(cfg.Kafka)],
		kgo.DialTimeout(dialTimeout), kgo.RequestRetries(2), kgo.RetryTimeout(stepTimeout))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	l := &look{cfg: cfg, cl: cl}
	l.kafka(ctx)
	l.api(ctx)
	return &l.Report, ctx.Err()
}

// look is one run of Look.
type look struct {
	Report
	cfg Config
	cl  *kgo.Client

	metadata *kmsg.MetadataResponse
	brokers  []int32 // that answer
	topics   map[string]*topic
}

// kafka looks at the cluster, from the way there to the group's lag. Where one
// thing cannot be seen, what depends on it is left out.
func (l *look) kafka(ctx context.Context) {
	if !l.seeds(ctx) {
		l.skip(checkCluster, "topics, rights and group", "no broker answers")
		return
	}
	if err := l.step(ctx, func(ctx context.Context) (err error) {
		l.metadata, err = l.cfg.metadata(ctx, l.cl)
		return err
	}); err != nil {
		l.add(checkCluster, "metadata", Fatal, "the brokers do not tell what there is: "+err.Error(), "try again; if it stays, look at the brokers' logs")
		return
	}
	l.cluster(ctx)
	l.rights(ctx)
	l.lookAtTopics(ctx)
	l.brokerConfigs(ctx)
	l.group(ctx)
}

// step runs fn with a time-out.
func (l *look) step(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return fn(ctx)
}

// errNoBroker says that nobody was there to ask.
var errNoBroker = errors.New("no broker answers")

// The names of checks, a closed set.
const (
	checkSeed           = "seed_broker"
	checkBroker         = "broker"
	checkCluster        = "cluster"
	checkTransactions   = "transaction_version"
	checkTransactionBug = "transaction_bug"
	checkRight          = "right"
	checkTopic          = "topic"
	checkReplication    = "replication"
	checkMinISR         = "min_insync_replicas"
	checkCleanup        = "cleanup_policy"
	checkMessageSize    = "message_size"
	checkRetention      = "retention"
	checkBrokerConfig   = "broker_config"
	checkGroup          = "group"
	checkInstance       = "instance"
	checkOffsets        = "offsets"
	checkLag            = "lag"
	checkAPI            = "api"
	checkClock          = "clock"
	checkUserSig        = "usersig"
)
