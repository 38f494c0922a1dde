package consumer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/consumer/session"
	"enricher/fetch"
	"enricher/fetch/lookup"
	"enricher/producer"
	"enricher/schemas"
)

// Config says what to enrich, how, and within which limits. Fields without a
// default must be set.
type Config struct {
	// Kafka returns the client options that reach the brokers (seeds, TLS, SASL,
	// logger, hooks). It is called again for every session.
	Kafka func() []kgo.Opt
	// Group is the consumer group, Kafka's group.id, and the prefix of the
	// transactional.id.
	Group string
	// Instance is unique among running processes and stable across restarts. Of
	// two processes with one name, the one that started later stays.
	Instance    string
	InputTopics []string
	// EnrichedTopic and DeadLetterTopic receive the outcomes.
	EnrichedTopic, DeadLetterTopic string
	// AutoOffsetReset says where to start when the group has no committed offset.
	// Default: Earliest.
	AutoOffsetReset AutoOffsetReset
	// SDKAppID is named in the headers of enriched records.
	SDKAppID int

	// Client makes the requests.
	Client *fetch.Client
	// APIRate is the number of requests per second for the whole group, from
	// MinAPIRate to MaxAPIRate; 0: no limit.
	APIRate float64
	// APIConcurrency bounds the requests in flight. Default: 256. It must exceed
	// APIRate × the latency of the API, or it becomes the bottleneck.
	APIConcurrency int
	// Retry says when an event is looked up and when to give up.
	Retry lookup.RetryPolicy
	// MaxConsecutiveDeadLetters is the number of lookups in a row of this instance
	// that may end in a dead letter without a record found in between; further
	// dead letters are withheld. It is also the number of events in a row of a
	// partition that may be malformed; the partition is blocked at further ones. 0: any
	// number.
	MaxConsecutiveDeadLetters int
	// EventRecord says when the record that an event carries is used. Default:
	// NeverUse.
	EventRecord EventRecord
	// VerifySample is the fraction of calls, from 0 to 1, whose event's record is
	// compared with the API's after it was used; 0: none. Only for UseFirst.
	VerifySample float64
	// Encode makes what is written of a call record. Default: schemas.EncodeJSON.
	Encode func(*schemas.CallRecord) schemas.Encoded
	// CloudEvents and CallEndTimestamps are those of producer.RecordBuilder.
	CloudEvents       *producer.CloudEvents
	CallEndTimestamps bool
	// CacheSize (entries), CacheBytes and CacheTTL bound the cache of enriched
	// values; a CacheSize of 0 means no cache. A longer TTL saves requests for
	// repeated events.
	CacheSize  int
	CacheBytes int64
	CacheTTL   time.Duration

	// MaxInFlight and MaxInFlightBytes bound the events between poll and commit;
	// MaxInFlight leaves out those of the open transaction. Larger values let more
	// events wait for late records before fetching pauses. Defaults: 20,000 and
	// 128 MiB.
	MaxInFlight      int
	MaxInFlightBytes int64
	// CommitInterval is how long a completed event may wait to share a transaction.
	// Larger values mean fewer transactions and a higher latency. Default: 50 ms.
	CommitInterval time.Duration
	// DrainTimeout is how long Run may continue after its context is done.
	// Default: 20 s.
	DrainTimeout time.Duration
	// Heartbeat and SessionTimeout are Kafka's heartbeat.interval.ms and
	// session.timeout.ms. Defaults: 1 s and 10 s.
	Heartbeat, SessionTimeout time.Duration
	// MaxRecordBytes is the largest record that the output topics accept
	// (max.message.bytes). Default: 1,048,588, Kafka's own.
	MaxRecordBytes int
	// FetchBufferBytes bounds what is fetched and not polled, unpacked. Default:
	// 32 MiB.
	FetchBufferBytes int64

	Metrics *Metrics
	Log     *zap.Logger
}

// The bounds of a rate limit, in requests per second. A lower one is a mistake: it
// would take minutes for each call. A higher one limits nothing, and the slots of
// the limiter would take memory without end.
const (
	MinAPIRate = 0.01
	MaxAPIRate = 100_000
)

// ValidAPIRate reports whether a rate may be configured. NaN may not.
func ValidAPIRate(perSecond float64) bool {
	return perSecond == 0 || perSecond >= MinAPIRate && perSecond <= MaxAPIRate
}

// AutoOffsetReset says where to start in a partition without a committed offset,
// as Kafka's auto.offset.reset does.
type AutoOffsetReset = session.Reset

// The values of AutoOffsetReset.
const (
	Earliest = session.Earliest
	Latest   = session.Latest
	None     = session.None
)

// EventRecord says when the record that an event carries is used instead of the
// API's. It must be complete: see schemas.Event.OwnRecord.
type EventRecord string

// The values of EventRecord. A record of the API in the cache is always preferred.
const (
	NeverUse    EventRecord = "never"
	UseFallback EventRecord = "fallback" // instead of a dead letter for lack of the API's record
	UseFirst    EventRecord = "first"    // at once, without a request
)

// EventRecords returns all values.
func EventRecords() []EventRecord { return []EventRecord{NeverUse, UseFallback, UseFirst} }

// complete sets defaults and reports everything that is wrong at once.
func (c *Config) complete() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	defaults(&c.APIConcurrency, 256)
	defaults(&c.MaxInFlight, 20000)
	defaults(&c.MaxInFlightBytes, 128<<20)
	defaults(&c.CommitInterval, 50*time.Millisecond)
	defaults(&c.DrainTimeout, 20*time.Second)
	defaults(&c.AutoOffsetReset, Earliest)
	defaults(&c.EventRecord, NeverUse)
	if c.Encode == nil {
		c.Encode = schemas.EncodeJSON
	}
	defaults(&c.SessionTimeout, session.DefaultSessionTimeout)
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
			bad("topic %q is both input and output: enricher would read its own records", t)
		}
		if slices.Contains(c.InputTopics[:i], t) {
			bad("input topic %q is named twice", t)
		}
	}
	if c.EnrichedTopic != "" && c.EnrichedTopic == c.DeadLetterTopic {
		bad("enriched and dead-letter topic are the same, %q", c.EnrichedTopic)
	}
	if !slices.Contains([]AutoOffsetReset{Earliest, Latest, None}, c.AutoOffsetReset) {
		bad("auto offset reset %q: must be earliest, latest or none", c.AutoOffsetReset)
	}
	if !slices.Contains(EventRecords(), c.EventRecord) {
		bad("event record %q: must be never, fallback or first", c.EventRecord)
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
	if !ValidAPIRate(c.APIRate) {
		bad("API rate %v: must be 0 (no limit), or from %v to %v", c.APIRate, MinAPIRate, MaxAPIRate)
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
