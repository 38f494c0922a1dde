// Package fetchtest simulates the call-record API as an http.Handler. It
// verifies every request as strictly as the API does (path, method, query,
// UserSig, body), enforces a quota, counts what arrives, and misbehaves on
// demand.
//
// It is for tests and for the demo. It does not imitate what the program does
// not rely on: no other commands, no accounts, no billing. Nothing but tests and
// the demo may import it.
package fetchtest

import (
	"hash/fnv"
	"net/http"
	"sync"
	"time"

	"enricher/fetch"
)

// Path is where the simulator serves its one command.
const Path = "/v4/call_record_http_srv/get_record_by_callid"

// Values that any test may use. The key is the one Tencent publishes for its own
// demos; it opens nothing.
const (
	DemoSDKAppID   = 1400000000
	DemoIdentifier = "administrator"
	DemoKey        = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
)

// Config says what the simulator expects and how fast it answers. The zero value
// is a server for the Demo constants without quota and latency.
type Config struct {
	SDKAppID   int    // 0: DemoSDKAppID
	Identifier string // "": DemoIdentifier
	Key        string // "": DemoKey
	// Rate is the quota: requests answered in any second; further ones are
	// refused as rate limited. 0: none.
	Rate int
	// Latency is how long a request takes, by CallId. nil: no time.
	Latency func(callID string) time.Duration
	// Misbehave makes the simulator fail by chance, each request on its own.
	// The choice is a pure function of Seed, the CallId and how often it was
	// asked for, not of time or order.
	Misbehave []Chance
	// Seed varies the records and the misbehaviour.
	Seed uint64
	// Now is the simulator's clock; nil: time.Now.
	Now func() time.Time
}

// Chance is one kind of misbehaviour and how often it happens.
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
	granted  []time.Time    // answered under the quota within the last second
	asked    map[string]int // requests by CallId
	stray    int
	refused  int

	outage  *Fault
	failing []Fault            // for the next requests, whoever asks
	scripts map[string][]Fault // for the next requests of a CallId
	never   map[string]bool
	from    map[string]time.Time
}

// New makes a simulator.
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
		cfg:      cfg,
		key:      cfg.Key,
		revoked:  map[string]bool{},
		verified: map[string]verdict{},
		asked:    map[string]int{},
		scripts:  map[string][]Fault{},
		never:    map[string]bool{fetch.ProbeCallID: true},
		from:     map[string]time.Time{},
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

// decide takes the request down and chooses the answer; the zero Fault is the
// record.
func (a *API) decide(r *http.Request, callID string, bodyFault *Fault) Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now() // under the lock, so that arrivals are in order
	a.arrivals.add(now)
	if r.URL.Path != Path {
		a.stray++
		return Status(http.StatusNotFound)
	}
	a.asked[callID]++
	authFault := a.authenticate(r, now) // also when there is an outage: it notes the UserSig

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
	if script := a.scripts[callID]; len(script) > 0 {
		a.scripts[callID] = script[1:]
		return script[0]
	}
	if len(a.failing) > 0 {
		f := a.failing[0]
		a.failing = a.failing[1:]
		return f
	}
	if f, ok := a.misbehave(callID, a.asked[callID]); ok {
		return f
	}
	if a.never[callID] || now.Before(a.from[callID]) {
		return Named("record_not_found")
	}
	return Fault{}
}

// grant takes one of the quota's places if one is free.
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

// Script makes the next requests for callID fail in this order. Further calls
// append.
func (a *API) Script(callID string, faults ...Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.scripts[callID] = append(a.scripts[callID], faults...)
}

// Fail makes the next n requests fail, whichever CallId they ask for. Further
// calls append.
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

// ClearOutage ends what SetOutage began.
func (a *API) ClearOutage() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.outage = nil
}

// Never makes the API have no record of these calls, ever.
func (a *API) Never(callIDs ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range callIDs {
		a.never[id] = true
	}
}

// AvailableAt makes the record of callID readable from t on.
func (a *API) AvailableAt(callID string, t time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.from[callID] = t
}

// hash mixes a seed, a name and a number into evenly spread bits.
func hash(seed uint64, name string, n uint64) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	x := h.Sum64() ^ seed*0x9e3779b97f4a7c15 ^ n*0xbf58476d1ce4e5b9
	// The finaliser of SplitMix64; FNV alone leaves neighbours alike.
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// sleep waits d; false when the client gave up meanwhile.
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

// Named is the fault of answering with the error code that fetch's table calls
// name; it panics on a name that is not there.
func Named(name string) Fault { return Code(fetch.CodeByName(name).Code) }
