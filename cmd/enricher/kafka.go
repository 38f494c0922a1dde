package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// kafkaMetrics are the Kafka client's own, as of the newest session: the plugin
// takes a registry that no client had before.
type kafkaMetrics struct {
	newest atomic.Pointer[prometheus.Registry]
}

// Gather implements prometheus.Gatherer.
func (m *kafkaMetrics) Gather() ([]*dto.MetricFamily, error) {
	if reg := m.newest.Load(); reg != nil {
		return reg.Gather()
	}
	return nil, nil
}

// hook counts for the next client.
func (m *kafkaMetrics) hook() kgo.Opt {
	reg := prometheus.NewRegistry()
	m.newest.Store(reg)
	return kgo.WithHooks(kprom.NewMetrics("enricher_kafka", kprom.Registry(reg)))
}

// kafkaLogger passes on what the client has to say: its warnings, and all of it
// if debugging is on.
func kafkaLogger(log *zap.Logger) kgo.Opt {
	if !log.Core().Enabled(zapcore.DebugLevel) {
		log = log.WithOptions(zap.IncreaseLevel(zapcore.WarnLevel))
	}
	return kgo.WithLogger(kzap.New(log.Named("kafka")))
}
