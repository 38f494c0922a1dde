// Package mailbox hands values over to the one goroutine that owns the state
// they change. Senders never block, so a callback of the Kafka client may send
// while it holds locks of the client.
package mailbox

import (
	"slices"
	"sync"
)

// Signal notifies its owner that something happened. Any number of Sets before the
// owner looks count as one.
type Signal chan struct{}

// NewSignal returns a Signal that is not set.
func NewSignal() Signal { return make(Signal, 1) }

// Set sets the signal. It never blocks.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Mailbox is an unbounded queue from any number of senders to one owner. What
// is sent is bounded by its senders: events in flight, requests, partitions.
type Mailbox[T any] struct {
	ready Signal

	mu    sync.Mutex
	items []T
}

// New returns an empty mailbox.
func New[T any]() *Mailbox[T] { return &Mailbox[T]{ready: NewSignal()} }

// Put appends items for the owner.
func (m *Mailbox[T]) Put(items ...T) {
	m.mu.Lock()
	m.items = append(m.items, items...)
	m.mu.Unlock()
	m.ready.Set()
}

// Ready receives after a Put. An empty Take may follow, when an earlier one
// took the items already.
func (m *Mailbox[T]) Ready() <-chan struct{} { return m.ready }

// Take returns what was put since the last Take, in order.
func (m *Mailbox[T]) Take() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = nil
	return items
}

// Contains reports whether an item for which match is true was put and not taken.
func (m *Mailbox[T]) Contains(match func(T) bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.items, match)
}
