// Package limitertest runs Limiters of several instances against a simulated
// network and API in virtual time, and counts what the API sees. It knows nothing
// of how instances get their shares.
package limitertest

import (
	"container/heap"
	"time"
)

// Start is when simulations begin.
var Start = time.Date(2025, 11, 1, 12, 0, 0, 0, time.UTC)

// Loop is virtual time: a queue of events.
type Loop struct {
	now time.Time
	q   eventQueue
	n   int
}

// NewLoop returns a loop whose time is Start.
func NewLoop() *Loop { return &Loop{now: Start} }

// Now returns the virtual time.
func (l *Loop) Now() time.Time { return l.now }

// Elapsed returns the virtual time since Start.
func (l *Loop) Elapsed() time.Duration { return l.now.Sub(Start) }

// At runs f at t, or next if t has passed.
func (l *Loop) At(t time.Time, f func()) {
	if t.Before(l.now) {
		t = l.now
	}
	l.n++
	heap.Push(&l.q, event{t, l.n, f})
}

// After runs f in d.
func (l *Loop) After(d time.Duration, f func()) { l.At(l.now.Add(d), f) }

// Run runs all events up to d after Start.
func (l *Loop) Run(d time.Duration) {
	until := Start.Add(d)
	for len(l.q) > 0 && !l.q[0].at.After(until) {
		e := heap.Pop(&l.q).(event)
		l.now = e.at
		e.do()
	}
	l.now = until
}

type event struct {
	at time.Time
	n  int // events of one time run in the order in which they were added
	do func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].n < q[j].n
	}
	return q[i].at.Before(q[j].at)
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}
