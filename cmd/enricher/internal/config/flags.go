package config

import (
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/logsink"
	"enricher/consumer"
	"enricher/fetch/lookup"
	"enricher/producer"
)

// The groups of flags in the help of a command. Each group of flags checks its own
// values, records what is wrong with them, and makes what they describe.

// ServiceFlags are the flags of the service.
type ServiceFlags struct {
	KafkaFlags    `group:"Kafka:"`
	GroupFlags    `group:"Kafka:"`
	APIFlags      `group:"API:"`
	RateFlags     `group:"API:"`
	LookupFlags   `group:"Lookups:"`
	OutputFlags   `group:"Output:"`
	FormatFlags   `group:"Output:"`
	ProducerFlags `group:"Output:"`
	RegistryFlags `group:"Schema registry:"`
	LimitFlags    `group:"Limits:"`
	ProcessFlags  `group:"Service:"`
}

// Check implements Checker.
func (f *ServiceFlags) Check(src *Sources) {
	f.KafkaFlags.Check(src)
	f.GroupFlags.Check(src)
	f.RateFlags.Check(src)
	f.LookupFlags.Check(src)
	f.OutputFlags.Check(src, f.InputTopics)
	f.FormatFlags.Check(src)
	f.ProducerFlags.Check(src, &f.KafkaFlags)
	f.RegistryFlags.Check(src, f.EnrichedTopic, f.Format())
	if f.CloudEvents == "binary" && f.SchemaID == "payload" && len(f.SchemaRegistryURL) > 0 {
		src.Problem("cloud-events", "binary conflicts with --schema-id payload: content-type cannot say that a frame precedes the value; use --schema-id header")
	}
	f.LimitFlags.Check(src)
	f.ProcessFlags.Check(src)
	f.APIFlags.Check(src) // last: it makes the client if there is no problem
}

// Pipeline returns the configuration of the pipeline, except for Kafka and
// metrics.
func (f *ServiceFlags) Pipeline() consumer.Config {
	return consumer.Config{
		Group:                     f.Group,
		Instance:                  f.Instance,
		InputTopics:               f.InputTopics,
		EnrichedTopic:             f.EnrichedTopic,
		DeadLetterTopic:           f.DeadLetterTopic,
		AutoOffsetReset:           consumer.AutoOffsetReset(f.AutoOffsetReset),
		SDKAppID:                  f.SDKAppID,
		Client:                    f.Client,
		APIConcurrency:            f.APIConcurrency,
		APIRate:                   f.APIRate,
		Retry:                     lookup.RetryPolicy{LookupDelay: f.LookupDelay, NotFoundWindow: f.NotFoundWindow, RetryWindow: f.RetryWindow},
		MaxConsecutiveDeadLetters: f.MaxConsecutiveDeadLetters,
		EventRecord:               consumer.EventRecord(f.EventRecord),
		VerifySample:              f.VerifySample,
		CloudEvents:               f.cloudEvents(),
		CallEndTimestamps:         f.CallEndTimestamps(),
		CacheSize:                 f.CacheSize,
		CacheBytes:                int64(f.CacheBytes),
		CacheTTL:                  f.CacheTTL,
		MaxInFlight:               f.MaxInFlight,
		MaxInFlightBytes:          int64(f.MaxInFlightBytes),
		FetchBufferBytes:          int64(f.FetchBufferBytes),
		MaxRecordBytes:            int(f.BatchMaxBytes),
		CommitInterval:            f.CommitInterval,
		DrainTimeout:              f.DrainTimeout,
		Log:                       f.Log,
	}
}

func (f *ServiceFlags) cloudEvents() *producer.CloudEvents {
	if f.CloudEvents != "binary" {
		return nil
	}
	return &producer.CloudEvents{Subject: producer.CloudEventSubject(f.CloudEventsSubject), Format: f.Format()}
}

// GroupFlags configure the consumer group.
type GroupFlags struct {
	Group           string `default:"call-enricher" help:"Consumer group; also the prefix of the transactional id."`
	Instance        string `default:"${hostname}" help:"Unique name of this instance; must stay the same across restarts."`
	InputTopics     List   `default:"call-ended" help:"Topics of call-ended events."`
	AutoOffsetReset string `default:"earliest" values:"earliest,latest,none" help:"Where to start when the group has no committed offset: earliest, latest or none (the partition waits)."`
}

// Check implements Checker.
func (f *GroupFlags) Check(src *Sources) {
	src.Required("group", f.Group)
	src.Required("instance", f.Instance)
	if len(f.InputTopics) == 0 {
		src.Problem("input-topics", "must be given")
	}
	for i, t := range f.InputTopics {
		if slices.Contains(f.InputTopics[:i], t) {
			src.Problem("input-topics", "lists %q twice", t)
		}
	}
	src.OneOf("auto-offset-reset", f.AutoOffsetReset)
}

