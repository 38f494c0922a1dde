package replay

import (
	"bytes"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// Record is a record of the dead-letter topic.
type Record struct {
	Position
	State      State
	Raw        *kgo.Record
	DeadLetter *producer.Letter // nil: Foreign
	CallID     string           // "" when the event names none, or is not there
	// EventTime is when the event was sent, or else when it first came.
	EventTime time.Time
}

func newRecord(r *kgo.Record, d *markerSet) *Record {
	e := &Record{Position: Position{r.Partition, r.Offset}, State: Foreign, Raw: r}
	l, ok := producer.ParseLetter(r)
	if !ok {
		return e
	}
	e.DeadLetter, e.State = l, d.state(e.Position)
	e.EventTime = time.UnixMilli(l.OriginalTimestamp)
	if event, err := schemas.ParseEvent(l.Value); err == nil {
		e.CallID = event.CallID
		if event.Time > 0 {
			e.EventTime = time.UnixMilli(event.Time)
		}
	}
	return e
}

// Clone is a copy that shares no memory with what was read along with it: a
// letter that is kept would keep the megabytes around it.
func (e *Record) Clone() *Record {
	c, r := *e, *e.Raw
	r.Key, r.Value, r.Headers = bytes.Clone(r.Key), bytes.Clone(r.Value), slices.Clone(r.Headers)
	for i, h := range r.Headers {
		r.Headers[i].Value = bytes.Clone(h.Value)
	}
	c.Raw = &r
	if c.DeadLetter != nil {
		c.DeadLetter, _ = producer.ParseLetter(&r)
	}
	return &c
}

// Filter picks letters. Every list that is not empty must hold the letter's
// value.
type Filter struct {
	Positions    []Position
	Partitions   []int32 // of the dead-letter topic
	Reasons      []schemas.Reason
	Codes        []int
	CallIDs      []string
	States       []State
	Since, Until time.Time // when the letter was written: from Since to before Until; zero: no bound
	Limit        int       // 0: all
}

// narrow says whether the filter may pick anything in a range of offsets, and
// narrows the range.
func (f *Filter) narrow(partition int32, s offsetRange) (offsetRange, bool) {
	if len(f.Partitions) > 0 && !slices.Contains(f.Partitions, partition) {
		return s, false
	}
	if len(f.Positions) == 0 {
		return s, true
	}
	narrow := offsetRange{s.to, s.from}
	for _, r := range f.Positions {
		if r.Partition == partition && r.Offset >= s.from && r.Offset < s.to {
			narrow.from, narrow.to = min(narrow.from, r.Offset), max(narrow.to, r.Offset+1)
		}
	}
	return narrow, narrow.from < narrow.to
}

func (f *Filter) matches(e *Record) bool {
	if !emptyOrContains(f.Positions, e.Position) || !emptyOrContains(f.States, e.State) || !emptyOrContains(f.CallIDs, e.CallID) {
		return false
	}
	if !f.Since.IsZero() && e.Raw.Timestamp.Before(f.Since) || !f.Until.IsZero() && !e.Raw.Timestamp.Before(f.Until) {
		return false
	}
	if e.DeadLetter == nil {
		return len(f.Reasons) == 0 && len(f.Codes) == 0
	}
	return emptyOrContains(f.Reasons, e.DeadLetter.Reason) && emptyOrContains(f.Codes, e.DeadLetter.Code)
}

func emptyOrContains[T comparable](list []T, v T) bool {
	return len(list) == 0 || slices.Contains(list, v)
}
