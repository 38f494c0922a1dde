package consumer

import (
	"cmp"
	"fmt"
	"slices"

	"enricher/consumer/progress"
)

// tracker records, for one assignment of a partition, which offsets are
// completed. It is pure: no client, no clock, no lock.
//
// Every offset below head is either pending or completed; base is the lowest
// pending offset at the last commit, and nothing below it is pending. Offsets
// that are never delivered (transaction markers, compaction) count as completed.
type tracker struct {
	base    int64            // as committed; -1: the group has none and nothing was polled
	head    int64            // next offset to add
	pending []pending        // ascending, in [base, head)
	bytes   int64            // of all that is pending
	ahead   []progress.Range // completed at or above head, from the committed metadata
}

// pending is an event that was added and is not completed.
type pending struct {
	offset int64
	at     int64 // the event's own time, in ms since 1970
	bytes  int64
}

func newTracker(p progress.Progress) *tracker {
	return &tracker{base: p.Base, head: p.Base, ahead: p.Ahead}
}

// add takes in a polled offset and reports whether its event has still to be
// processed: false for one that is pending already or completed. bytes is its size.
func (t *tracker) add(o, bytes int64) bool {
	if !t.pass(o) {
		return false
	}
	t.pending = append(t.pending, pending{offset: o, bytes: bytes})
	t.bytes += bytes
	return true
}

// setTime sets the time, in ms since 1970, of the event added last.
func (t *tracker) setTime(at int64) { t.pending[len(t.pending)-1].at = at }

// pass takes in a polled offset that needs no processing, such as a transaction
// marker. It reports whether the offset was neither pending nor completed.
func (t *tracker) pass(o int64) bool {
	if t.base < 0 {
		t.base, t.head = o, o
	}
	if o < t.head {
		return false
	}
	t.head = o + 1
	done := false
	for len(t.ahead) > 0 && t.ahead[0].From <= o {
		if t.ahead[0].To > o {
			done = true
			t.ahead[0].From = o + 1
			if t.ahead[0].From < t.ahead[0].To {
				break
			}
		}
		t.ahead = t.ahead[1:]
	}
	return !done
}

// withdraw undoes the last add, of offset o, which returned true.
func (t *tracker) withdraw(o int64) {
	last := len(t.pending) - 1
	t.bytes -= t.pending[last].bytes
	t.pending = t.pending[:last]
	t.head = o
}

// isPending reports whether offset o was added and is not completed.
func (t *tracker) isPending(o int64) bool {
	_, ok := slices.BinarySearchFunc(t.pending, o, func(p pending, o int64) int { return cmp.Compare(p.offset, o) })
	return ok
}

// passedAll reports whether everything below head is completed, and part of it is
// not committed: transaction markers have no outcome to commit.
func (t *tracker) passedAll() bool { return t.base >= 0 && t.base < t.head && len(t.pending) == 0 }

// unread returns how many offsets from start to end are still to be added, as far
// as is known.
func (t *tracker) unread(start, end int64) int64 {
	return progress.Progress{Base: t.head, Ahead: t.ahead}.Left(start, end)
}

// after returns the progress to commit when the offsets in completed (ascending,
// all of them pending) are completed too.
func (t *tracker) after(completed []int64) progress.Progress {
	p := progress.Progress{Base: -1}
	next := t.base // everything from here to the next offset that stays is completed
	for _, e := range t.pending {
		o := e.offset
		if len(completed) > 0 && completed[0] == o {
			completed = completed[1:]
			continue
		}
		if p.Base < 0 {
			p.Base = o
		} else if next < o {
			p.Ahead = append(p.Ahead, progress.Range{From: next, To: o})
		}
		next = o + 1
	}
	rest := t.ahead
	if p.Base < 0 {
		p.Base = t.head
		if len(rest) > 0 && rest[0].From == t.head {
			p.Base, rest = rest[0].To, rest[1:]
		}
	} else if next < t.head {
		tail := progress.Range{From: next, To: t.head}
		if len(rest) > 0 && rest[0].From == t.head {
			tail.To, rest = rest[0].To, rest[1:]
		}
		p.Ahead = append(p.Ahead, tail)
	}
	p.Ahead = append(p.Ahead, rest...)
	return p
}

// commit removes the completed offsets, once after(completed) = p is committed.
func (t *tracker) commit(completed []int64, p progress.Progress) {
	t.pending = slices.DeleteFunc(t.pending, func(e pending) bool {
		if len(completed) > 0 && completed[0] == e.offset {
			completed = completed[1:]
			t.bytes -= e.bytes
			return true
		}
		return false
	})
	t.moveTo(p)
}

// applyCommitted takes over what the broker reports as committed, after a
// transaction whose result is not known, and returns how many pending events
// turn out to be completed.
func (t *tracker) applyCommitted(p progress.Progress) (done int, err error) {
	if p.Base < t.base {
		return 0, fmt.Errorf("committed offset %d is below %d, which was committed before", p.Base, t.base)
	}
	if t.base < 0 { // nothing was polled
		*t = *newTracker(p)
		return 0, nil
	}
	ahead := p.Ahead
	t.pending = slices.DeleteFunc(t.pending, func(e pending) bool {
		o := e.offset
		for len(ahead) > 0 && ahead[0].To <= o {
			ahead = ahead[1:]
		}
		if o < p.Base || len(ahead) > 0 && ahead[0].From <= o {
			t.bytes -= e.bytes
			done++
			return true
		}
		return false
	})
	t.moveTo(p)
	return done, nil
}

// moveTo sets base, and ahead to what p has above head.
func (t *tracker) moveTo(p progress.Progress) {
	t.base = p.Base
	t.head = max(t.head, p.Base)
	t.ahead = nil
	for _, r := range p.Ahead {
		if r.To > t.head {
			t.ahead = append(t.ahead, progress.Range{From: max(r.From, t.head), To: r.To})
		}
	}
}
