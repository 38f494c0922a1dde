package admin

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"enricher/consumer"
)

// Metrics collects what a process exposes: the Go runtime, the process, the
// pipeline and its Kafka client.
type Metrics struct {
	registry *prometheus.Registry
	// client is of the newest Kafka session. The plugin needs a registry that no
	// client has used before.
	client atomic.Pointer[prometheus.Registry]
}

// NewMetrics returns the metrics of a process without a pipeline.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Instrument adds metrics to the configuration of a pipeline.
func Instrument(cfg *consumer.Config) *Metrics {
	m := NewMetrics()
	cfg.Metrics = consumer.NewMetrics(m.registry)
	kafka := cfg.Kafka
	cfg.Kafka = func() []kgo.Opt { return append(kafka(), m.hook()) }
	return m
}

// hook returns the option that counts for the next Kafka client.
func (m *Metrics) hook() kgo.Opt {
	reg := prometheus.NewRegistry()
	m.client.Store(reg)
	return kgo.WithHooks(kprom.NewMetrics("enricher_kafka", kprom.Registry(reg)))
}

// ExposeReady adds a gauge of readiness. ready lists why the process is not
// ready.
func (m *Metrics) ExposeReady(ready func() []string) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "enricher", Name: "ready", Help: "1 while the instance is ready; /readyz gives the reasons when it is not.",
	}, func() float64 {
		if len(ready()) > 0 {
			return 0
		}
		return 1
	}))
}

// ExposeCredentialProblems adds a gauge of the credentials for Kafka that cannot be
// used or renewed. number returns how many there are.
func (m *Metrics) ExposeCredentialProblems(number func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "enricher", Name: "kafka_credential_problems", Help: "Credentials for Kafka (files, tokens) that cannot be used or renewed; /readyz names them.",
	}, func() float64 { return float64(number()) }))
}

// ExposeDroppedLines adds a counter of the log's lines that were dropped.
func (m *Metrics) ExposeDroppedLines(dropped func() uint64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: "enricher", Name: "log_lines_dropped_total", Help: "Lines of the log that were dropped because standard error did not take them.",
	}, func() float64 { return float64(dropped()) }))
}

// Gather implements prometheus.Gatherer.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) {
	all := prometheus.Gatherers{m.registry}
	if client := m.client.Load(); client != nil {
		all = append(all, client)
	}
	return all.Gather()
}

// In this time at most so many lines of the Kafka client with the same message are
// logged: it repeats some for every broker and every second while one is away.
const (
	kafkaLogInterval = 10 * time.Second
	kafkaLogLines    = 3
)

// KafkaLog passes on the warnings and errors of the Kafka client, a few for each
// message, and everything it logs if debugging is on.
func KafkaLog(log *zap.Logger) kgo.Opt {
	log = log.Named("kafka")
	if log.Level() > zapcore.DebugLevel {
		log = log.WithOptions(zap.IncreaseLevel(max(log.Level(), zapcore.WarnLevel)), zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, kafkaLogInterval, kafkaLogLines, 0)
		}))
	}
	return kgo.WithLogger(kzap.New(log))
}
