package replay

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"enricher/producer"
	"enricher/schemas"
)

// TestDone compares the two bits a letter with a map.
func TestDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d markerSet
		model := make(map[Position]State)
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			ref := Position{
				Partition: rapid.Int32Range(0, 2).Draw(t, "partition"),
				Offset:    rapid.OneOf(rapid.Int64Range(0, 3000), rapid.Int64Range(0, 1<<62)).Draw(t, "offset"),
			}
			s := rapid.SampledFrom([]State{Open, Replayed, Discarded}).Draw(t, "state")
			d.set(ref, s)
			model[ref] = s
		}
		marked := 0
		for ref, want := range model {
			if got := d.state(ref); got != want {
				t.Fatalf("%v is %s, want %s", ref, got, want)
			}
			if want != Open {
				marked++
			}
			if next := (Position{ref.Partition, ref.Offset + 1}); model[next] == "" && d.state(next) != Open {
				t.Fatalf("%v is %s, and was never set", next, d.state(next))
			}
		}
		if d.count != marked {
			t.Fatalf("%d marked, want %d", d.count, marked)
		}
	})
}

// TestDoneIsSmall: a million letters of which every third is done.
func TestDoneIsSmall(t *testing.T) {
	var d markerSet
	for o := range int64(1_000_000) {
		if o%3 == 0 {
			d.set(Position{0, o}, Replayed)
		}
	}
	if bytes := len(d.chunks) * 2 * chunkSize / 8; bytes > 300_000 {
		t.Errorf("%d bytes for a million letters", bytes)
	}
}

func TestMarkerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topic := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic"))
		ref := Position{rapid.Int32Range(0, 1<<30).Draw(t, "partition"), rapid.Int64Range(0, 1<<62).Draw(t, "offset")}
		m := Marker{Action: Discarded, At: time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "at")).UTC(), Note: rapid.String().Draw(t, "because")}
		r, err := m.record("j", topic, ref)
		if err != nil {
			t.Fatal(err)
		}
		gotTopic, gotRef, got, err := parseMarker(r)
		if err != nil || gotTopic != topic || gotRef != ref || *got != m {
			t.Fatalf("%v %v %+v, %v; want %v %v %+v", gotTopic, gotRef, got, err, topic, ref, m)
		}
		r.Value = nil
		if _, gotRef, got, err := parseMarker(r); err != nil || gotRef != ref || got != nil {
			t.Fatalf("a tombstone is %v %+v, %v", gotRef, got, err)
		}
	})
}

// FuzzMarker: whatever stands in the journal, it is a marker that is written
// back as it came, or an error.
func FuzzMarker(f *testing.F) {
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAA:0:17"), []byte(`{"action":"replayed","at":"2026-01-31T15:04:05Z","to":"calls"}`))
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAA:0:17"), []byte(`{"action":"forgotten"}`))
	f.Add([]byte("AAAA:0:17"), []byte(`{}`))
	f.Add([]byte(""), []byte("null"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		topic, ref, m, err := parseMarker(&kgo.Record{Key: key, Value: value})
		if err != nil || m == nil {
			return
		}
		if m.Action != Replayed && m.Action != Discarded {
			t.Fatalf("action %q", m.Action)
		}
		again, gotRef, err := parseMarkerKey(markerKey(topic, ref))
		if err != nil || again != topic || gotRef != ref {
			t.Fatalf("key %q is read as %v %v and that as %v %v, %v", key, topic, ref, again, gotRef, err)
		}
	})
}

// entry makes the entry of a letter as it is read back.
func entry(t *testing.T, event *kgo.Record, omitted bool) *Record {
	t.Helper()
	o := producer.Outputs{DeadLetterTopic: "dead"}
	f := &producer.Failure{Reason: schemas.NotFound, Code: 101050, Message: "no record"}
	r := o.DeadLetter(event, f)
	if omitted {
		r = o.Coordinates(event, f)
	}
	r.Timestamp = event.Timestamp.Add(time.Minute)
	return newRecord(r, &markerSet{})
}

// TestEvent: an event goes back as it came, but for two headers; and its next
// letter counts the replay.
func TestEvent(t *testing.T) {
	came := time.UnixMilli(1764000000000)
	header := func(name, value string) kgo.RecordHeader {
		return kgo.RecordHeader{Key: name, Value: []byte(value)}
	}
	event := &kgo.Record{
		Topic: "calls", Partition: 3, Offset: 9, Timestamp: came, Key: []byte("k"), Value: []byte(`{"CallId":"c"}`),
		Headers: []kgo.RecordHeader{header("trace", "1"), header("trace", "2"), header("__connect.errors.topic", "theirs"), header("enricher.request_id", "x")},
	}
	for round := 1; round <= 3; round++ {
		e := entry(t, event, false)
		if e.CallID != "c" || !e.EventTime.Equal(came) {
			t.Errorf("round %d: call %q of %v", round, e.CallID, e.EventTime)
		}
		r := e.Event("")
		want := []kgo.RecordHeader{header("trace", "1"), header("trace", "2"), header("__connect.errors.topic", "theirs"),
			header("enricher.original_timestamp", "1764000000000"), header("enricher.replays", strconv.Itoa(round))}
		same := func(a, b kgo.RecordHeader) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }
		if r.Topic != "calls" || string(r.Key) != "k" || string(r.Value) != `{"CallId":"c"}` || !r.Timestamp.IsZero() || !slices.EqualFunc(r.Headers, want, same) {
			t.Errorf("round %d: %+v", round, r)
		}
		event = r
		event.Timestamp = came.Add(time.Duration(round) * time.Hour) // the time of the replay
	}
	if r := entry(t, &kgo.Record{Topic: "calls"}, false).Event("other"); r.Topic != "other" || r.Key != nil || r.Value != nil {
		t.Errorf("an event without key and value: %+v", r)
	}
}

