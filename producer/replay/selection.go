package replay

import (
	"bytes"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// Entry is a record of the dead-letter topic.
type Entry struct {
	Ref
	State  State
	Record *kgo.Record
	Letter *producer.DeadLetter // nil: Foreign
	CallID string               // "" when the event names none, or is not there
	// EventTime is when the event was sent, or else when it first came.
	EventTime time.Time
}

func newEntry(r *kgo.Record, d *done) *Entry {
	e := &Entry{Ref: Ref{r.Partition, r.Offset}, State: Foreign, Record: r}
	l, ok := producer.ParseDeadLetter(r)
	if !ok {
		return e
	}
	e.Letter, e.State = l, d.state(e.Ref)
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
func (e *Entry) Clone() *Entry {
	c, r := *e, *e.Record
	r.Key, r.Value, r.Headers = bytes.Clone(r.Key), bytes.Clone(r.Value), slices.Clone(r.Headers)
	for i, h := range r.Headers {
		r.Headers[i].Value = bytes.Clone(h.Value)
	}
	c.Record = &r
	if c.Letter != nil {
		c.Letter, _ = producer.ParseDeadLetter(&r)
	}
	return &c
}

// Filter picks letters. Every list that is not empty must hold the letter's
// value.
type Filter struct {
	Letters      []Ref
	Partitions   []int32 // of the dead-letter topic
	Reasons      []schemas.Reason
	Codes        []int
	CallIDs      []string
	States       []State
	Since, Until time.Time // when the letter was written: from Since to before Until; zero: no bound
	Limit        int       // 0: all
}

// reads says whether the filter may pick anything in a range of offsets, and
// narrows the range.
func (f *Filter) reads(partition int32, s span) (span, bool) {
	if len(f.Partitions) > 0 && !slices.Contains(f.Partitions, partition) {
		return s, false
	}
	if len(f.Letters) == 0 {
		return s, true
	}
	narrow := span{s.to, s.from}
	for _, r := range f.Letters {
		if r.Partition == partition && r.Offset >= s.from && r.Offset < s.to {
			narrow.from, narrow.to = min(narrow.from, r.Offset), max(narrow.to, r.Offset+1)
		}
	}
	return narrow, narrow.from < narrow.to
}

func (f *Filter) picks(e *Entry) bool {
	if !holds(f.Letters, e.Ref) || !holds(f.States, e.State) || !holds(f.CallIDs, e.CallID) {
		return false
	}
	if !f.Since.IsZero() && e.Record.Timestamp.Before(f.Since) || !f.Until.IsZero() && !e.Record.Timestamp.Before(f.Until) {
		return false
	}
	if e.Letter == nil {
		return len(f.Reasons) == 0 && len(f.Codes) == 0
	}
	return holds(f.Reasons, e.Letter.Reason) && holds(f.Codes, e.Letter.Code)
}

func holds[T comparable](list []T, v T) bool { return len(list) == 0 || slices.Contains(list, v) }