// OutputFlags configure the output topics.
type OutputFlags struct {
	EnrichedTopic   string        `default:"call-enriched" help:"Topic of enriched records."`
	DeadLetterTopic string        `default:"call-dead-letters" help:"Topic of events that could not be enriched."`
	CommitInterval  time.Duration `default:"50ms" help:"Maximum time a completed event waits to be committed."`
	RecordTimestamp string        `default:"produced" values:"produced,call-end" help:"Timestamp of enriched records: produced, or call-end (produced if the end is not known)."`

	CloudEvents        string `default:"off" values:"off,binary" help:"Whether enriched records have the headers of CloudEvents: off or binary."`
	CloudEventsSubject string `default:"caller" values:"caller,sdk-app-id,none" help:"Subject of the CloudEvent: caller, sdk-app-id or none."`
}

// Check records what is wrong with the values, given the input topics.
func (f *OutputFlags) Check(src *Sources, inputs []string) {
	src.Required("enriched-topic", f.EnrichedTopic)
	src.Required("dead-letter-topic", f.DeadLetterTopic)
	if slices.Contains(inputs, f.EnrichedTopic) {
		src.Problem("enriched-topic", "%q is an input topic: enricher would read its own records; use another topic", f.EnrichedTopic)
	}
	if slices.Contains(inputs, f.DeadLetterTopic) {
		src.Problem("dead-letter-topic", "%q is an input topic: enricher would read its own records; use another topic, and enricher dlq replay to process dead letters again", f.DeadLetterTopic)
	}
	if f.EnrichedTopic == f.DeadLetterTopic {
		src.Problem("dead-letter-topic", "%q is the enriched topic; use another topic", f.EnrichedTopic)
	}
	src.OneOf("record-timestamp", f.RecordTimestamp)
	src.OneOf("cloud-events", f.CloudEvents)
	src.OneOf("cloud-events-subject", f.CloudEventsSubject)
	if f.CloudEvents == "off" && f.CloudEventsSubject != string(producer.SubjectCaller) {
		src.Problem("cloud-events-subject", "enriched records are no CloudEvents; add --cloud-events binary, or leave it out")
	}
	src.atLeast("commit-interval", int64(f.CommitInterval), int64(time.Millisecond), "1ms")
}

// CallEndTimestamps reports whether enriched records have the time of the call's end.
func (f *OutputFlags) CallEndTimestamps() bool { return f.RecordTimestamp == "call-end" }

// RateFlags configure the rate limiter.
type RateFlags struct {
	APIRate float64 `name:"api-rate" default:"200" help:"Maximum API requests per second for the whole group (0 = unlimited)."`
}

// Check implements Checker.
func (f *RateFlags) Check(src *Sources) {
	if !consumer.ValidAPIRate(f.APIRate) {
		src.Problem("api-rate", "%v must be 0 (unlimited), or from %v to %v requests per second", f.APIRate, consumer.MinAPIRate, consumer.MaxAPIRate)
	}
}

// LookupFlags configure when calls are looked up, when lookups are given up, and
// the cache.
type LookupFlags struct {
	LookupDelay               time.Duration `default:"5s" help:"Delay between the end of a call and its first lookup."`
	NotFoundWindow            time.Duration `default:"2m" help:"How long to retry a record that is not found."`
	RetryWindow               time.Duration `default:"5m" help:"How long to retry a call that keeps failing while others succeed."`
	MaxConsecutiveDeadLetters int           `default:"1000" help:"Consecutive lookups that may be dead-lettered before further dead letters are withheld, and malformed events in a row that block a partition (0 = off)."`
	EventRecord               string        `default:"never" values:"never,fallback,first" help:"When to use the record that an event carries, if it is complete: never; fallback: instead of a dead letter for lack of the API's record; first: at once, without a request."`
	VerifySample              float64       `default:"0" help:"With --event-record first: fraction of the calls (0 to 1) whose record is also requested and compared; output does not wait for it."`
	CacheSize                 int           `default:"100000" help:"Maximum number of cached records (0 disables the cache)."`
	CacheBytes                ByteSize      `default:"256MiB" help:"Maximum memory of the cache."`
	CacheTTL                  time.Duration `name:"cache-ttl" default:"1h" help:"How long a record stays cached."`
}

