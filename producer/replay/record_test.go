package replay

import (
	"bytes"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// readBack returns the record of a dead letter as it is read back.
func readBack(t *testing.T, event *kgo.Record, omitted bool) *Record {
	t.Helper()
	o := producer.RecordBuilder{DeadLetterTopic: "dead"}
	f := &schemas.Failure{Reason: schemas.NotFound, Code: 101050, Message: "no record"}
	r := o.DeadLetter(event, f)
	if omitted {
		r = o.DeadLetterWithoutPayload(event, f)
	}
	r.Timestamp = event.Timestamp.Add(time.Minute)
	return newRecord(r, &markerSet{})
}

// TestReplayedEventKeepsOriginal dead-letters and replays an event three times.
// Each time it is as it was first produced, except for two headers behind its own.
func TestReplayedEventKeepsOriginal(t *testing.T) {
	produced := time.UnixMilli(1764000000000)
	header := func(name, value string) kgo.RecordHeader {
		return kgo.RecordHeader{Key: name, Value: []byte(value)}
	}
	event := &kgo.Record{
		Topic: "calls", Partition: 3, Offset: 9, Timestamp: produced, Key: []byte("k"), Value: []byte(`{"CallId":"c"}`),
		Headers: []kgo.RecordHeader{header("trace", "1"), header("trace", "2"), header("__connect.errors.topic", "theirs"), header("__dlq.errors.topic", "theirs"), header("enricher.request_id", "x"), header("enricher.replays", "3")},
	}
	for round := 1; round <= 3; round++ {
		dead := readBack(t, event, false)
		if dead.CallID != "c" || !dead.EventTime.Equal(produced) {
			t.Errorf("round %d: call %q of %v", round, dead.CallID, dead.EventTime)
		}
		r := dead.Event("")
		want := []kgo.RecordHeader{header("trace", "1"), header("trace", "2"), header("__connect.errors.topic", "theirs"), header("__dlq.errors.topic", "theirs"),
			header("enricher.request_id", "x"), header("enricher.replays", "3"), header("enricher.original_timestamp", "1764000000000"), header("enricher.replays", strconv.Itoa(round))}
		same := func(a, b kgo.RecordHeader) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }
		if r.Topic != "calls" || string(r.Key) != "k" || string(r.Value) != `{"CallId":"c"}` || !r.Timestamp.IsZero() || !slices.EqualFunc(r.Headers, want, same) {
			t.Errorf("round %d: %+v", round, r)
		}
		event = r
		event.Timestamp = produced.Add(time.Duration(round) * time.Hour) // the time of the replay
	}
	if r := readBack(t, &kgo.Record{Topic: "calls"}, false).Event("other"); r.Topic != "other" || r.Key != nil || r.Value != nil {
		t.Errorf("an event without key and value: %+v", r)
	}
}

// TestCloneSharesNoMemory overwrites the record that was cloned.
func TestCloneSharesNoMemory(t *testing.T) {
	original := readBack(t, &kgo.Record{Topic: "calls", Key: []byte("key"), Value: []byte("value"), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("header")}}}, false)
	c := original.Clone()
	for _, b := range [][]byte{original.Raw.Key, original.Raw.Value, original.Raw.Headers[0].Value} {
		clear(b)
	}
	if l := c.DeadLetter; string(l.Key) != "key" || string(l.Value) != "value" || string(l.Headers[0].Value) != "header" || c.Position != original.Position || c.State != Open {
		t.Errorf("%+v %+v", c, l)
	}
	empty := readBack(t, &kgo.Record{Topic: "calls", Value: []byte{}}, false).Clone()
	if empty.DeadLetter.Key != nil || empty.DeadLetter.Value == nil {
		t.Error("a missing key and an empty value are confused")
	}
	if c := newRecord(&kgo.Record{Value: []byte("x")}, &markerSet{}).Clone(); c.DeadLetter != nil || c.State != Foreign {
		t.Errorf("%+v", c)
	}
}
