package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"enricher/consumer"
	"enricher/fetch"
	"enricher/fetch/lookup"
)

// The flags, in groups. Each group checks its own values, notes what is wrong
// with the inputs, and makes what the values describe.

// kafkaFlags say how to reach the brokers.
type kafkaFlags struct {
	Brokers          list   `default:"127.0.0.1:9092" help:"Brokers to ask first."`
	TLS              bool   `name:"tls" help:"Speak TLS with the brokers."`
	TLSCA            string `name:"tls-ca" placeholder:"FILE" help:"Certificates to trust instead of the system's; PEM."`
	TLSCert          string `name:"tls-cert" placeholder:"FILE" help:"Certificate to present; PEM."`
	TLSKey           string `name:"tls-key" placeholder:"FILE" help:"Private key of --tls-cert; PEM."`
	SASLMechanism    string `name:"sasl-mechanism" placeholder:"NAME" help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."`
	SASLUser         string `name:"sasl-user" placeholder:"NAME" help:"User of the SASL login."`
	SASLPasswordFile string `name:"sasl-password-file" placeholder:"FILE" help:"File with the password of the SASL login."`

	opts []kgo.Opt // set by check
}

func (f *kafkaFlags) check(in *inputs) {
	if len(f.Brokers) == 0 {
		in.problem("brokers", "must be given")
	}
	f.opts = []kgo.Opt{kgo.SeedBrokers(f.Brokers...)}
	if f.usesTLS() {
		f.opts = append(f.opts, kgo.DialTLSConfig(f.tlsConfig(in)))
	}
	if f.SASLMechanism != "" || f.SASLUser != "" || f.SASLPasswordFile != "" {
		if m := f.mechanism(in); m != nil {
			f.opts = append(f.opts, kgo.SASL(m))
		}
	}
}

func (f *kafkaFlags) usesTLS() bool {
	return f.TLS || f.TLSCA != "" || f.TLSCert != "" || f.TLSKey != ""
}

