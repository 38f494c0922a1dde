package main

import "sync"

// active holds the faults of one type that last now. The zero value has none. It is
// safe for concurrent use.
type active[T any] struct {
	mu     sync.Mutex
	faults map[int][]T // by the call of add
	next   int
}

// add begins faults, and end ends them.
func (a *active[T]) add(faults ...T) (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.faults == nil {
		a.faults = make(map[int][]T)
	}
	n := a.next
	a.next++
	a.faults[n] = faults
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.faults, n)
	}
}

func (a *active[T]) all() []T {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []T
	for _, f := range a.faults {
		all = append(all, f...)
	}
	return all
}
