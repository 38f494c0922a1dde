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
	DeadLetter *producer.DeadLetter // nil if State is Foreign
	CallID     string               // "" if the event is omitted or names none
	// EventTime is the time in the event, or else when the event was first produced.
	EventTime time.Time
}

func newRecord(raw *kgo.Record, markers *markerSet) *Record {
	r := &Record{Position: Position{raw.Partition, raw.Offset}, State: Foreign, Raw: raw}
	l, ok := producer.ParseDeadLetter(raw)
	if !ok {
		return r
	}
	r.DeadLetter, r.State = l, markers.state(r.Position)
	r.EventTime = time.UnixMilli(l.OriginalTimestamp)
	if event, err := schemas.ParseEvent(l.Value); err == nil {
		r.CallID = event.CallID
		if event.Time > 0 {
			r.EventTime = time.UnixMilli(event.Time)
		}
	}
	return r
}

// Clone returns a copy that shares no memory with r. A record that is kept without
// cloning it keeps the whole fetch, megabytes, in memory.
func (r *Record) Clone() *Record {
	c, raw := *r, *r.Raw
	raw.Key, raw.Value, raw.Headers = bytes.Clone(raw.Key), bytes.Clone(raw.Value), slices.Clone(raw.Headers)
	for i, h := range raw.Headers {
		raw.Headers[i].Value = bytes.Clone(h.Value)
	}
	c.Raw = &raw
	if c.DeadLetter != nil {
		c.DeadLetter, _ = producer.ParseDeadLetter(&raw)
	}
	return &c
}

// headerPrefix starts the name of every header that enricher adds to an event.
const headerPrefix = "enricher."

// Event returns the original event, to be produced to a topic again ("": the one
// it came from): its key, value and headers, without headers of enricher except
// two, when the event was first produced and how many times it has been replayed,
// this one included. Its timestamp will be that of the replay.
func (r *Record) Event(to string) *kgo.Record {
	l := r.DeadLetter
	if to == "" {
		to = l.Topic
	}
	event := &kgo.Record{Topic: to, Key: l.Key, Value: l.Value}
	for _, h := range l.Headers {
		if !strings.HasPrefix(h.Key, headerPrefix) {
			event.Headers = append(event.Headers, h)
		}
	}
	event.Headers = append(event.Headers,
		kgo.RecordHeader{Key: schemas.HeaderOriginalTimestamp, Value: strconv.AppendInt(nil, l.OriginalTimestamp, 10)},
		kgo.RecordHeader{Key: schemas.HeaderReplays, Value: strconv.AppendInt(nil, int64(l.Replays)+1, 10)})
	return event
}
