package admin

import (
	"sync/atomic"

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

// Instrument adds metrics to the configuration of a pipeline.
func Instrument(cfg *consumer.Config) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
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

// Gather implements prometheus.Gatherer.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) {
	all := prometheus.Gatherers{m.registry}
	if client := m.client.Load(); client != nil {
		all = append(all, client)
	}
	return all.Gather()
}

// KafkaLog passes on the warnings and errors of the Kafka client, and everything
// it logs if debugging is on.
func KafkaLog(log *zap.Logger) kgo.Opt {
	level := log.Level()
	if level == zapcore.InfoLevel {
		level = zapcore.WarnLevel
	}
	return kgo.WithLogger(kzap.New(log.Named("kafka").WithOptions(zap.IncreaseLevel(level))))
}
