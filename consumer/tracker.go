package consumer

import (
	"cmp"
	"fmt"
	"slices"
)

// tracker knows of one partition, in one incarnation of its assignment, which
// offsets are done. It is pure: no client, no clock, no lock.
//
// Every offset below head is either pending or done; base is the lowest
// pending offset at the last commit, and nothing below it is pending. Offsets
// that were never delivered (transaction markers, compaction) count as done.
type tracker struct {
	base    int64     // as committed; -1: the group has none and nothing was polled
	head    int64     // next offset to admit
	pending []pending // ascending, in [base, head)
	bytes   int64     // of all that is pending
	ahead   []run     // done at or above head, from the committed metadata
}

// pending is an event that was admitted and is not done.
type pending struct {
	offset int64
	at     int64 // its Kafka timestamp, in ms since 1970
	bytes  int64
}

func newTracker(p progress) *tracker {
	return &tracker{base: p.base, head: p.base, ahead: p.ahead}
}

// admit takes in a polled offset and says whether its event has still to be
// handled: false for one that is pending already or done. at is the event's
// timestamp in ms since 1970, bytes its size.
func (t *tracker) admit(o, at, bytes int64) bool {
	if t.base < 0 {
		t.base, t.head = o, o
	}
	if o < t.head {
		return false
	}
	t.head = o + 1
	done := false
	for len(t.ahead) > 0 && t.ahead[0].from <= o {
		if t.ahead[0].to > o {
			done = true
			t.ahead[0].from = o + 1
			if t.ahead[0].from < t.ahead[0].to {
				break
			}
		}
		t.ahead = t.ahead[1:]
	}
	if !done {
		t.pending = append(t.pending, pending{o, at, bytes})
		t.bytes += bytes
	}
	return !done
}

// isPending says whether offset o was admitted and is not done.
func (t *tracker) isPending(o int64) bool {
	_, ok := slices.BinarySearchFunc(t.pending, o, func(p pending, o int64) int { return cmp.Compare(p.offset, o) })
	return ok
}

// unhandled is how many offsets from head up to o are not known to be done.
func (t *tracker) unhandled(o int64) int64 {
	n := max(0, o-t.head)
	for _, r := range t.ahead {
		n -= max(0, min(r.to, o)-r.from)
	}
	return n
}

// after is the progress to commit when the offsets in finished (ascending, all
// of them pending) are done too.
func (t *tracker) after(finished []int64) progress {
	p := progress{base: -1}
	next := t.base // everything from here to the next offset that stays is done
	for _, e := range t.pending {
		o := e.offset
		if len(finished) > 0 && finished[0] == o {
			finished = finished[1:]
			continue
		}
		if p.base < 0 {
			p.base = o
		} else if next < o {
			p.ahead = append(p.ahead, run{next, o})
		}
		next = o + 1
	}
	rest := t.ahead
	if p.base < 0 {
		p.base = t.head
		if len(rest) > 0 && rest[0].from == t.head {
			p.base, rest = rest[0].to, rest[1:]
		}
	} else if next < t.head {
		tail := run{next, t.head}
		if len(rest) > 0 && rest[0].from == t.head {
			tail.to, rest = rest[0].to, rest[1:]
		}
		p.ahead = append(p.ahead, tail)
	}
	p.ahead = append(p.ahead, rest...)
	return p
}

// commit marks finished as done, once after(finished) = p is known to be committed.
func (t *tracker) commit(finished []int64, p progress) {
	t.pending = slices.DeleteFunc(t.pending, func(e pending) bool {
		if len(finished) > 0 && finished[0] == e.offset {
			finished = finished[1:]
			t.bytes -= e.bytes
			return true
		}
		return false
	})
	t.moveTo(p)
}

// fold takes over what the broker says is committed, after an end whose result
// is not known, and returns how many pending events turn out to be done.
func (t *tracker) fold(p progress) (done int, err error) {
	if p.base < t.base {
		return 0, fmt.Errorf("committed offset %d is below %d, which was committed before", p.base, t.base)
	}
	if t.base < 0 { // nothing was polled
		*t = *newTracker(p)
		return 0, nil
	}
	ahead := p.ahead
	t.pending = slices.DeleteFunc(t.pending, func(e pending) bool {
		o := e.offset
		for len(ahead) > 0 && ahead[0].to <= o {
			ahead = ahead[1:]
		}
		if o < p.base || len(ahead) > 0 && ahead[0].from <= o {
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
func (t *tracker) moveTo(p progress) {
	t.base = p.base
	t.head = max(t.head, p.base)
	t.ahead = nil
	for _, r := range p.ahead {
		if r.to > t.head {
			t.ahead = append(t.ahead, run{max(r.from, t.head), r.to})
		}
	}
}
