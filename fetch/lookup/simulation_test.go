package lookup_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/fetch/lookup"
	"enricher/schemas"
)

// A simulation runs the real Scheduler in virtual time, with a function as the
// API. What must hold in every one of them (checked by simulation.check):
//
//	never lost    Every event has one outcome in the end, while healthy events keep
//	              coming: no window lasts for ever.
//	healthy       An event whose record exists becomes a dead letter only while
//	              nothing has a record; between two records found, at most limit
//	              lookups do, and at most 20 before the first.
//	evidence      Every dead letter has its reasons: the window is over in unpaused
//	              time, added up here from the probes that the API saw; 7 failures or
//	              2 responses of not_yet; and another call got a good response between
//	              the last two failures.
//	pauses        While lookups are paused only probes go out, one at a time, not
//	              closer together than the steps.

// kind of a call, known to the API alone. It is the first byte of the CallId.
type kind byte

const (
	healthy kind = 'h'
	missing kind = 'm' // never has a record
	poison  kind = 'p' // the API rejects the account for it alone
	broken  kind = 'b' // the API always fails for it
	probe   kind = fetchProbe
)

const fetchProbe = '0' // fetch.ProbeCallID begins with it

// Times in a simulation are since its start.
type simEvent struct {
	onTopic time.Duration
	time    time.Duration // its own
	kind    kind
	ready   time.Duration // when the record can be read; 0: 4 s after time
}

type simulation struct {
	name        string
	rate        float64 // 0: no limit
	until       time.Duration
	events      []simEvent // by onTopic
	limit       int        // of dead letters in a row
	maxInFlight int
	retry       lookup.RetryPolicy
	noScouts    bool
	exchange    time.Duration // default: 30 ms
	// respond overrides the response to a request at that time.
	respond func(t time.Duration, k kind, rng *rand.Rand) (v fetch.Verdict, takes time.Duration, ok bool)

	t     testing.TB
	start time.Time
	s     *lookup.Scheduler

	mu       sync.Mutex
	rng      *rand.Rand
	calls    []*simCall
	next     int // event to admit
	newest   bool
	goods    []time.Duration // ends of good responses to requests for calls
	founds   []time.Duration
	probes   []attempt
	row      []attempt // probes of the pause that lasts
	pauses   [][2]time.Duration
	requests int
	scouts   int
	problems []string
}

// simCall is one call with one event.
type simCall struct {
	simEvent
	attempts []attempt
	done     time.Duration // 0: open
	failure  *schemas.Failure
}

type attempt struct {
	start, end time.Duration
	verdict    fetch.Verdict
}

const (
	apiTimeout = 5 * time.Second
	never      = time.Duration(1 << 62)
	forEver    = never / 4
)

var productionRetry = lookup.RetryPolicy{LookupDelay: 5 * time.Second, NotFoundWindow: 2 * time.Minute, RetryWindow: 5 * time.Minute}

func (sim *simulation) now() time.Duration { return time.Since(sim.start) }

func (sim *simulation) bad(format string, args ...any) {
	sim.problems = append(sim.problems, fmt.Sprintf(format, args...))
}

// run runs the simulation until all events have an outcome, or the time is up.
func (sim *simulation) run(t *testing.T, seed uint64) *simResult {
	t.Helper()
	sim.t = t
	sim.rng = rand.New(rand.NewPCG(seed, 7))
	if sim.maxInFlight == 0 {
		sim.maxInFlight = 20_000
	}
	if sim.retry == (lookup.RetryPolicy{}) {
		sim.retry = productionRetry
	}
	if sim.exchange == 0 {
		sim.exchange = 30 * time.Millisecond
	}
	synctest.Test(t, func(t *testing.T) {
		limiter := lookup.NewLimiter(sim.rate > 0)
		limiter.SetShare(time.Now(), sim.rate, 0)
		time.Sleep(time.Minute) // until the whole rate is ours, and no response is recent
		sim.start = time.Now()
		cfg := lookup.Config{
			API: sim, Lease: alwaysValid{}, Limiter: limiter, Cache: lookup.NewCache(0, 0, 0), Retry: sim.retry,
			MaxConsecutiveDeadLetters: sim.limit, Concurrency: 2000,
			Metrics: lookup.NewMetrics(prometheus.NewRegistry()), Log: zap.NewNop(),
		}
		if !sim.noScouts {
			cfg.Scout = sim
		}
		sim.s = lookup.NewScheduler(cfg)
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		go func() { defer close(stopped); sim.s.Run(ctx) }()
		sim.feed()
		stop()
		<-stopped
	})
	return sim.result()
}

type alwaysValid struct{}

func (alwaysValid) Valid(time.Time) bool { return true }

// feed admits events as long as there is room, and takes outcomes.
func (sim *simulation) feed() {
	inFlight, open := 0, len(sim.events)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		for _, o := range sim.s.Outcomes().Take() {
			c := o.Event.Source.(*simCall)
			c.done, c.failure = sim.now(), o.Failure
			inFlight--
			open--
		}
		now := sim.now()
		if open == 0 || now >= sim.until {
			return
		}
		wait := sim.until - now
		var add []*lookup.Event
		sim.mu.Lock()
		for sim.next < len(sim.events) && inFlight < sim.maxInFlight {
			e := sim.events[sim.next]
			if e.onTopic > now {
				wait = min(wait, e.onTopic-now)
				break
			}
			add = append(add, sim.admit(e))
			inFlight++
		}
		sim.mu.Unlock()
		if len(add) > 0 {
			sim.s.Add(add)
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-sim.s.Outcomes().Ready():
		}
	}
}

