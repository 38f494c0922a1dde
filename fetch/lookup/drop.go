package lookup

import "slices"

// Drop forgets the events of these assignments. Requests in flight for them
// still fill the cache.
func (s *Scheduler) Drop(assignments ...uint64) { s.inbox.Put(message{drop: assignments}) }

// DrainAssignments forgets the events of these assignments for which no request is
// in flight, and starts none for them. It closes the channel when none is in
// flight any more and their outcomes are in Outcomes.
func (s *Scheduler) DrainAssignments(assignments ...uint64) <-chan struct{} {
	d := &assignmentDrain{ids: setOf(assignments), calls: make(map[*call]struct{}), done: make(chan struct{})}
	s.inbox.Put(message{drainAssignments: d})
	return d.done
}

// assignmentDrain is a DrainAssignments.
type assignmentDrain struct {
	ids   map[uint64]struct{}
	calls map[*call]struct{} // that have a request in flight
	done  chan struct{}
}

// startDrain begins a DrainAssignments.
func (s *Scheduler) startDrain(d *assignmentDrain) {
	for _, c := range s.calls {
		if s.isInFlight(c) && c.waitsFor(d.ids) {
			d.calls[c] = struct{}{}
		} else {
			s.forgetWaiters(c, d.ids)
		}
	}
	s.drains = append(s.drains, d)
	s.continueDrains(nil)
}

// continueDrains is called when the request of a call has ended: events that would
// wait for another one are forgotten.
func (s *Scheduler) continueDrains(c *call) {
	s.drains = slices.DeleteFunc(s.drains, func(d *assignmentDrain) bool {
		if _, ok := d.calls[c]; ok {
			s.forgetWaiters(c, d.ids)
			delete(d.calls, c)
		}
		if len(d.calls) > 0 {
			return false
		}
		close(d.done)
		return true
	})
}

// waitsFor reports whether an event of one of the assignments waits for the call.
func (c *call) waitsFor(assignments map[uint64]struct{}) bool {
	return slices.ContainsFunc(c.waiters, func(w waiter) bool {
		_, ok := assignments[w.event.Assignment]
		return ok
	})
}

// forget drops the events of assignments, and the calls for which no other
// event waits.
func (s *Scheduler) forget(assignments map[uint64]struct{}) {
	for _, c := range s.calls {
		s.forgetWaiters(c, assignments)
	}
}

// forgetWaiters is forget for one call.
func (s *Scheduler) forgetWaiters(c *call, assignments map[uint64]struct{}) {
	kept := c.waiters[:0]
	for _, w := range c.waiters {
		if _, gone := assignments[w.event.Assignment]; !gone {
			kept = append(kept, w)
		}
	}
	s.events -= len(c.waiters) - len(kept)
	if s.isInFlight(c) {
		s.lookingUp -= len(c.waiters) - len(kept)
	}
	clear(c.waiters[len(kept):])
	c.waiters = kept
	if len(kept) > 0 || s.isInFlight(c) {
		return
	}
	if c.index != notQueued {
		s.queue.remove(c)
	}
	delete(s.withheld, c)
	delete(s.calls, c.id)
}

func setOf(assignments []uint64) map[uint64]struct{} {
	set := make(map[uint64]struct{}, len(assignments))
	for _, a := range assignments {
		set[a] = struct{}{}
	}
	return set
}
