package producer_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"enricher/producer"
	"enricher/schemas"
)

var builder = producer.RecordBuilder{EnrichedTopic: "enriched", DeadLetterTopic: "dead", Group: "enricher", SDKAppID: "1400000000"}

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
			h := kgo.RecordHeader{Key: rapid.SampledFrom([]string{"a", "", schemas.HeaderReason, schemas.HeaderConnectTopic, schemas.HeaderMessage, schemas.HeaderReplays, schemas.HeaderDLQTopic, schemas.HeaderDLQMessage}).Draw(t, "name"), Value: text(t, "header")}
			event.Headers = append(event.Headers, h)
		}
		if rapid.Bool().Draw(t, "replayed") {
			replays, original = 2, 12345
			event.Headers = producer.ReplayHeaders(event.Headers, original, replays)
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

// TestDeadLetterHasTheBrokersHeaders: every kind of dead letter has the headers that
// brokers write, as UTF-8 text, and parses the same without them, as those of
// earlier versions are.
func TestDeadLetterHasTheBrokersHeaders(t *testing.T) {
	first := &kgo.Record{Topic: "calls", Partition: 3, Offset: 1 << 40, Timestamp: time.UnixMilli(1764000000123), Key: []byte("k"), Value: []byte("v"),
		Headers: []kgo.RecordHeader{{Key: schemas.HeaderDLQTopic, Value: []byte("theirs")}}}
	again := *first
	again.Headers = producer.ReplayHeaders(first.Headers, 1, 2)
	failure := &schemas.Failure{Reason: schemas.NotFound, Message: "no \xff record"}
	for name, c := range map[string]struct {
		record *kgo.Record
		count  string
	}{
		"with payload":    {builder.DeadLetter(first, failure), "1"},
		"replayed":        {builder.DeadLetter(&again, failure), "3"},
		"without payload": {builder.DeadLetterWithoutPayload(first, failure), "1"},
		"a range":         {builder.UnreadableRange(first, 7, failure), "1"},
	} {
		l, ok := producer.ParseDeadLetter(c.record)
		if !ok {
			t.Fatalf("%s: not recognised", name)
		}
		got := make(map[string]string)
		var before []kgo.RecordHeader // the record as an earlier version wrote it
		for i, h := range c.record.Headers {
			if i >= len(l.Headers) && strings.HasPrefix(h.Key, "__dlq.") {
				got[h.Key] = string(h.Value)
			} else {
				before = append(before, h)
			}
		}
		want := map[string]string{
			"__dlq.errors.topic": "calls", "__dlq.errors.partition": "3", "__dlq.errors.offset": "1099511627776", "__dlq.errors.group": "enricher",
			"__dlq.errors.delivery.count": c.count, "__dlq.errors.message": "no \uFFFD record",
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v", name, got)
		}
		r := *c.record
		r.Headers = before
		if old, ok := producer.ParseDeadLetter(&r); !ok || !reflect.DeepEqual(old, l) {
			t.Errorf("%s: without the headers it is %+v, want %+v", name, old, l)
		}
	}
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
	if !ok || l.OmittedBytes != 1_048_301 || string(l.Key) != "calls[3]@9" || l.Value == nil || len(l.Value) != 0 || l.Offset != 9 || l.Partition != 3 || l.Reason != schemas.Malformed {
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

// TestHeadersOfAReplayCountAtTheEndOnly: headers of a producer's own that have the
// names of a replay's mean nothing, and stay with the event.
func TestHeadersOfAReplayCountAtTheEndOnly(t *testing.T) {
	const produced = 1764000000123
	at, count := schemas.HeaderOriginalTimestamp, schemas.HeaderReplays
	for name, c := range map[string]struct {
		headers  []string // names and values
		own      int
		original int64
		replays  int
	}{
		"none":                     {nil, 0, produced, 0},
		"a replay":                 {[]string{"a", "b", at, "1764000000000", count, "2"}, 1, 1764000000000, 2},
		"a replay of a producer's": {[]string{at, "0", count, "3", at, "1764000000000", count, "1"}, 2, 1764000000000, 1},
		"a record without a time":  {[]string{at, "-1", count, "1"}, 0, -1, 1},
		"time alone":               {[]string{at, "0"}, 1, produced, 0},
		"count alone":              {[]string{count, "3"}, 1, produced, 0},
		"other order":              {[]string{count, "3", at, "0"}, 2, produced, 0},
		"not last":                 {[]string{at, "0", count, "3", "a", "b"}, 3, produced, 0},
		"no time":                  {[]string{at, "2025-11-24", count, "3"}, 2, produced, 0},
		"never replayed":           {[]string{at, "0", count, "0"}, 2, produced, 0},
		"negative count":           {[]string{at, "0", count, "-1"}, 2, produced, 0},
		"too large a count":        {[]string{at, "0", count, "4294967296"}, 2, produced, 0},
	} {
		event := &kgo.Record{Topic: "calls", Timestamp: time.UnixMilli(produced)}
		for i := 0; i < len(c.headers); i += 2 {
			event.Headers = append(event.Headers, kgo.RecordHeader{Key: c.headers[i], Value: []byte(c.headers[i+1])})
		}
		own, original, replays := producer.SplitReplayHeaders(event)
		if len(own) != c.own || original != c.original || replays != c.replays {
			t.Errorf("%s: %d headers of its own, time %d, %d replays", name, len(own), original, replays)
		}
		if l, ok := producer.ParseDeadLetter(builder.DeadLetter(event, &schemas.Failure{})); !ok || l.OriginalTimestamp != c.original || l.Replays != c.replays || len(l.Headers) != len(event.Headers) {
			t.Errorf("%s: dead letter %+v", name, l)
		}
	}
}

// The value is unchanged, and headers name the source.
func TestEnrichedRecord(t *testing.T) {
	event := &kgo.Record{Topic: "calls", Partition: 3, Offset: 9, Timestamp: time.UnixMilli(1764000000123)}
	r := builder.Enriched(event, producer.Enrichment{
		CallID: "id", Encoded: schemas.Encoded{Value: []byte(`{"a":1}`)}, RecordSource: schemas.FromAPI, Cache: "hit", RequestID: "req",
	})
	got := map[string]string{}
	for _, h := range r.Headers {
		got[h.Key] = string(h.Value)
	}
	want := map[string]string{
		"enricher.source_topic": "calls", "enricher.source_partition": "3", "enricher.source_offset": "9", "enricher.cache": "hit", "enricher.record_source": "api",
		"enricher.request_id": "req", "enricher.sdk_app_id": "1400000000", "enricher.original_timestamp": "1764000000123",
	}
	if !reflect.DeepEqual(got, want) || string(r.Key) != "id" || string(r.Value) != `{"a":1}` || r.Topic != "enriched" || !r.Timestamp.IsZero() {
		t.Errorf("%+v with headers %v", r, got)
	}
}
