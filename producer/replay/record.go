package replay

import (
	"bytes"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/fetch/lookup"
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
	// EventTime is the time in the event, or else when the event was first produced;
	// when the dead letter was written, if neither is a time.
	EventTime time.Time
}

func newRecord(raw *kgo.Record, markers *markerSet) *Record {
	r := &Record{Position: Position{raw.Partition, raw.Offset}, State: Foreign, Raw: raw}
	l, ok := producer.ParseDeadLetter(raw)
	if !ok {
		return r
	}
	r.DeadLetter, r.State = l, markers.state(r.Position)
	event, _ := schemas.ParseEvent(l.Value)
	r.CallID = event.CallID
	r.EventTime = lookup.EventTime(raw.Timestamp, event.Time, l.OriginalTimestamp)
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

// Event returns the original event, to be produced to a topic again ("": the one
// it came from): its key, value and headers, and those of a replay. Its timestamp
// will be that of the replay.
func (r *Record) Event(to string) *kgo.Record {
	l := r.DeadLetter
	if to == "" {
		to = l.Topic
	}
	own, _, _ := producer.SplitReplayHeaders(&kgo.Record{Headers: l.Headers})
	return &kgo.Record{Topic: to, Key: l.Key, Value: l.Value, Headers: producer.ReplayHeaders(own, l.OriginalTimestamp, l.Replays+1)}
}