// Check implements Checker.
func (f *LookupFlags) Check(src *Sources) {
	src.atLeast("lookup-delay", int64(f.LookupDelay), 0, "0s")
	src.atLeast("not-found-window", int64(f.NotFoundWindow), int64(time.Second), "1s")
	src.atLeast("retry-window", int64(f.RetryWindow), int64(time.Second), "1s")
	src.atLeast("max-consecutive-dead-letters", int64(f.MaxConsecutiveDeadLetters), 0, "0 (off)")
	src.OneOf("event-record", f.EventRecord)
	if !(f.VerifySample >= 0 && f.VerifySample <= 1) { // NaN is neither
		src.Problem("verify-sample", "must be from 0 to 1")
	} else if f.VerifySample > 0 && f.EventRecord != string(consumer.UseFirst) {
		src.Problem("verify-sample", "verifies records that events carry, which are used with --event-record first only; add that, or leave it out")
	}
	src.atLeast("cache-size", int64(f.CacheSize), 0, "0 (no cache)")
	src.atLeast("cache-bytes", int64(f.CacheBytes), 0, "0")
	src.atLeast("cache-ttl", int64(f.CacheTTL), int64(time.Second), "1s")
}

// LimitFlags bound what an instance holds in memory.
type LimitFlags struct {
	MaxInFlight      int      `default:"20000" help:"Maximum number of events in flight."`
	MaxInFlightBytes ByteSize `default:"128MiB" help:"Maximum memory of events in flight."`
	FetchBufferBytes ByteSize `default:"32MiB" help:"Maximum memory of records that are fetched and not polled, unpacked."`
}

// Check implements Checker.
func (f *LimitFlags) Check(src *Sources) {
	src.atLeast("max-in-flight", int64(f.MaxInFlight), 1, "1")
	src.atLeast("max-in-flight-bytes", int64(f.MaxInFlightBytes), 1<<20, "1MiB, the size of a large event")
	src.atLeast("fetch-buffer-bytes", int64(f.FetchBufferBytes), 1<<20, "1MiB, the size of a large event")
}

// atLeast records a problem if value is below least; text is least in words.
func (src *Sources) atLeast(flag string, value, least int64, text string) {
	if value < least {
		src.Problem(flag, "must be at least %s", text)
	}
}

// ProcessFlags configure the process: its admin server, shutdown and log, which
// goes to standard error.
type ProcessFlags struct {
	AdminAddr     string        `default:"127.0.0.1:9464" help:"Address of /livez, /readyz and /metrics."`
	WebConfigFile string        `placeholder:"FILE" help:"File with certificates and logins for --admin-addr, as Prometheus exporters have it."`
	AdminPprof    bool          `help:"Serve Go's profiles at /debug/pprof."`
	DrainTimeout  time.Duration `default:"20s" help:"Maximum duration of a graceful shutdown."`
	LogLevel      string        `default:"info" values:"debug,info,warn,error" help:"debug, info, warn or error."`
	LogFormat     string        `default:"json" values:"json,console" help:"json or console."`

	Log     *zap.Logger   `kong:"-"` // set by Check
	LogSink *logsink.Sink `kong:"-"` // where Log writes to; set by Check
}

// Check implements Checker.
func (f *ProcessFlags) Check(src *Sources) {
	src.Required("admin-addr", f.AdminAddr)
	if err := web.Validate(f.WebConfigFile); err != nil {
		text := strings.Join(strings.Fields(err.Error()), " ") // of several lines
		src.Problem("web-config-file", "%s: %s; see the web configuration of prometheus/exporter-toolkit", f.WebConfigFile, text)
	}
	src.atLeast("drain-timeout", int64(f.DrainTimeout), int64(time.Second), "1s")
	src.OneOf("log-level", strings.ToLower(f.LogLevel))
	src.OneOf("log-format", f.LogFormat)
	level, _ := zapcore.ParseLevel(f.LogLevel) // one of those that zap has
	var encoder zapcore.Encoder
	switch f.LogFormat {
	case "json":
		cfg := zap.NewProductionEncoderConfig()
		cfg.EncodeTime, cfg.TimeKey = zapcore.RFC3339NanoTimeEncoder, "time"
		encoder = zapcore.NewJSONEncoder(cfg)
	case "console":
		encoder = zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	default:
		return
	}
	f.LogSink = logsink.New(os.Stderr, func(dropped uint64) []byte { return droppedLines(encoder, dropped) })
	f.Log = zap.New(hint.Core(zapcore.NewCore(encoder, f.LogSink, level)), zap.ErrorOutput(f.LogSink))
}

// droppedLines returns the log line about lines that were dropped.
func droppedLines(encoder zapcore.Encoder, dropped uint64) []byte {
	entry := zapcore.Entry{Level: zapcore.WarnLevel, Time: time.Now(), Message: "log lines were dropped"}
	line, err := encoder.EncodeEntry(entry, []zapcore.Field{zap.Uint64("lines", dropped)})
	if err != nil {
		return nil // cannot happen for a number
	}
	defer line.Free()
	return slices.Clone(line.Bytes())
}
