package replay

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Position is where a letter stands in the dead-letter topic.
type Position struct {
	Partition int32
	Offset    int64
}

func (r Position) String() string { return fmt.Sprintf("%d:%d", r.Partition, r.Offset) }

// ParsePosition is the inverse of String.
func ParsePosition(s string) (Position, error) {
	p, o, _ := strings.Cut(s, ":")
	partition, err := strconv.ParseInt(p, 10, 32)
	offset, offsetErr := strconv.ParseInt(o, 10, 64)
	if err != nil || offsetErr != nil || partition < 0 || offset < 0 {
		return Position{}, fmt.Errorf("%q is no letter: give partition and offset, such as 0:17", s)
	}
	return Position{int32(partition), offset}, nil
}

// State is what became of a letter.
type State string

const (
	Open      State = "open"      // no marker
	Replayed  State = "replayed"  // sent back
	Discarded State = "discarded" // done without being sent back
	Foreign   State = "foreign"   // no letter of ours
)

// States lists all states.
func States() []State { return []State{Open, Replayed, Discarded, Foreign} }

// Marker is the value of a record of the journal. Its key tells the letter.
type Marker struct {
	Action State     `json:"action"` // Replayed or Discarded
	At     time.Time `json:"at"`
	To     string    `json:"to,omitempty"`      // topic the event went to
	Note   string    `json:"because,omitempty"` // why it was discarded
}

// markerKey names a letter for good: with its topic's id, so that markers of a
// topic that was deleted say nothing about one of the same name.
func markerKey(topic [16]byte, ref Position) []byte {
	return fmt.Appendf(nil, "%s:%v", base64.RawURLEncoding.EncodeToString(topic[:]), ref)
}

func parseMarkerKey(key []byte) (topic [16]byte, ref Position, err error) {
	id, rest, _ := strings.Cut(string(key), ":")
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err == nil && len(b) != len(topic) {
		err = fmt.Errorf("a topic id of %d bytes", len(b))
	}
	if err != nil {
		return topic, ref, err
	}
	ref, err = ParsePosition(rest)
	return [16]byte(b), ref, err
}

func (m *Marker) record(journal string, topic [16]byte, ref Position) (*kgo.Record, error) {
	value, err := json.Marshal(m)
	if err != nil {
		return nil, err // a time beyond the year 9999
	}
	return &kgo.Record{Topic: journal, Key: markerKey(topic, ref), Value: value}, nil
}

// parseMarker reads a record of the journal; a nil Marker takes the letter's
// marker back.
func parseMarker(r *kgo.Record) (topic [16]byte, ref Position, m *Marker, err error) {
	topic, ref, err = parseMarkerKey(r.Key)
	if err != nil || r.Value == nil {
		return topic, ref, nil, err
	}
	m = &Marker{}
	if err := json.Unmarshal(r.Value, m); err != nil {
		return topic, ref, nil, err
	}
	if m.Action != Replayed && m.Action != Discarded {
		return topic, ref, nil, fmt.Errorf("unknown action %q; a newer version may have written it", m.Action)
	}
	return topic, ref, m, nil
}
