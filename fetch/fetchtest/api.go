// Package fetchtest simulates the call-record API as an http.Handler. It verifies
// every request as strictly as the API does (path, method, query, UserSig, body),
// enforces a quota, counts requests, and fails on demand.
//
// It is for tests, the simulator and the demo; nothing else may import it. It does
// not imitate what enricher does not rely on: there are no other commands, no
// accounts and no billing.
package fetchtest

import (
	"hash/fnv"
	"net/http"
	"sync"
	"time"

	"enricher/fetch"
)

// Path is the path of the one command. It is spelt a second time here on purpose,
// apart from package fetch, so that a misspelt one fails the tests.
const Path = "/v4/call_record_http_srv/get_record_by_callid"

// Values that any test may use. The key is the one that Tencent publishes for its
// own demos; it gives access to nothing.
const (
	DemoSDKAppID   = 1400000000
	DemoIdentifier = "administrator"
	DemoKey        = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
)

// Config configures the simulator. The zero value is a server for the Demo
// constants, without quota and latency.
type Config struct {
	SDKAppID   int    // 0: DemoSDKAppID
	Identifier string // "": DemoIdentifier
	Key        string // "": DemoKey
	// Rate is the quota in requests per second; further requests within any second
	// are refused as rate_limited. 0: no quota.
	Rate int
	// Latency is how long a request takes, by CallId. nil: no time.
	Latency func(callID string) time.Duration
	// Misbehave makes requests fail by chance. The choice is a pure function of
	// Seed, the CallId and the number of requests for it, not of time or order.
	Misbehave []Chance
	// Seed varies the records and the failures.
	Seed uint64
	// Now is the simulator's clock; nil: time.Now.
	Now func() time.Time
}

// Chance is a fault and how often it happens.
type Chance struct {
	Percent float64 // of all requests
	Fault   Fault
}

// API is the simulator. It is safe for use by many goroutines.
type API struct {
	cfg Config

	mu       sync.Mutex
	key      string
	revoked  map[string]bool
	verified map[string]verdict // by UserSig
	sigs     []string           // UserSigs seen, in order
	urls     []string           // some signed URLs seen

	arrivals arrivals
	granted  []time.Time    // requests within the quota, of the last second
	requests map[string]int // by CallId
	strays   int
	refused  int

	onRequest func(callID string) *Fault // may be nil
	outage    *Fault
	failing   []Fault            // for the next requests
	scripts   map[string][]Fault // for the next requests for a CallId
	never     map[string]bool
	available map[string]time.Time // from when on
}

// New returns a simulator.
func New(cfg Config) *API {
	if cfg.SDKAppID == 0 {
		cfg.SDKAppID = DemoSDKAppID
	}
	if cfg.Identifier == "" {
		cfg.Identifier = DemoIdentifier
	}
	if cfg.Key == "" {
		cfg.Key = DemoKey
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &API{
		cfg:       cfg,
		key:       cfg.Key,
		revoked:   map[string]bool{},
		verified:  map[string]verdict{},
		requests:  map[string]int{},
		scripts:   map[string][]Fault{},
		never:     map[string]bool{fetch.ProbeCallID: true},
		available: map[string]time.Time{},
	}
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	callID, bodyFault := readCallID(r)
	fault := a.decide(r, callID, bodyFault)
	if callID != "" && a.cfg.Latency != nil && !sleep(r, a.cfg.Latency(callID)) {
		return
	}
	fault.serve(a, w, r, callID)
}

// decide counts the request and chooses the response; the zero Fault is the
// record.
func (a *API) decide(r *http.Request, callID string, bodyFault *Fault) Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now() // under the lock, so that arrivals are in order
	a.arrivals.add(now)
	reportArrival(r)
	if r.URL.Path != Path {
		a.strays++
		return Status(http.StatusNotFound)
	}
	a.requests[callID]++
	authFault := a.authenticate(r, now) // also during an outage: it remembers the UserSig

	switch {
	case a.outage != nil:
		return *a.outage
	case authFault != nil:
		return *authFault
	case bodyFault != nil:
		return *bodyFault
	case !a.grant(now):
		a.refused++
		return Named("rate_limited")
	}
	if a.onRequest != nil {
		if f := a.onRequest(callID); f != nil {
			return *f
		}
	}
	if script := a.scripts[callID]; len(script) > 0 {
		a.scripts[callID] = script[1:]
		return script[0]
	}
	if len(a.failing) > 0 {
		f := a.failing[0]
		a.failing = a.failing[1:]
		return f
	}
	if f, ok := a.misbehave(callID, a.requests[callID]); ok {
		return f
	}
	if a.never[callID] || now.Before(a.available[callID]) {
		return Named("record_not_found")
	}
	return Fault{}
}

// grant reports whether the request is within the quota, and counts it if so.
func (a *API) grant(now time.Time) bool {
	if a.cfg.Rate <= 0 {
		return true
	}
	for len(a.granted) > 0 && now.Sub(a.granted[0]) >= time.Second {
		a.granted = a.granted[1:]
	}
	if len(a.granted) >= a.cfg.Rate {
		return false
	}
	a.granted = append(a.granted, now)
	return true
}

func (a *API) misbehave(callID string, nth int) (Fault, bool) {
	if len(a.cfg.Misbehave) == 0 {
		return Fault{}, false
	}
	at := float64(hash(a.cfg.Seed, callID, uint64(nth))%1_000_000) / 10_000 // percent
	for _, c := range a.cfg.Misbehave {
		if at < c.Percent {
			return c.Fault, true
		}
		at -= c.Percent
	}
	return Fault{}, false
}

// Script sets the responses to the next requests for callID, in this order.
// Further calls append.
func (a *API) Script(callID string, faults ...Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.scripts[callID] = append(a.scripts[callID], faults...)
}

// Fail makes the next n requests fail, whatever their CallId. Further calls
// append.
func (a *API) Fail(n int, f Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range n {
		a.failing = append(a.failing, f)
	}
}

// SetOutage makes every request fail until ClearOutage.
func (a *API) SetOutage(f Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.outage = &f
}

// ClearOutage ends the outage that SetOutage began.
func (a *API) ClearOutage() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.outage = nil
}

// OnRequest has f choose the response to every request from now on; nil, from it:
// as without f. f must not use the API.
func (a *API) OnRequest(f func(callID string) *Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.onRequest = f
}

// SetMisbehave replaces Config.Misbehave.
func (a *API) SetMisbehave(chances ...Chance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cfg.Misbehave = chances
}

// Never makes the API have no record of these calls.
func (a *API) Never(callIDs ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range callIDs {
		a.never[id] = true
	}
}

// AvailableAt makes the record of callID available from t on.
func (a *API) AvailableAt(callID string, t time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.available[callID] = t
}

// hash returns evenly distributed bits for a seed, a name and a number.
func hash(seed uint64, name string, n uint64) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	x := h.Sum64() ^ seed*0x9e3779b97f4a7c15 ^ n*0xbf58476d1ce4e5b9
	// The finaliser of SplitMix64; FNV alone gives similar names similar values.
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// sleep waits for d, and reports whether the client is still there.
func sleep(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// Named returns the error code that has this name in fetch's error table. It
// panics on a name that is not in the table.
func Named(name string) Fault { return Code(fetch.CodeByName(name).Code) }
