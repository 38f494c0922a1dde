package lookup

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
func TestPausedMetricShowsEveryReason(t *testing.T) {
	breaker := NewBreaker(0)
	s := NewScheduler(Config{Breaker: breaker, Metrics: NewMetrics(prometheus.NewRegistry()), Log: zap.NewNop()})
	now := time.Now()
	for i, step := range []struct {
		after  time.Duration
		answer *fetch.Response // nil: none comes
		paused map[PauseReason]float64
	}{
		{0, &fetch.Response{Verdict: fetch.Throttled, RetryAfter: 2 * time.Second}, map[PauseReason]float64{Throttled: 1}},
		{time.Second, &fetch.Response{Verdict: fetch.AccountRejected}, map[PauseReason]float64{Throttled: 1, AccountRejected: 1}},
		{3 * time.Second, nil, map[PauseReason]float64{AccountRejected: 1}},
		{4 * time.Second, &fetch.Response{Verdict: fetch.Throttled, RetryAfter: 2 * time.Second}, map[PauseReason]float64{Throttled: 1, AccountRejected: 1}},
		{7 * time.Second, &fetch.Response{Verdict: fetch.Found}, nil},
	} {
		at := now.Add(step.after)
		if step.answer != nil {
			breaker.Observe(at, at.Add(-time.Millisecond), "call", step.answer)
		}
		s.publish(at)
		for _, r := range PauseReasons() {
			var m dto.Metric
			if err := s.Metrics.Paused.WithLabelValues(r.String()).Write(&m); err != nil {
				t.Fatal(err)
			}
			if got := m.GetGauge().GetValue(); got != step.paused[r] {
				t.Errorf("step %d: %s is %v, want %v", i, r, got, step.paused[r])
			}
		}
	}
}
