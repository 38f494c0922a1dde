package lookup_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/fetch/lookup"
	"enricher/schemas"
)

// lostOnce is a lease that is lost the second time it is looked at, and valid
// again later.
type lostOnce struct {
	looks int
	lost  time.Time
}

func (l *lostOnce) Valid(now time.Time) bool {
	if l.looks++; l.looks == 2 {
		l.lost = now
	}
	return l.lost.IsZero() || now.Sub(l.lost) > 3*time.Second
}

// found is an API that has the record of every call.
type found struct{ requests []time.Time }

func (f *found) Lookup(_ context.Context, callID string, o fetch.Observer) fetch.Response {
	if !o.Begin() {
		return fetch.Response{Verdict: fetch.Retry}
	}
	f.requests = append(f.requests, time.Now())
	o.Connected()
	o.Written()
	return fetch.Response{Verdict: fetch.Found, Record: &schemas.CallRecord{CallID: callID}}
}

func (*found) CheckKey(time.Time) (bool, error) { return false, nil }

// A request whose lease ends between its slot and its start is not made. It is no
// attempt, costs nothing of the rate, and is made when the lease is valid again.
func TestRequestWithoutLeaseIsNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := lookup.NewLimiter(true)
		limiter.SetShare(time.Now(), .001, 0) // one request in a quarter of an hour
		metrics := lookup.NewMetrics(prometheus.NewRegistry())
		api, lease := &found{}, &lostOnce{}
		s := lookup.NewScheduler(lookup.Config{
			API: api, Lease: lease, Limiter: limiter, Cache: lookup.NewCache(10, 1<<20, time.Hour),
			Concurrency: 10, Metrics: metrics, Log: zap.NewNop(),
			Retry: lookup.RetryPolicy{NotFoundWindow: time.Minute, RetryWindow: time.Minute},
		})
		ctx, stop := context.WithCancel(t.Context())
		go s.Run(ctx)
		s.Add([]*lookup.Event{{CallID: "a", Time: time.Now()}})
		<-time.After(10 * time.Second)
		stop()
		synctest.Wait()
		if n := len(s.Outcomes().Take()); n != 1 || len(api.requests) != 1 {
			t.Fatalf("%d outcomes of %d requests", n, len(api.requests))
		}
		if waited := api.requests[0].Sub(lease.lost); waited < 3*time.Second || waited > 4*time.Second {
			t.Errorf("requested %v after the lease was lost", waited)
		}
		var requests, responses dto.Metric
		_ = metrics.Requests.Write(&requests)
		_ = metrics.Responses.WithLabelValues(fetch.Retry.String(), "cancelled").Write(&responses)
		if requests.GetCounter().GetValue() != 1 || responses.GetCounter().GetValue() != 0 {
			t.Errorf("%v requests counted, %v responses to the one not made", requests.GetCounter().GetValue(), responses.GetCounter().GetValue())
		}
	})
}
