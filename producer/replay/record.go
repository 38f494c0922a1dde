package replay

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
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

// headerPrefix is what all headers begin with that this program adds to an event.
const headerPrefix = "enricher."

// Event is the event of a letter as it goes back: key, value and headers as it
// came, without any header of ours but two: when it first came, and how often
// it was replayed, this time included. It carries the time of its replay.
func (e *Record) Event(to string) *kgo.Record {
	l := e.DeadLetter
	if to == "" {
		to = l.Topic
	}
	r := &kgo.Record{Topic: to, Key: l.Key, Value: l.Value}
	for _, h := range l.Headers {
		if !strings.HasPrefix(h.Key, headerPrefix) {
			r.Headers = append(r.Headers, h)
		}
	}
	r.Headers = append(r.Headers,
		kgo.RecordHeader{Key: schemas.HeaderOriginalTimestamp, Value: strconv.AppendInt(nil, l.OriginalTimestamp, 10)},
		kgo.RecordHeader{Key: schemas.HeaderReplays, Value: strconv.AppendInt(nil, int64(l.Replays)+1, 10)})
	return r
}