func (sim *simulation) admit(e simEvent) *lookup.Event {
	if e.ready == 0 {
		e.ready = e.time + 4*time.Second
	}
	c := &simCall{simEvent: e}
	sim.calls = append(sim.calls, c)
	sim.next++
	return &lookup.Event{
		CallID: string(e.kind) + strconv.Itoa(sim.next-1), Source: c,
		Time: sim.start.Add(e.time), Recorded: sim.start.Add(e.time),
	}
}

// Next implements lookup.Scout.
func (sim *simulation) Next(context.Context) (string, bool) {
	sim.mu.Lock()
	defer sim.mu.Unlock()
	end := sim.next
	for end < len(sim.events) && sim.events[end].onTopic+sim.retry.LookupDelay <= sim.now() {
		end++
	}
	if end == sim.next {
		return "", false
	}
	i := end - 1
	if sim.newest = !sim.newest; !sim.newest {
		i = sim.next + sim.rng.IntN(end-sim.next)
	}
	return string(sim.events[i].kind) + strconv.Itoa(i), true
}

// CheckKey implements lookup.API.
func (sim *simulation) CheckKey(time.Time) (bool, error) { return false, nil }

// Lookup implements lookup.API.
func (sim *simulation) Lookup(ctx context.Context, callID string, o fetch.Observer) fetch.Response {
	if !o.Begin() {
		return fetch.Response{Verdict: fetch.Retry}
	}
	o.Connected()
	o.Written()
	sim.mu.Lock()
	start, k := sim.now(), kind(callID[0])
	sim.requests++
	var e simEvent
	var c *simCall // nil: of a probe or a scout
	if k == probe {
		sim.onProbe(start)
	} else {
		if len(sim.row) > 0 && start > sim.row[0].start {
			sim.bad("request for %s at %v, though lookups are paused since %v", callID, start, sim.row[0].start)
		}
		i, err := strconv.Atoi(callID[1:])
		if err != nil {
			panic(err)
		}
		e = sim.events[i]
		if e.ready == 0 {
			e.ready = e.time + 4*time.Second
		}
		if i < len(sim.calls) {
			c = sim.calls[i]
		} else {
			sim.scouts++
		}
	}
	verdict, takes := sim.decide(start, k, &e)
	sim.mu.Unlock()
	if takes > apiTimeout {
		verdict, takes = fetch.Retry, apiTimeout
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
	}
	sim.mu.Lock()
	defer sim.mu.Unlock()
	sim.note(attempt{start, sim.now(), verdict}, k, c)
	r := fetch.Response{Verdict: verdict, Message: verdict.String()}
	if verdict == fetch.Found {
		r.Record = &schemas.CallRecord{CallID: callID}
	}
	return r
}

// decide returns the verdict on a request that arrived at t, and how long the
// response takes.
func (sim *simulation) decide(t time.Duration, k kind, e *simEvent) (fetch.Verdict, time.Duration) {
	if sim.respond != nil {
		if v, takes, ok := sim.respond(t, k, sim.rng); ok {
			return v, sim.exchange + takes
		}
	}
	switch {
	case k == poison:
		return fetch.AccountRejected, sim.exchange
	case k == broken:
		return fetch.Retry, sim.exchange
	case k == healthy && t >= e.ready:
		return fetch.Found, sim.exchange
	}
	return fetch.NotYet, sim.exchange
}

// onProbe checks that a probe comes alone and not too early.
func (sim *simulation) onProbe(start time.Duration) {
	if n := len(sim.row); n > 0 {
		last := sim.row[n-1]
		step := min(time.Second<<min(n-1, 5), 5*time.Second)
		if last.verdict == fetch.AccountRejected {
			step = min(time.Second<<min(n-1, 5), 30*time.Second)
		}
		if last.end == never || start < last.end+step {
			sim.bad("probe %d of a pause at %v; the one before began at %v and ended at %v", n+1, start, last.start, last.end)
		}
	}
	sim.row = append(sim.row, attempt{start: start, end: never})
}

// note notes a response.
func (sim *simulation) note(a attempt, k kind, c *simCall) {
	switch {
	case k == probe:
		sim.row[len(sim.row)-1] = a
		sim.probes = append(sim.probes, a)
		if a.verdict.Good() {
			sim.pauses = append(sim.pauses, [2]time.Duration{sim.row[0].start, a.end})
			sim.row = nil
		}
		return
	case a.verdict.Good():
		sim.goods = append(sim.goods, a.end)
		if a.verdict == fetch.Found {
			sim.founds = append(sim.founds, a.end)
		}
	}
	if c != nil {
		c.attempts = append(c.attempts, a)
	}
}

// unpaused adds up how much of the time from the one to the other lookups were
// not paused, by the probes that the API saw.
func (sim *simulation) unpaused(from, to time.Duration) time.Duration {
	d := to - from
	pauses := sim.pauses
	if len(sim.row) > 0 {
		pauses = append(slices.Clone(pauses), [2]time.Duration{sim.row[0].start, never})
	}
	for _, p := range pauses {
		d -= max(0, min(to, p[1])-max(from, p[0]))
	}
	return d
}
