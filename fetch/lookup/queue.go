package lookup

import (
	"container/heap"
	"time"
)

// queue holds the calls that wait for a request, in two heaps that take turns.
// In one heap, the repeats would wait behind a whole backlog, or a backlog
// behind the repeats; here each has at least half of the rate.
type queue struct {
	first callHeap // not requested yet, by the event's time plus the lookup delay
	again callHeap // requested before, by when they are due
	turn  bool     // it is again's turn
}

// push adds a call that is in neither heap.
func (q *queue) push(c *call) { heap.Push(q.heapOf(c), c) }

// remove takes a call out.
func (q *queue) remove(c *call) { heap.Remove(q.heapOf(c), c.index) }

// move changes when a call is due.
func (q *queue) move(c *call, due time.Time) {
	c.due = due
	heap.Fix(q.heapOf(c), c.index)
}

func (q *queue) heapOf(c *call) *callHeap {
	if c.requested {
		return &q.again
	}
	return &q.first
}

// next returns the call whose turn it is, or nil and how long it is until one is
// due.
func (q *queue) next(now time.Time) (*call, time.Duration) {
	first, waitFirst := q.first.due(now)
	again, waitAgain := q.again.due(now)
	switch {
	case again != nil && (first == nil || q.turn):
		return again, 0
	case first != nil:
		return first, 0
	}
	return nil, min(waitFirst, waitAgain)
}

// take removes the call that next returned, whose request begins.
func (q *queue) take(c *call) {
	q.remove(c)
	q.turn = !c.requested
	c.requested = true
}

// callHeap is a heap of calls by when they are due.
type callHeap []*call

// due returns the first call if it is due, or how long it is until it will be.
func (h callHeap) due(now time.Time) (*call, time.Duration) {
	switch {
	case len(h) == 0:
		return nil, idleWait
	case h[0].due.After(now):
		return nil, h[0].due.Sub(now)
	}
	return h[0], 0
}

func (h callHeap) Len() int           { return len(h) }
func (h callHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h callHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *callHeap) Push(x any) {
	c := x.(*call)
	c.index = len(*h)
	*h = append(*h, c)
}

// Pop implements heap.Interface.
func (h *callHeap) Pop() any {
	old := *h
	n := len(old) - 1
	c := old[n]
	old[n] = nil
	*h = old[:n]
	c.index = notQueued
	return c
}