func (f *kafkaFlags) tlsConfig(in *inputs) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.TLSCA != "" {
		pem, err := os.ReadFile(f.TLSCA)
		c.RootCAs = x509.NewCertPool()
		if err == nil && !c.RootCAs.AppendCertsFromPEM(pem) {
			err = fmt.Errorf("%s holds no certificate in PEM", f.TLSCA)
		}
		if err != nil {
			in.problem("tls-ca", "%v", err)
		}
	}
	if (f.TLSCert == "") != (f.TLSKey == "") {
		in.problem("tls-cert", "certificate and key go together: give --tls-cert and --tls-key, or neither")
	} else if f.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(f.TLSCert, f.TLSKey)
		if err != nil {
			in.problem("tls-cert", "%v", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c
}

func (f *kafkaFlags) mechanism(in *inputs) sasl.Mechanism {
	in.required("sasl-user", f.SASLUser)
	in.required("sasl-password-file", f.SASLPasswordFile)
	var password string
	if f.SASLPasswordFile != "" {
		b, err := os.ReadFile(f.SASLPasswordFile)
		password = strings.TrimRight(string(b), "\r\n")
		if err == nil && password == "" {
			err = fmt.Errorf("%s is empty", f.SASLPasswordFile)
		}
		if err != nil {
			in.problem("sasl-password-file", "%v", err)
		}
	}
	switch f.SASLMechanism {
	case "PLAIN":
		return plain.Auth{User: f.SASLUser, Pass: password}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: f.SASLUser, Pass: password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		return scram.Auth{User: f.SASLUser, Pass: password}.AsSha512Mechanism()
	}
	in.problem("sasl-mechanism", "%q is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512", f.SASLMechanism)
	return nil
}

// topicFlags name the group and the topics.
type topicFlags struct {
	Group           string `default:"call-enricher" help:"Consumer group; also the prefix of the transactional id."`
	Instance        string `default:"${hostname}" help:"Name of this process: unique among those that run, the same after a restart."`
	InputTopics     list   `default:"call-ended" help:"Topics of call-ended events."`
	EnrichedTopic   string `default:"call-enriched" help:"Topic of enriched records."`
	DeadLetterTopic string `default:"call-dead-letters" help:"Topic of events that could not be enriched."`
	Start           string `default:"earliest" help:"Where to begin without a committed offset: earliest, latest or fail."`
}

func (f *topicFlags) check(in *inputs) {
	in.required("group", f.Group)
	in.required("instance", f.Instance)
	in.required("enriched-topic", f.EnrichedTopic)
	in.required("dead-letter-topic", f.DeadLetterTopic)
	if len(f.InputTopics) == 0 {
		in.problem("input-topics", "must be given")
	}
	for i, t := range f.InputTopics {
		switch {
		case slices.Contains(f.InputTopics[:i], t):
			in.problem("input-topics", "names %q twice", t)
		case t == f.EnrichedTopic:
			in.problem("enriched-topic", "is input topic %q: the program would read its own records; name another topic", t)
		case t == f.DeadLetterTopic:
			in.problem("dead-letter-topic", "is input topic %q: the program would read its own records; name another topic, and use replay to try dead letters again", t)
		}
	}
	if f.EnrichedTopic == f.DeadLetterTopic {
		in.problem("dead-letter-topic", "is the enriched topic, %q; name another topic", f.EnrichedTopic)
	}
	if !slices.Contains([]string{"earliest", "latest", "fail"}, f.Start) {
		in.problem("start", "%q is none of earliest, latest, fail", f.Start)
	}
}

// apiFlags say how to ask the call-record API.
type apiFlags struct {
	Region         string        `placeholder:"NAME" help:"Where the app's data live: ${regions}."`
	APIURL         string        `name:"api-url" placeholder:"URL" help:"Base URL of the API, instead of --region."`
	APIInsecure    bool          `name:"api-insecure" help:"Allow plain http to other hosts than this one."`
	SDKAppID       int           `name:"sdk-app-id" placeholder:"N" help:"The app."`
	Identifier     string        `default:"administrator" help:"Administrator account of the app to sign for."`
	SecretKeyFile  string        `placeholder:"FILE" help:"File with the app's secret key, read again when it changes; or set $$ENRICHER_SECRET_KEY."`
	APITimeout     time.Duration `name:"api-timeout" default:"5s" help:"Bound on one attempt; over 3s."`
	APIConcurrency int           `name:"api-concurrency" default:"256" help:"Requests in flight."`

	client *fetch.Client // set by check
}

func (f *apiFlags) check(in *inputs) {
	base := f.APIURL
	switch {
	case f.Region != "" && f.APIURL != "":
		in.problem("region", "is given together with --api-url; give one of them")
	case f.Region != "":
		var err error
		if base, err = fetch.RegionURL(f.Region); err != nil {
			in.problem("region", "%v", err)
		}
	case f.APIURL == "":
		in.problem("region", "must be given (%s), or --api-url", strings.Join(fetch.Regions(), ", "))
	}
	if f.SDKAppID < 1 || f.SDKAppID > math.MaxUint32 {
		in.problem("sdk-app-id", "must be given, a number from 1 to %d", uint32(math.MaxUint32))
	}
	in.required("identifier", f.Identifier)
	if f.APITimeout <= 3*time.Second {
		in.problem("api-timeout", "%v is too short: the API itself gives up after 3s, so it must be more", f.APITimeout)
	}
	if f.APIConcurrency < 1 {
		in.problem("api-concurrency", "must be at least 1")
	}
	key := f.key(in)
	if in.problems != nil {
		return
	}
	var err error
	f.client, err = fetch.NewClient(fetch.ClientConfig{
		BaseURL: base, Insecure: f.APIInsecure, SDKAppID: f.SDKAppID, Identifier: f.Identifier,
		Key: key, Timeout: f.APITimeout, Concurrency: f.APIConcurrency, UserAgent: "enricher/" + readBuild().version,
	})
	if err != nil { // only the URL is left to be wrong
		for _, e := range flatten(err) {
			in.problems = append(in.problems, problem{"api-url", strings.TrimPrefix(e.Error(), "base URL: ")})
		}
	}
}

func (f *apiFlags) key(in *inputs) *fetch.SecretKey {
	var key *fetch.SecretKey
	var err error
	switch {
	case f.SecretKeyFile != "" && in.secretKey != "":
		err = errors.New("is given together with $" + envSecretKey + "; give one of them")
	case f.SecretKeyFile != "":
		key, err = fetch.KeyFromFile(f.SecretKeyFile)
	case in.secretKey != "":
		key, err = fetch.KeyFromValue(fetch.NewSecret(in.secretKey))
	default:
		err = errors.New("must be given, or $" + envSecretKey + " be set")
	}
	if err != nil {
		in.problem("secret-key-file", "%s", strings.TrimPrefix(err.Error(), "secret key: "))
	}
	return key
}

// policyFlags say when to look up, when to give up, and how much to hold.
type policyFlags struct {
	APIRate          float64       `name:"api-rate" default:"200" help:"Calls a second for the whole group; 0: no limit."`
	SettleDelay      time.Duration `default:"5s" help:"Wait after the call's end before the first lookup."`
	NotFoundWindow   time.Duration `default:"2m" help:"How long to ask again for a record that is not there."`
	RetryWindow      time.Duration `default:"5m" help:"How long one call may keep failing while others succeed."`
	FloodGuard       int           `default:"1000" help:"Lookups in a row that may end in a dead letter; 0: any number."`
	CacheSize        int           `default:"100000" help:"Calls to remember; 0: none."`
	CacheBytes       byteSize      `default:"256MiB" help:"Memory for them."`
	CacheTTL         time.Duration `name:"cache-ttl" default:"1h" help:"How long to remember a call."`
	MaxInFlight      int           `default:"20000" help:"Events between admission and commit."`
	MaxInFlightBytes byteSize      `default:"128MiB" help:"Memory for them."`
	CommitInterval   time.Duration `default:"50ms" help:"How long a finished outcome may wait for company."`
	DrainTimeout     time.Duration `default:"20s" help:"How long ending may take."`
}

func (f *policyFlags) check(in *inputs) {
	atLeast := func(flag string, value, least int64, text string) {
		if value < least {
			in.problem(flag, "must be at least %s", text)
		}
	}
	if f.APIRate < 0 {
		in.problem("api-rate", "must not be negative (0: no limit)")
	}
	atLeast("settle-delay", int64(f.SettleDelay), 0, "0s")
	atLeast("not-found-window", int64(f.NotFoundWindow), int64(time.Second), "1s")
	atLeast("retry-window", int64(f.RetryWindow), int64(time.Second), "1s")
	atLeast("flood-guard", int64(f.FloodGuard), 0, "0, which turns it off")
	atLeast("cache-size", int64(f.CacheSize), 0, "0, which turns the cache off")
	atLeast("cache-bytes", int64(f.CacheBytes), 0, "0")
	atLeast("cache-ttl", int64(f.CacheTTL), int64(time.Second), "1s")
	atLeast("max-in-flight", int64(f.MaxInFlight), 1, "1")
	atLeast("max-in-flight-bytes", int64(f.MaxInFlightBytes), 1<<20, "1MiB, the size of a large event")
	atLeast("commit-interval", int64(f.CommitInterval), int64(time.Millisecond), "1ms")
	atLeast("drain-timeout", int64(f.DrainTimeout), int64(time.Second), "1s")
}

func (f *policyFlags) apply(cfg *consumer.Config) {
	cfg.APIRate = f.APIRate
	cfg.Retry = lookup.RetryPolicy{LookupDelay: f.SettleDelay, NotFoundWindow: f.NotFoundWindow, RetryWindow: f.RetryWindow}
	cfg.MaxConsecutiveDeadLetters = f.FloodGuard
	cfg.CacheSize, cfg.CacheBytes, cfg.CacheTTL = f.CacheSize, int64(f.CacheBytes), f.CacheTTL
	cfg.MaxInFlight, cfg.MaxInFlightBytes = f.MaxInFlight, int64(f.MaxInFlightBytes)
	cfg.CommitInterval, cfg.DrainTimeout = f.CommitInterval, f.DrainTimeout
}

// logFlags say what to log and how. Logs go to standard error.
type logFlags struct {
	LogLevel  string `default:"info" help:"debug, info, warn or error."`
	LogFormat string `default:"json" help:"json or console."`

	log *zap.Logger // set by check
}

func (f *logFlags) check(in *inputs) {
	level, err := zapcore.ParseLevel(f.LogLevel)
	if err != nil || level > zapcore.ErrorLevel {
		in.problem("log-level", "%q is none of debug, info, warn, error", f.LogLevel)
	}
	var encoder zapcore.Encoder
	switch f.LogFormat {
	case "json":
		cfg := zap.NewProductionEncoderConfig()
		cfg.EncodeTime, cfg.TimeKey = zapcore.RFC3339NanoTimeEncoder, "time"
		encoder = zapcore.NewJSONEncoder(cfg)
	case "console":
		encoder = zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	default:
		in.problem("log-format", "%q is neither json nor console", f.LogFormat)
		return
	}
	f.log = zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), level))
}
