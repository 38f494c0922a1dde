package consumer

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// CheckEveryTurn has every consumer check after each turn of its loop that what
// account has kept up to date is what a walk over all partitions finds. The tests
// with their faults are the operations of this property test.
func CheckEveryTurn() {
	afterTurn = func(c *conductor) {
		n, _ := turns.LoadOrStore(c.Consumer, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		if err := c.checkTotals(); err != nil {
			panic(err)
		}
	}
}

var turns sync.Map // *Consumer to *atomic.Int64

// Turns returns how often the loop of a consumer has turned.
func Turns(c *Consumer) int64 {
	n, ok := turns.Load(c)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

// checkTotals compares what account derives from the partitions with a walk over
// them.
func (c *conductor) checkTotals() error {
	var want totals
	waiting := 0
	queue := make(map[*partition]int)
	for _, p := range c.queue {
		if queue[p]++; c.lost(p) && queue[p] > 1 {
			return fmt.Errorf("%v was lost and put into the queue again", p.topicPartition)
		}
	}
	for tp, p := range c.parts {
		var all load
		for _, e := range p.tracker.pending {
			all = all.plus(load{1, e.bytes})
		}
		want.inFlight = want.inFlight.plus(all)
		want.shared = want.shared.plus(p.notCompleted().beyond(c.reserved))
		toCommit := p.commitProgress
		if p.noRoomUntil.IsZero() {
			want.completed += len(p.completed)
			toCommit = toCommit || len(p.completed) > 0
		}
		if p.commitProgress && p.blocked == nil {
			want.progress++
		}
		if toCommit && queue[p] != 1 || queue[p] > 1 || p.queued != (queue[p] == 1) {
			return fmt.Errorf("%v is in the queue %d times; queued %v, to commit %v", tp, queue[p], p.queued, toCommit)
		}
		if p.blocked != nil || len(p.refused) > 0 || !p.noRoomUntil.IsZero() || p.overShare {
			waiting++
			if _, ok := c.waiting[p]; !ok {
				return fmt.Errorf("%v waits, but not in the set", tp)
			}
		}
		if p.committing != 0 {
			return fmt.Errorf("%v is in a transaction after its end", tp)
		}
	}
	switch {
	case c.totals != want:
		return fmt.Errorf("totals are %+v, a walk finds %+v", c.totals, want)
	case len(c.waiting) != waiting:
		return fmt.Errorf("%d partitions wait in the set, %d in a walk", len(c.waiting), waiting)
	case c.totals.completed > 0 && c.completedSince.IsZero():
		return fmt.Errorf("%d outcomes wait without a time", c.totals.completed)
	}
	return nil
}
