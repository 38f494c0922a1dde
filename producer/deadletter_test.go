package producer_test

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"enricher/producer"
	"enricher/schemas"
)

var builder = producer.RecordBuilder{EnrichedTopic: "enriched", DeadLetterTopic: "dead", SDKAppID: "1400000000"}

// text draws a key, a value or a header: null, empty or any bytes.
func text(t *rapid.T, name string) []byte {
	if rapid.Bool().Draw(t, name+" is null") {
		return nil
	}
	return append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, name)...)
}

// Whatever the event contains, even headers of enricher, its dead letter returns it
// byte for byte, with the failure.
func TestDeadLetterRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		event := &kgo.Record{
			Topic: "calls", Partition: rapid.Int32Range(0, 1000).Draw(t, "partition"), Offset: rapid.Int64Range(0, 1<<60).Draw(t, "offset"),
			Timestamp: time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "timestamp")),
			Key:       text(t, "key"), Value: text(t, "value"),
		}
		replays, original := 0, event.Timestamp.UnixMilli()
		for range rapid.IntRange(0, 5).Draw(t, "headers") {
			h := kgo.RecordHeader{Key: rapid.SampledFrom([]string{"a", "", schemas.HeaderReason, schemas.HeaderConnectTopic, schemas.HeaderMessage}).Draw(t, "name"), Value: text(t, "header")}
			event.Headers = append(event.Headers, h)
		}
		if rapid.Bool().Draw(t, "replayed") {
			replays, original = 2, 12345
			event.Headers = append(event.Headers,
				kgo.RecordHeader{Key: schemas.HeaderReplays, Value: []byte(strconv.Itoa(replays))},
				kgo.RecordHeader{Key: schemas.HeaderOriginalTimestamp, Value: []byte(strconv.FormatInt(original, 10))})
		}
		failure := schemas.Failure{
			Reason: rapid.SampledFrom(schemas.Reasons()).Draw(t, "reason"), Code: rapid.IntRange(0, 200000).Draw(t, "code"),
			Message: rapid.StringN(0, 50, 200).Draw(t, "message"), RequestID: rapid.StringMatching("[a-z0-9]{0,8}").Draw(t, "request id"),
			Attempts: rapid.IntRange(0, 9).Draw(t, "attempts"),
		}
		if failure.Attempts > 0 {
			failure.First, failure.Last = time.UnixMilli(1764000000000), time.UnixMilli(1764000100000)
		}
		r := builder.DeadLetter(event, &failure)
		if r.Topic != "dead" || !r.Timestamp.IsZero() {
			t.Fatalf("topic %q, timestamp %v: the timestamp is that of production", r.Topic, r.Timestamp)
		}
		l, ok := producer.ParseDeadLetter(r)
		if !ok {
			t.Fatal("not recognised")
		}
		if !reflect.DeepEqual(l.Failure, failure) {
			t.Errorf("failure %+v, want %+v", l.Failure, failure)
		}
		if l.Topic != event.Topic || l.Partition != event.Partition || l.Offset != event.Offset || l.Replays != replays || l.OriginalTimestamp != original || l.OmittedBytes != 0 {
			t.Errorf("%+v", l)
		}
		if !reflect.DeepEqual(l.Key, event.Key) || !reflect.DeepEqual(l.Value, event.Value) || len(l.Headers) != len(event.Headers) {
			t.Errorf("key %q, value %q, %d headers", l.Key, l.Value, len(l.Headers))
		}
		for i, h := range l.Headers {
			if h.Key != event.Headers[i].Key || !reflect.DeepEqual(h.Value, event.Headers[i].Value) {
				t.Errorf("header %d: %v", i, h)
			}
		}
	})
}

func TestParseDeadLetterIgnoresOtherRecords(t *testing.T) {
	for _, r := range []*kgo.Record{
		{}, {Value: []byte("x")}, {Headers: []kgo.RecordHeader{{Key: schemas.HeaderReason, Value: []byte("not_found")}}},
		{Headers: []kgo.RecordHeader{{Key: schemas.HeaderConnectTopic, Value: []byte("t")}, {Key: schemas.HeaderConnectOffset, Value: []byte("1")}}},
	} {
		if _, ok := producer.ParseDeadLetter(r); ok {
			t.Errorf("%+v is taken for a dead letter", r)
		}
	}
}

func TestEventTooLargeToCopyGetsDeadLetter(t *testing.T) {
	event := &kgo.Record{Topic: "calls", Partition: 3, Offset: 9, Key: []byte("k"), Value: bytes.Repeat([]byte("x"), 1_048_300)}
	r := builder.DeadLetter(event, &schemas.Failure{Reason: schemas.Malformed, Message: strings.Repeat("ü", 5000)})
	if !builder.Fits(r) {
		t.Fatal("the dead letter does not fit")
	}
	l, ok := producer.ParseDeadLetter(r)
	if !ok || l.OmittedBytes != 1_048_301 || l.Value != nil || l.Offset != 9 || l.Partition != 3 || l.Reason != schemas.Malformed {
		t.Errorf("%+v", l)
	}
	if len(l.Message) > 1024 || !strings.HasPrefix(l.Message, "üü") || strings.HasSuffix(l.Message, "\xc3") {
		t.Errorf("message of %d bytes", len(l.Message))
	}
	small := producer.RecordBuilder{DeadLetterTopic: "dead", MaxRecordBytes: 3000}
	if r := small.DeadLetter(&kgo.Record{Topic: "calls", Value: make([]byte, 2900)}, &schemas.Failure{}); len(r.Value) != 0 {
		t.Error("the dead letter exceeds the maximum of its topic")
	}
}

// The value is unchanged, and headers name the source.
func TestEnrichedRecord(t *testing.T) {
	event := &kgo.Record{Topic: "calls", Partition: 3, Offset: 9, Timestamp: time.UnixMilli(1764000000123)}
	r := builder.Enriched(event, "id", []byte(`{"a":1}`), "hit", "req")
	got := map[string]string{}
	for _, h := range r.Headers {
		got[h.Key] = string(h.Value)
	}
	want := map[string]string{
		"enricher.source_topic": "calls", "enricher.source_partition": "3", "enricher.source_offset": "9", "enricher.cache": "hit",
		"enricher.request_id": "req", "enricher.sdk_app_id": "1400000000", "enricher.original_timestamp": "1764000000123",
	}
	if !reflect.DeepEqual(got, want) || string(r.Key) != "id" || string(r.Value) != `{"a":1}` || r.Topic != "enriched" || !r.Timestamp.IsZero() {
		t.Errorf("%+v with headers %v", r, got)
	}
}
