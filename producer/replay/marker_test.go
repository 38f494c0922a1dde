package replay

import (
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// TestMarkerSetAgainstModel compares a markerSet with a map.
func TestMarkerSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set markerSet
		model := make(map[Position]State)
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			pos := Position{
				Partition: rapid.Int32Range(0, 2).Draw(t, "partition"),
				Offset:    rapid.OneOf(rapid.Int64Range(0, 3000), rapid.Int64Range(0, 1<<62)).Draw(t, "offset"),
			}
			s := rapid.SampledFrom([]State{Open, Replayed, Discarded}).Draw(t, "state")
			set.set(pos, s)
			model[pos] = s
		}
		count := 0
		for pos, want := range model {
			if got := set.state(pos); got != want {
				t.Fatalf("%v is %s, want %s", pos, got, want)
			}
			if want != Open {
				count++
			}
			if next := (Position{pos.Partition, pos.Offset + 1}); model[next] == "" && set.state(next) != Open {
				t.Fatalf("%v is %s, but was never set", next, set.state(next))
			}
		}
		if set.count != count {
			t.Fatalf("%d dead letters with a marker, want %d", set.count, count)
		}
	})
}

// TestMarkerSetIsSmall sets markers for a third of a million dead letters.
func TestMarkerSetIsSmall(t *testing.T) {
	var set markerSet
	for o := range int64(1_000_000) {
		if o%3 == 0 {
			set.set(Position{0, o}, Replayed)
		}
	}
	if bytes := len(set.chunks) * 2 * chunkSize / 8; bytes > 300_000 {
		t.Errorf("%d bytes for a million dead letters", bytes)
	}
}

func TestMarkerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topic := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "topic"))
		pos := Position{rapid.Int32Range(0, 1<<30).Draw(t, "partition"), rapid.Int64Range(0, 1<<62).Draw(t, "offset")}
		m := Marker{Action: Discarded, At: time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "at")).UTC(), Note: rapid.String().Draw(t, "note")}
		if m.Corrected = rapid.Bool().Draw(t, "corrected"); m.Corrected && rapid.Bool().Draw(t, "had a value") {
			m.Original = append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "original")...)
		}
		r, err := m.record("j", topic, pos)
		if err != nil {
			t.Fatal(err)
		}
		gotTopic, gotPos, got, err := parseMarker(r)
		if err != nil || gotTopic != topic || gotPos != pos || !reflect.DeepEqual(*got, m) {
			t.Fatalf("%v %v %+v, %v; want %v %v %+v", gotTopic, gotPos, got, err, topic, pos, m)
		}
		r.Value = nil
		if _, gotPos, got, err := parseMarker(r); err != nil || gotPos != pos || got != nil {
			t.Fatalf("a tombstone is %v %+v, %v", gotPos, got, err)
		}
	})
}

// TestStoredMarkerIsReadable parses journal records as earlier versions wrote them.
func TestStoredMarkerIsReadable(t *testing.T) {
	at := time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)
	for value, want := range map[string]Marker{
		`{"action":"replayed","at":"2026-01-31T15:04:05Z","to":"calls"}`:        {Action: Replayed, At: at, To: "calls"},
		`{"action":"discarded","at":"2026-01-31T15:04:05Z","because":"a test"}`: {Action: Discarded, At: at, Note: "a test"},
	} {
		topic, pos, m, err := parseMarker(&kgo.Record{Key: []byte("AAAAAAAAAAAAAAAAAAAAAQ:3:17"), Value: []byte(value)})
		if err != nil || topic != [16]byte{15: 1} || pos != (Position{3, 17}) || !reflect.DeepEqual(*m, want) {
			t.Errorf("%s is %v %v %+v, %v; want %+v", value, topic, pos, m, err, want)
		}
		if r, err := want.record("j", topic, pos); err != nil || string(r.Value) != value {
			t.Errorf("%+v is written as %s, %v; want %s", want, r.Value, err, value)
		}
	}
}

// FuzzMarker checks that whatever parses as a marker has a known action and a key
// that survives a round trip.
func FuzzMarker(f *testing.F) {
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAA:0:17"), []byte(`{"action":"replayed","at":"2026-01-31T15:04:05Z","to":"calls"}`))
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAA:0:17"), []byte(`{"action":"forgotten"}`))
	f.Add([]byte("AAAA:0:17"), []byte(`{}`))
	f.Add([]byte(""), []byte("null"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		topic, pos, m, err := parseMarker(&kgo.Record{Key: key, Value: value})
		if err != nil || m == nil {
			return
		}
		if m.Action != Replayed && m.Action != Discarded && m.Action != Open {
			t.Fatalf("action %q", m.Action)
		}
		again, gotPos, err := parseMarkerKey(markerKey(topic, pos))
		if err != nil || again != topic || gotPos != pos {
			t.Fatalf("key %q is parsed as %v %v, and that again as %v %v, %v", key, topic, pos, again, gotPos, err)
		}
	})
}
