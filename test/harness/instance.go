package harness

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"enricher/consumer"
	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/fetch/lookup"
	"enricher/test/kafkaproxy"
)

// LookupDelay is the default of --lookup-delay.
const LookupDelay = 5 * time.Second

// Config is a configuration with the command's defaults. It still lacks the
// brokers, the group and the topics.
func Config(instance, apiURL string, transport http.RoundTripper, reg prometheus.Registerer) (consumer.Config, error) {
	client, err := NewAPIClient(apiURL, transport)
	return consumer.Config{
		Instance: instance,
		SDKAppID: fetchtest.DemoSDKAppID, Client: client, APIRate: 200,
		Retry:                     lookup.RetryPolicy{LookupDelay: LookupDelay, NotFoundWindow: 2 * time.Minute, RetryWindow: 5 * time.Minute},
		MaxConsecutiveDeadLetters: 1000, CacheSize: 100000, CacheBytes: 256 << 20, CacheTTL: time.Hour,
		Metrics: consumer.NewMetrics(reg),
	}, err
}

// NewAPIClient makes a client of a simulated API. The transport is nil unless the API
// is in this process.
func NewAPIClient(url string, transport http.RoundTripper) (*fetch.Client, error) {
	key, err := fetch.KeyFromValue(fetch.NewSecret(fetchtest.DemoKey))
	if err != nil {
		return nil, err
	}
	return fetch.NewClient(fetch.ClientConfig{BaseURL: url, SDKAppID: fetchtest.DemoSDKAppID, Key: key, Transport: transport})
}

// Instance is a running consumer.
type Instance struct {
	*consumer.Consumer
	T testing.TB
	// Proxy is between the consumer and the broker.
	Proxy    *kafkaproxy.Proxy
	Registry *prometheus.Registry
	Logs     *observer.ObservedLogs
	// Stop asks for a drain, as SIGTERM does.
	Stop context.CancelFunc
	// Done is closed when Run has returned Err.
	Done chan struct{}
	Err  error
}

// Start runs a consumer with the settings of Config, of the environment, and those
// that change sets. It drains at the end of the test at the latest; if the test
// has failed, its log is printed.
func (e *Env) Start(name string, change ...func(*consumer.Config)) *Instance {
	e.T.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	i := &Instance{Registry: prometheus.NewRegistry(), Logs: logs, Done: make(chan struct{}), T: e.T, Proxy: kafkaproxy.New(e.Dial)}
	i.Proxy.OnRequest(e.OnRequest)
	cfg, err := Config(name, "http://127.0.0.1", fetchtest.Transport(e.API), i.Registry)
	if err != nil {
		e.T.Fatal(err)
	}
	e.T.Cleanup(cfg.Client.Close)
	cfg.Kafka = func() []kgo.Opt { return append(e.Opts(), kgo.Dialer(i.Proxy.DialContext)) }
	cfg.Log = zap.New(core)
	e.Apply(&cfg)
	if e.Settings != nil {
		e.Settings(&cfg)
	}
	for _, c := range change {
		c(&cfg)
	}
	i.Consumer, err = consumer.New(cfg)
	if err != nil {
		e.T.Fatal(err)
	}
	e.register(name, i, &cfg)
	var ctx context.Context
	ctx, i.Stop = context.WithCancel(context.Background())
	go func() {
		defer close(i.Done)
		i.Err = i.Run(ctx)
	}()
	e.T.Cleanup(func() {
		i.Proxy.SetBlackhole(false)
		i.Drain()
		if e.T.Failed() {
			i.LogTo(e.T)
		}
	})
	return i
}

// Drain ends the instance as SIGTERM does.
func (i *Instance) Drain() {
	i.Stop()
	<-i.Done
}

// CutOff cuts an instance off from the broker for good and ends it, which looks like
// a crash to the broker.
func (i *Instance) CutOff() {
	i.Proxy.SetOffline(true)
	i.Stop()
}

// LogTo prints the instance's log.
func (i *Instance) LogTo(t testing.TB) {
	for _, l := range i.Logs.All() {
		t.Log(l.Time.Format(time.TimeOnly+".000"), l.Level, l.Message, l.ContextMap())
	}
}

// NotReady returns why the instance is not ready; "": it is.
func (i *Instance) NotReady() string {
	var all []string
	for _, c := range i.Ready() {
		all = append(all, c.String())
	}
	return strings.Join(all, "; ")
}

// Metric is the sum of a counter or gauge, or of what a histogram observed, over its
// series; with values, over the series that have one of them as a label.
func (i *Instance) Metric(name string, values ...string) float64 {
	i.T.Helper()
	families, err := i.Registry.Gather()
	if err != nil {
		i.T.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		sum := 0.0
		for _, m := range f.GetMetric() {
			if len(values) == 0 || slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return slices.Contains(values, l.GetValue()) }) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
			}
		}
		return sum
	}
	i.T.Fatalf("no metric %s", name)
	return 0
}
