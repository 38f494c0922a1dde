package replay

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Position identifies a record of the dead-letter topic.
type Position struct {
	Partition int32
	Offset    int64
}

// String returns partition:offset.
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Partition, p.Offset) }

// ParsePosition is the inverse of String.
func ParsePosition(s string) (Position, error) {
	p, o, _ := strings.Cut(s, ":")
	partition, err := strconv.ParseInt(p, 10, 32)
	offset, offsetErr := strconv.ParseInt(o, 10, 64)
	if err != nil || offsetErr != nil || partition < 0 || offset < 0 {
		return Position{}, fmt.Errorf("invalid position %q: use partition:offset, for example 0:17", s)
	}
	return Position{int32(partition), offset}, nil
}

// State is the state of a record of the dead-letter topic.
type State string

const (
	Open      State = "open"      // a dead letter without a marker
	Replayed  State = "replayed"  // its event was produced again
	Discarded State = "discarded" // closed without a replay
	Foreign   State = "foreign"   // not written by enricher
)

// Marker is the value of a record of the journal. The record's key names the dead
// letter.
type Marker struct {
	Action State     `json:"action"` // Replayed, Discarded or Open
	At     time.Time `json:"at"`
	To     string    `json:"to,omitempty"` // topic the event was replayed to
	By     string    `json:"by,omitempty"`
	Note   string    `json:"because,omitempty"`
	// Corrected says that another value was sent than that of the event, which was
	// Original. A header has it, byte for byte: in the JSON it might make the record
	// larger than that of the dead letter, and so larger than its topic accepts.
	Corrected bool   `json:"corrected,omitempty"`
	Original  []byte `json:"-"`
}

// headerOriginal is the header of Marker.Original.
const headerOriginal = "original"

// markerKey names a dead letter by its topic's id, so that the markers of a
// deleted topic do not apply to a new one of the same name.
func markerKey(topic [16]byte, pos Position) []byte {
	return fmt.Appendf(nil, "%s:%v", base64.RawURLEncoding.EncodeToString(topic[:]), pos)
}

func parseMarkerKey(key []byte) (topic [16]byte, pos Position, err error) {
	id, rest, _ := strings.Cut(string(key), ":")
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err == nil && len(b) != len(topic) {
		err = fmt.Errorf("topic id of %d bytes, want %d", len(b), len(topic))
	}
	if err != nil {
		return topic, pos, err
	}
	pos, err = ParsePosition(rest)
	return [16]byte(b), pos, err
}

func (m *Marker) record(journal string, topic [16]byte, pos Position) (*kgo.Record, error) {
	value, err := json.Marshal(m)
	if err != nil {
		return nil, err // a time after the year 9999
	}
	r := &kgo.Record{Topic: journal, Key: markerKey(topic, pos), Value: value}
	if m.Corrected {
		r.Headers = []kgo.RecordHeader{{Key: headerOriginal, Value: m.Original}}
	}
	return r, nil
}

// parseMarker parses a record of the journal. The Marker is nil for a tombstone,
// which reopens the dead letter.
func parseMarker(r *kgo.Record) (topic [16]byte, pos Position, m *Marker, err error) {
	topic, pos, err = parseMarkerKey(r.Key)
	if err != nil || r.Value == nil {
		return topic, pos, nil, err
	}
	m = &Marker{}
	if err := json.Unmarshal(r.Value, m); err != nil {
		return topic, pos, nil, err
	}
	if m.Action != Replayed && m.Action != Discarded && m.Action != Open {
		return topic, pos, nil, fmt.Errorf("unknown action %q, perhaps of a newer version", m.Action)
	}
	for _, h := range r.Headers {
		if h.Key == headerOriginal {
			m.Original = bytes.Clone(h.Value) // the rest of the fetch is not kept
		}
	}
	return topic, pos, m, nil
}
