// Package preflight checks everything the service needs from Kafka, the call-record
// API and the schema registry, and reports what is wrong and what to do about it.
//
// Unless Config.Probe is set it changes nothing: it creates no topic, joins no group, commits nothing and
// initialises no transactional id. It does not even look up the coordinator of a
// group, because that makes a new cluster create its internal topics; it sends
// the group's requests to one broker after another instead.
package preflight

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/cmd/enricher/internal/registry"
	"enricher/consumer"
	"enricher/fetch"
)

// How long a connection to a broker may take, and one step of the check.
const (
	dialTimeout = 5 * time.Second
	stepTimeout = 15 * time.Second
)

// weekend is how long a problem may go unnoticed: from Friday evening to Monday
// morning.
const weekend = 3 * 24 * time.Hour

// Config is the configuration of the service.
type Config struct {
	// Kafka contains the options to reach the brokers. Brokers, TLS,
	// SASLMechanism and SASLUser describe them for the messages.
	Kafka                   []kgo.Opt
	Brokers                 []string
	TLS                     bool
	SASLMechanism, SASLUser string

	Requirements
	Instance        string
	DeadLetterTopic string // also one of Requirements.Write
	Start           consumer.AutoOffsetReset
	APIRate         float64 // API requests per second for the whole group; 0: unlimited
	API             *fetch.Client
	Registry        *registry.Registry          // nil: none
	Identify        func(registry.Schema) error // whether records can name the schema
	// CallEndTimestamps says that enriched records have the time of the call's end.
	CallEndTimestamps bool
	MaxRecordBytes    int    // of a batch that the service writes
	Compression       string // by its name in Codecs
	Codecs            map[string]kgo.CompressionCodec
	// Probe also tries what brokers may refuse. It writes, see probe.
	Probe bool
}

// Run runs all checks. The error is about the configuration; problems elsewhere are
// in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cl, err := kgo.NewClient(append(cfg.Kafka[:len(cfg.Kafka):len(cfg.Kafka)],
		kgo.DialTimeout(dialTimeout), kgo.RequestRetries(2), kgo.RetryTimeout(stepTimeout))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	r := &run{cfg: cfg, cl: cl}
	r.kafka(ctx)
	r.api(ctx)
	r.registry(ctx)
	return &r.Report, ctx.Err()
}

// run is one run of the checks.
type run struct {
	Report
	cfg Config
	cl  *kgo.Client

	metadata *kmsg.MetadataResponse
	brokers  []int32 // that respond
	topics   map[string]*topic

	transactionVersion int16 // the cluster's feature level
}

// kafka checks the cluster, from the connections to the group's lag. What depends on
// something that cannot be seen is skipped.
func (r *run) kafka(ctx context.Context) {
	if !r.seeds(ctx) {
		r.skip(checkCluster, "topics, permissions and group", "no broker responds")
		return
	}
	if err := r.step(ctx, func(ctx context.Context) (err error) {
		r.metadata, err = r.cfg.metadata(ctx, r.cl)
		return err
	}); err != nil {
		r.add(checkCluster, "metadata", Fatal, "cannot be read: "+err.Error(), "try again; if it persists, check the brokers' logs")
		return
	}
	r.cluster(ctx)
	r.permissions(ctx)
	r.checkTopics(ctx)
	r.brokerConfigs(ctx)
	r.group(ctx)
	if r.cfg.Probe {
		r.probe(ctx)
	}
}

// step runs fn with a timeout.
func (r *run) step(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return fn(ctx)
}

var errNoBroker = errors.New("no broker responds")

// The names of the checks, a closed set.
const (
	checkSeed           = "seed_broker"
	checkBroker         = "broker"
	checkCluster        = "cluster"
	checkTransactions   = "transaction_version"
	checkTransactionBug = "transaction_bug"
	checkPermission     = "permission"
	checkTopic          = "topic"
	checkReplication    = "replication"
	checkMinISR         = "min_insync_replicas"
	checkCleanup        = "cleanup_policy"
	checkMessageSize    = "message_size"
	checkRetention      = "retention"
	checkTimestamps     = "timestamps"
	checkBrokerConfig   = "broker_config"
	checkGroup          = "group"
	checkInstance       = "instance"
	checkOffsets        = "offsets"
	checkLag            = "lag"
	checkAPI            = "api"
	checkClock          = "clock"
	checkUserSig        = "usersig"
	checkSchema         = "schema"

	checkProbe            = "probe"
	checkProbeID          = "probe_transactional_id"
	checkProbeMetadata    = "probe_offset_metadata"
	checkProbeTransaction = "probe_transaction"
	checkProbeRecord      = "probe_record"
	checkProbeCompression = "probe_compression"
)
