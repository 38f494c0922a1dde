package lookup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/schemas"
)

// These tests specify the scheduler in virtual time. The API is a function, the
// lease always valid, and a lookup due 5 s after its event.

// apiFunc is an API that responds with what the function returns.
type apiFunc func(ctx context.Context, callID string) fetch.Response

// Lookup implements API.
func (f apiFunc) Lookup(ctx context.Context, callID string, o fetch.Observer) fetch.Response {
	if !o.Begin() {
		return fetch.Response{Verdict: fetch.Retry}
	}
	o.Connected()
	o.Written()
	return f(ctx, callID)
}

// CheckKey implements API.
func (apiFunc) CheckKey(time.Time) (bool, error) { return false, nil }

type leaseFunc func() bool

// Valid implements Lease.
func (f leaseFunc) Valid(time.Time) bool { return f() }

// responses by the words that scripts consist of.
var responses = map[string]fetch.Response{
	"found":            {Verdict: fetch.Found},
	"not_yet":          {Verdict: fetch.NotYet},
	"not_ended":        {Verdict: fetch.NotYet, NotEnded: true},
	"retry":            {Verdict: fetch.Retry},
	"throttled":        {Verdict: fetch.Throttled},
	"throttled_7s":     {Verdict: fetch.Throttled, RetryAfter: 7 * time.Second},
	"account_rejected": {Verdict: fetch.AccountRejected},
	"locked_out":       {Verdict: fetch.AccountRejected, Lockout: time.Minute},
	"rejected":         {Verdict: fetch.Rejected},
	"unknown_code":     {Verdict: fetch.Unknown},
	"broken":           {Verdict: fetch.Found}, // without a record, at which enriching it panics
}

// env runs a scheduler against an API that follows scripts.
type env struct {
	*Scheduler
	t     *testing.T
	start time.Time
	took  time.Duration // by each request

	mu        sync.Mutex
	scripts   map[string]string // words by CallId, "probe" for probes; the last one repeats; none: found, or not_yet for probes
	sent      []string          // requests as "CallId@seconds", in order
	completed []string
}

// newEnv starts a scheduler, which ends with the test. The changes apply to its
// configuration.
func newEnv(t *testing.T, changes ...func(*Config)) *env {
	e := &env{t: t, start: time.Now(), scripts: map[string]string{}}
	cfg := Config{
		API: apiFunc(e.respond), Lease: leaseFunc(func() bool { return true }),
		Limiter: NewLimiter(false), Cache: NewCache(1000, 1<<20, time.Hour),
		Retry:       RetryPolicy{LookupDelay: 5 * time.Second, NotFoundWindow: 2 * time.Minute, RetryWindow: 5 * time.Minute},
		Concurrency: 100, Metrics: NewMetrics(prometheus.NewRegistry()), Log: zap.NewNop(),
	}
	for _, change := range changes {
		change(&cfg)
	}
	e.Scheduler = NewScheduler(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() { e.Run(ctx) })
	t.Cleanup(func() { cancel(); ended.Wait() })
	return e
}

// script sets the responses to the requests for a call.
func (e *env) script(callID, words string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.scripts[callID] = words
}

// requested returns the requests so far.
func (e *env) requested() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.sent)
}

func (e *env) respond(_ context.Context, callID string) fetch.Response {
	e.mu.Lock()
	word := "found"
	if callID == fetch.ProbeCallID {
		callID, word = "probe", "not_yet"
	}
	words := strings.Fields(e.scripts[callID])
	if len(words) > 0 {
		word = words[0]
	}
	if len(words) > 1 {
		e.scripts[callID] = strings.Join(words[1:], " ")
	}
	e.sent = append(e.sent, fmt.Sprintf("%s@%.4g", callID, time.Since(e.start).Seconds()))
	e.mu.Unlock()
	if e.took > 0 {
		<-time.After(e.took)
	}
	if word == "panic" {
		panic("a bug in the client")
	}
	r, ok := responses[word]
	if !ok {
		e.t.Errorf("no response is called %q", word)
	}
	if word == "found" {
		r.Record = &schemas.CallRecord{CallID: callID, End: 1}
	}
	return r
}

// event adds an event of a call that ended some time ago.
func (e *env) event(callID string, age time.Duration, assignment uint64) {
	e.Add([]*Event{{CallID: callID, Time: time.Now().Add(-age), Assignment: assignment}})
}

// run lets d pass. It returns the outcomes so far as "CallId outcome@seconds".
func (e *env) run(d time.Duration) []string {
	<-time.After(d)
	synctest.Wait()
	for _, o := range e.Outcomes().Take() {
		text := o.Event.CallID + " " + o.Source.String()
		if f := o.Failure; f != nil {
			text = fmt.Sprintf("%s %s after %d", o.Event.CallID, f.Reason, f.Attempts)
		}
		e.completed = append(e.completed, fmt.Sprintf("%s@%.4g", text, o.Completed.Sub(e.start).Seconds()))
	}
	return e.completed
}

func (e *env) expect(what string, got []string, want ...string) {
	e.t.Helper()
	if !slices.Equal(got, want) {
		e.t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func (e *env) expectRequests(want ...string) {
	e.t.Helper()
	e.expect("requests", e.requested(), want...)
}

// spec runs a test in virtual time.
func spec(t *testing.T, name string, test func(e *env), changes ...func(*Config)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(newEnv(t, changes...)) })
	})
}