// TestObstacles: which letters a replay leaves open.
func TestObstacles(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	replays := func(n string) []kgo.RecordHeader {
		return []kgo.RecordHeader{{Key: schemas.HeaderReplays, Value: []byte(n)}}
	}
	callback := func(at time.Time) []byte {
		b, err := json.Marshal(map[string]any{"CallId": "c", "EventTime": at.UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		event   *kgo.Record
		omitted bool
		change  func(*Job)
		want    SkipReason
	}{
		"young":                   {event: &kgo.Record{Topic: "calls", Timestamp: ago(time.Hour)}},
		"old":                     {event: &kgo.Record{Topic: "calls", Timestamp: ago(8 * 24 * time.Hour)}, want: TooOld},
		"old, but wanted":         {event: &kgo.Record{Topic: "calls", Timestamp: ago(8 * 24 * time.Hour)}, change: func(j *Job) { j.Retention = 0 }},
		"old by its own account":  {event: &kgo.Record{Topic: "calls", Timestamp: ago(time.Hour), Value: callback(ago(8 * 24 * time.Hour))}, want: TooOld},
		"replayed twice":          {event: &kgo.Record{Topic: "calls", Timestamp: now, Headers: replays("2")}},
		"replayed three times":    {event: &kgo.Record{Topic: "calls", Timestamp: now, Headers: replays("3")}, want: MaxReplaysReached},
		"too large":               {event: &kgo.Record{Topic: "calls", Timestamp: now, Value: []byte("x")}, omitted: true, want: PayloadOmitted},
		"too large, discarded":    {event: &kgo.Record{Topic: "calls", Timestamp: now, Value: []byte("x")}, omitted: true, change: func(j *Job) { j.Action = Discarded }},
		"from the letters":        {event: &kgo.Record{Topic: "dead", Timestamp: now}, want: NoOriginTopic},
		"from the journal":        {event: &kgo.Record{Topic: "journal", Timestamp: now}, want: NoOriginTopic},
		"from the letters, to":    {event: &kgo.Record{Topic: "dead", Timestamp: now}, change: func(j *Job) { j.To = "calls" }},
		"unreadable":              {event: &kgo.Record{Topic: "calls", Timestamp: now, Value: []byte("junk")}},
		"old and replayed often":  {event: &kgo.Record{Topic: "calls", Timestamp: ago(8 * 24 * time.Hour), Headers: replays("7")}, want: MaxReplaysReached},
		"old, discarded":          {event: &kgo.Record{Topic: "calls", Timestamp: ago(8 * 24 * time.Hour)}, change: func(j *Job) { j.Action = Discarded }},
		"from the future":         {event: &kgo.Record{Topic: "calls", Timestamp: now.Add(time.Hour)}},
		"a number of replays < 0": {event: &kgo.Record{Topic: "calls", Timestamp: now, Headers: replays("-1")}},
	} {
		t.Run(name, func(t *testing.T) {
			j := Job{Topics: Topics{DeadLetterTopic: "dead", JournalTopic: "journal"}, Action: Replayed, MaxReplays: 3, Retention: 7 * 24 * time.Hour}
			if c.change != nil {
				c.change(&j)
			}
			if got := j.skipReason(entry(t, c.event, c.omitted), now); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	foreign := newRecord(&kgo.Record{Value: []byte("x")}, &markerSet{})
	for _, action := range []State{Replayed, Discarded} {
		if got := (&Job{Action: action}).skipReason(foreign, now); got != ForeignRecord {
			t.Errorf("%s: a record of others: %q", action, got)
		}
	}
}

// TestClone: a kept letter does not change, or hold on to, what it was read from.
func TestClone(t *testing.T) {
	e := entry(t, &kgo.Record{Topic: "calls", Key: []byte("key"), Value: []byte("value"), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("header")}}}, false)
	c := e.Clone()
	for _, b := range [][]byte{e.Raw.Key, e.Raw.Value, e.Raw.Headers[0].Value} {
		clear(b)
	}
	if l := c.DeadLetter; string(l.Key) != "key" || string(l.Value) != "value" || string(l.Headers[0].Value) != "header" || c.Position != e.Position || c.State != Open {
		t.Errorf("%+v %+v", c, l)
	}
	nothing := entry(t, &kgo.Record{Topic: "calls", Value: []byte{}}, false).Clone()
	if nothing.DeadLetter.Key != nil || nothing.DeadLetter.Value == nil {
		t.Error("none and empty are confused")
	}
	if c := newRecord(&kgo.Record{Value: []byte("x")}, &markerSet{}).Clone(); c.DeadLetter != nil || c.State != Foreign {
		t.Errorf("%+v", c)
	}
}
