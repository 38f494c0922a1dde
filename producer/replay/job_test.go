package replay

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// TestSkipReasons checks which dead letters a job leaves open, and why.
func TestSkipReasons(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	replayed := func(at time.Time, n int) []kgo.RecordHeader { return producer.ReplayHeaders(nil, at.UnixMilli(), n) }
	callback := func(at any) []byte {
		if t, ok := at.(time.Time); ok {
			at = t.UnixMilli()
		}
		b, err := json.Marshal(map[string]any{"CallId": "c", "EventTime": at})
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
		"young":                      {event: &kgo.Record{Topic: "calls", Timestamp: ago(time.Hour)}},
		"old":                        {event: &kgo.Record{Topic: "calls", Timestamp: ago(8 * 24 * time.Hour)}, want: TooOld},
		"old, any age wanted":        {event: &kgo.Record{Topic: "calls", Timestamp: ago(8 * 24 * time.Hour)}, change: func(j *Job) { j.Retention = 0 }},
		"old by its EventTime":       {event: &kgo.Record{Topic: "calls", Timestamp: ago(time.Hour), Value: callback(ago(8 * 24 * time.Hour))}, want: TooOld},
		"replayed twice":             {event: &kgo.Record{Topic: "calls", Timestamp: now, Headers: replayed(now, 2)}},
		"replayed three times":       {event: &kgo.Record{Topic: "calls", Timestamp: now, Headers: replayed(now, 3)}, want: MaxReplaysReached},
		"payload omitted":            {event: &kgo.Record{Topic: "calls", Timestamp: now, Value: []byte("x")}, omitted: true, want: PayloadOmitted},
		"payload omitted, discarded": {event: &kgo.Record{Topic: "calls", Timestamp: now, Value: []byte("x")}, omitted: true, change: func(j *Job) { j.Action = Discarded }},
		"from the dead-letter topic": {event: &kgo.Record{Topic: "dead", Timestamp: now}, want: NoOriginTopic},
		"from the journal":           {event: &kgo.Record{Topic: "journal", Timestamp: now}, want: NoOriginTopic},
		"from the dead-letter topic, other target": {event: &kgo.Record{Topic: "dead", Timestamp: now}, change: func(j *Job) { j.To = "calls" }},
		"malformed":                   {event: &kgo.Record{Topic: "calls", Timestamp: now, Value: []byte("junk")}},
		"old and replayed often":      {event: &kgo.Record{Topic: "calls", Timestamp: ago(8 * 24 * time.Hour), Headers: replayed(ago(8*24*time.Hour), 7)}, want: MaxReplaysReached},
		"old, discarded":              {event: &kgo.Record{Topic: "calls", Timestamp: ago(8 * 24 * time.Hour)}, change: func(j *Job) { j.Action = Discarded }},
		"from the future":             {event: &kgo.Record{Topic: "calls", Timestamp: now.Add(time.Hour)}},
		"old by the first production": {event: &kgo.Record{Topic: "calls", Timestamp: now, Headers: replayed(ago(8*24*time.Hour), 1)}, want: TooOld},
		"a producer's own header": {event: &kgo.Record{Topic: "calls", Timestamp: now, Headers: []kgo.RecordHeader{
			{Key: schemas.HeaderOriginalTimestamp, Value: []byte("0")}, {Key: schemas.HeaderReplays, Value: []byte("3")}, {Key: "trace"}}}},
		"EventTime in seconds":      {event: &kgo.Record{Topic: "calls", Timestamp: now, Value: callback(now.Unix())}},
		"EventTime that is no time": {event: &kgo.Record{Topic: "calls", Timestamp: now, Value: callback(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			j := Job{Topics: Topics{DeadLetterTopic: "dead", JournalTopic: "journal"}, Action: Replayed, MaxReplays: 3, Retention: 7 * 24 * time.Hour}
			if c.change != nil {
				c.change(&j)
			}
			if got := j.skipReason(readBack(t, c.event, c.omitted), now); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	foreign := newRecord(&kgo.Record{Value: []byte("x")}, &markerSet{})
	for _, action := range []State{Replayed, Discarded} {
		if got := (&Job{Action: action}).skipReason(foreign, now); got != ForeignRecord {
			t.Errorf("%s: foreign record: %q, want %q", action, got, ForeignRecord)
		}
	}
}
