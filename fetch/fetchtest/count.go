package fetchtest

import (
	"maps"
	"time"
)

// maxArrivals bounds the memory of arrival times: 8 bytes each.
const maxArrivals = 4 << 20

// arrivals are the times requests came in, in order.
type arrivals struct {
	total int
	first time.Time
	at    []time.Duration // since first; the last ones
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

// most is the largest number of arrivals within any span that is shorter than
// window.
func (l *arrivals) most(window time.Duration) int {
	most, first := 0, 0
	for last, t := range l.at {
		for t-l.at[first] >= window {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// MaxInAnyWindow is the largest number of requests that arrived within any
// window of this length: exactly, over every position the window can have, not
// over buckets. Two requests a whole window apart are not in the same one. All
// requests count, refused ones too; beyond 4 Mi requests only the last ones do.
func (a *API) MaxInAnyWindow(window time.Duration) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrivals.most(window)
}

// Arrivals lists when requests arrived, in order; at most the last 4 Mi or so.
func (a *API) Arrivals() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	times := make([]time.Time, len(a.arrivals.at))
	for i, t := range a.arrivals.at {
		times[i] = a.arrivals.first.Add(t)
	}
	return times
}

// Requests is how many requests arrived.
func (a *API) Requests() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrivals.total
}

// RequestsByCallID is how many requests arrived for each CallId; "" stands for
// requests that named none.
func (a *API) RequestsByCallID() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.asked)
}

// RequestsFor is how many requests arrived for callID.
func (a *API) RequestsFor(callID string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[callID]
}

// UniqueCallIDs is how many different CallIds were asked for.
func (a *API) UniqueCallIDs() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.asked)
	if _, nameless := a.asked[""]; nameless {
		n--
	}
	return n
}

// RequestsPerCallID is requests divided by different CallIds; 0 when there were
// none.
func (a *API) RequestsPerCallID() float64 {
	unique := a.UniqueCallIDs()
	if unique == 0 {
		return 0
	}
	return float64(a.Requests()) / float64(unique)
}

// OverQuota is how many requests the quota refused.
func (a *API) OverQuota() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// Strays is how many requests came for another path than Path, as a followed
// redirect would.
func (a *API) Strays() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stray
}
