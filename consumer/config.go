package consumer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/producer"
)

// Config says what to enrich, how, and within which bounds. Fields without a
// default must be set.
type Config struct {
	// Kafka makes the options that reach the brokers (seeds, TLS, SASL, logger,
	// hooks), anew for every session.
	Kafka func() []kgo.Opt
	// Group is the consumer group, and the prefix of the transactional id.
	Group string
	// Instance is unique per running process and stable across restarts.
	Instance    string
	InputTopics []string
	// EnrichedTopic and DeadLetterTopic receive the outcomes.
	EnrichedTopic, DeadLetterTopic string
	// Start says where to begin when the group has no committed offset.
	Start Start
	// SDKAppID is named in the enriched records' headers.
	SDKAppID int

	// Client asks the API.
	Client *fetch.Client
	// APIRate is the number of calls a second for the whole group; 0: no limit.
	APIRate float64
	// APIConcurrency bounds the requests in flight. Default: 256.
	APIConcurrency int
	// Schedule says when an event is looked up and when to give up.
	Schedule fetch.Schedule
	// FloodGuard is the number of lookups in a row about to end in a dead
	// letter that shuts the gate; 0: off.
	FloodGuard int
	// CacheSize (entries), CacheBytes and CacheTTL bound the cache of enriched
	// values; a CacheSize of 0 means no cache.
	CacheSize  int
	CacheBytes int64
	CacheTTL   time.Duration

	// MaxInFlight and MaxInFlightBytes bound the events between admission and
	// commit; MaxInFlight leaves out those whose transaction is under way.
	// Defaults: 20,000 and 128 MiB.
	MaxInFlight      int
	MaxInFlightBytes int64
	// CommitInterval is how long a finished outcome may wait for company.
	// Default: 50 ms.
	CommitInterval time.Duration
	// DrainTimeout is how long Run may go on after its context is done.
	// Default: 20 s.
	DrainTimeout time.Duration
	// Heartbeat and SessionTimeout of the group; defaults: 1 s and 10 s.
	Heartbeat, SessionTimeout time.Duration
	// MaxRecordBytes is the largest record the output topics take. Default:
	// 1,048,588, the broker's own for message.max.bytes.
	MaxRecordBytes int

	Metrics *Metrics
	Log     *zap.Logger
}

// Start says where to begin in a partition without a committed offset.
type Start string

// The values of Start.
const (
	Earliest Start = "earliest"
	Latest   Start = "latest"
	Fail     Start = "fail" // refuse to run
)

func (s Start) offset() kgo.Offset {
	switch s {
	case Latest:
		return kgo.NewOffset().AtEnd()
	case Fail:
		return kgo.NewOffset().AtCommitted()
	}
	return kgo.NewOffset().AtStart()
}

// complete sets defaults and reports everything that is wrong at once.
func (c *Config) complete() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	defaults(&c.APIConcurrency, 256)
	defaults(&c.MaxInFlight, 20000)
	defaults(&c.MaxInFlightBytes, 128<<20)
	defaults(&c.CommitInterval, 50*time.Millisecond)
	defaults(&c.DrainTimeout, 20*time.Second)
	defaults(&c.Start, Earliest)
	defaults(&c.SessionTimeout, producer.DefaultSessionTimeout)
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	for _, f := range []struct{ name, value string }{
		{"group", c.Group},
		{"instance", c.Instance},
		{"enriched topic", c.EnrichedTopic},
		{"dead-letter topic", c.DeadLetterTopic},
	} {
		if f.value == "" {
			bad("%s: missing", f.name)
		}
	}
	if len(c.InputTopics) == 0 {
		bad("input topics: missing")
	}
	outputs := []string{c.EnrichedTopic, c.DeadLetterTopic}
	for i, t := range c.InputTopics {
		if t != "" && slices.Contains(outputs, t) {
			bad("topic %q is both input and output: the program would read its own records", t)
		}
		if slices.Contains(c.InputTopics[:i], t) {
			bad("input topic %q is named twice", t)
		}
	}
	if c.EnrichedTopic != "" && c.EnrichedTopic == c.DeadLetterTopic {
		bad("enriched and dead-letter topic are the same, %q", c.EnrichedTopic)
	}
	if !slices.Contains([]Start{Earliest, Latest, Fail}, c.Start) {
		bad("start %q: must be earliest, latest or fail", c.Start)
	}
	if c.Kafka == nil {
		bad("Kafka options: missing")
	}
	if c.Client == nil {
		bad("API client: missing")
	}
	if c.Metrics == nil {
		bad("metrics: missing")
	}
	if c.APIRate < 0 {
		bad("API rate %v: must not be negative (0: no limit)", c.APIRate)
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"API concurrency", int64(c.APIConcurrency)},
		{"max in flight", int64(c.MaxInFlight)},
		{"max in flight bytes", c.MaxInFlightBytes},
		{"commit interval", int64(c.CommitInterval)},
		{"drain timeout", int64(c.DrainTimeout)},
	} {
		if f.value < 0 {
			bad("%s: must be more than 0", f.name)
		}
	}
	return errors.Join(problems...)
}

func defaults[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}
