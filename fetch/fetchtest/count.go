package fetchtest

import (
	"maps"
	"slices"
	"time"
)

// maxArrivals bounds the number of arrival times that are kept, of 8 bytes each.
const maxArrivals = 4 << 20

// arrivals are the times at which requests arrived, in order.
type arrivals struct {
	total int
	first time.Time
	at    []time.Duration // of the last ones, since first
}

func (l *arrivals) add(t time.Time) {
	if l.total == 0 {
		l.first = t
	}
	l.total++
	if len(l.at) >= 2*maxArrivals {
		l.at = append(l.at[:0], l.at[maxArrivals:]...)
	}
	l.at = append(l.at, t.Sub(l.first))
}

// MaxInAnyWindow returns the largest number of times within any window of this
// length, and when the first such window begins. It is exact over all positions of
// the window: two times a whole window apart are never in the same one. The times
// may be in any order.
func MaxInAnyWindow(times []time.Time, window time.Duration) (most int, from time.Time) {
	times = slices.SortedFunc(slices.Values(times), time.Time.Compare)
	first := 0
	for last, t := range times {
		for t.Sub(times[first]) >= window {
			first++
		}
		if n := last - first + 1; n > most {
			most, from = n, times[first]
		}
	}
	return most, from
}

// MaxInAnyWindow returns the largest number of requests that arrived within any
// window of this length; see the function of this name. Refused requests count,
// too; of more than 4 Mi requests only the last ones do.
func (a *API) MaxInAnyWindow(window time.Duration) int {
	most, _ := MaxInAnyWindow(a.Arrivals(), window)
	return most
}

// Arrivals returns when requests arrived, in order; at least of the last 4 Mi.
func (a *API) Arrivals() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	times := make([]time.Time, len(a.arrivals.at))
	for i, t := range a.arrivals.at {
		times[i] = a.arrivals.first.Add(t)
	}
	return times
}

// Requests returns the number of requests.
func (a *API) Requests() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrivals.total
}

// RequestsByCallID returns the number of requests for each CallId; "" stands for
// requests without one.
func (a *API) RequestsByCallID() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.requests)
}

// RequestsFor returns the number of requests for callID.
func (a *API) RequestsFor(callID string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests[callID]
}

// UniqueCallIDs returns the number of distinct CallIds in requests.
func (a *API) UniqueCallIDs() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.requests)
	if _, nameless := a.requests[""]; nameless {
		n--
	}
	return n
}

// RequestsPerCallID returns requests divided by distinct CallIds; 0 without
// requests.
func (a *API) RequestsPerCallID() float64 {
	unique := a.UniqueCallIDs()
	if unique == 0 {
		return 0
	}
	return float64(a.Requests()) / float64(unique)
}

// OverQuota returns the number of requests that were refused as over the quota.
func (a *API) OverQuota() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// Strays returns the number of requests for another path than Path, such as a
// followed redirect would send.
func (a *API) Strays() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.strays
}
