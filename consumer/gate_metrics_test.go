package consumer

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"

	"enricher/fetch"
)

// The metrics tell every reason for which the gate is shut, also those that
// come and go while a graver one stays.
func TestGateMetrics(t *testing.T) {
	gate := fetch.NewGate(0)
	l := newLookups(lookupsConfig{gate: gate, metrics: NewMetrics(prometheus.NewRegistry()), log: zap.NewNop()})
	now := time.Now()
	for i, step := range []struct {
		after  time.Duration
		answer *fetch.Answer // nil: none comes
		shut   map[fetch.GateReason]float64
	}{
		{0, &fetch.Answer{Verdict: fetch.SlowDown, RetryAfter: 2 * time.Second}, map[fetch.GateReason]float64{fetch.SlowGate: 1}},
		{time.Second, &fetch.Answer{Verdict: fetch.Halt}, map[fetch.GateReason]float64{fetch.SlowGate: 1, fetch.HaltGate: 1}},
		{3 * time.Second, nil, map[fetch.GateReason]float64{fetch.HaltGate: 1}},
		{4 * time.Second, &fetch.Answer{Verdict: fetch.SlowDown, RetryAfter: 2 * time.Second}, map[fetch.GateReason]float64{fetch.SlowGate: 1, fetch.HaltGate: 1}},
		{7 * time.Second, &fetch.Answer{Verdict: fetch.Found}, nil},
	} {
		at := now.Add(step.after)
		if step.answer != nil {
			gate.Observe(at, at.Add(-time.Millisecond), "call", step.answer)
		}
		l.publish(at)
		for _, r := range fetch.GateReasons() {
			var m dto.Metric
			if err := l.metrics.GateShut.WithLabelValues(r.String()).Write(&m); err != nil {
				t.Fatal(err)
			}
			if got := m.GetGauge().GetValue(); got != step.shut[r] {
				t.Errorf("step %d: %s is %v, want %v", i, r, got, step.shut[r])
			}
		}
	}
}
