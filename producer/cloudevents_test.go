package producer_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// TestCloudEventHeaders: the attributes of the binary mode, and none that is empty.
// Key, value and enricher's own headers stay as they are.
func TestCloudEventHeaders(t *testing.T) {
	event := &kgo.Record{Topic: "calls", Timestamp: time.UnixMilli(1764000000123)}
	enrichment := producer.Enrichment{CallID: "id", Encoded: schemas.Encoded{Value: []byte("v"), Caller: "alice ü", End: 1764000067}, RecordSource: schemas.FromAPI, Cache: "hit"}
	unknown := enrichment
	unknown.Caller, unknown.End = "", 0
	common := map[string]string{
		"ce_specversion": "1.0", "ce_id": "id", "ce_source": "enricher:sdk-app-id:1400000000", "ce_type": "enricher.call.ended",
		"ce_dataschema": "enricher:enriched:1", "content-type": "application/json",
	}
	for name, c := range map[string]struct {
		off        bool
		events     producer.CloudEvents
		enrichment producer.Enrichment
		want       map[string]string // besides common
	}{
		"off":              {off: true, enrichment: enrichment},
		"caller":           {events: producer.CloudEvents{Subject: producer.SubjectCaller, Format: schemas.JSON}, enrichment: enrichment, want: map[string]string{"ce_time": "2025-11-24T16:01:07Z", "ce_subject": "alice ü"}},
		"app":              {events: producer.CloudEvents{Subject: producer.SubjectSDKAppID, Format: schemas.Avro}, enrichment: enrichment, want: map[string]string{"ce_time": "2025-11-24T16:01:07Z", "ce_subject": "1400000000", "content-type": "application/avro"}},
		"no subject":       {events: producer.CloudEvents{Subject: producer.SubjectNone, Format: schemas.Protobuf}, enrichment: enrichment, want: map[string]string{"ce_time": "2025-11-24T16:01:07Z", "content-type": "application/protobuf"}},
		"nothing is known": {events: producer.CloudEvents{Subject: producer.SubjectCaller, Format: schemas.JSON}, enrichment: unknown},
	} {
		b := builder
		plain := b.Enriched(event, c.enrichment)
		want := map[string]string{}
		if !c.off {
			b.CloudEvents = &c.events
			maps.Copy(want, common)
			maps.Copy(want, c.want)
		}
		r := b.Enriched(event, c.enrichment)
		got := map[string]string{}
		for i, h := range r.Headers {
			switch {
			case i < len(plain.Headers):
				if h.Key != plain.Headers[i].Key || strings.HasPrefix(h.Key, "ce_") {
					t.Errorf("%s: header %d is %s", name, i, h.Key)
				}
			default:
				got[h.Key] = string(h.Value)
			}
		}
		if !maps.Equal(got, want) || string(r.Key) != "id" || string(r.Value) != "v" || !r.Timestamp.IsZero() {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestCallEndTimestamp: the record has the end of the call, in whole seconds, or the
// time of production if that is not known. Dead letters have the latter.
func TestCallEndTimestamp(t *testing.T) {
	b := builder
	b.CallEndTimestamps = true
	event := &kgo.Record{Topic: "calls", Timestamp: time.UnixMilli(1764000000123)}
	for end, want := range map[int64]time.Time{1764000067: time.Unix(1764000067, 0), 0: {}} {
		if r := b.Enriched(event, producer.Enrichment{Encoded: schemas.Encoded{End: end}}); !r.Timestamp.Equal(want) {
			t.Errorf("end %d: %v", end, r.Timestamp)
		}
	}
	if r := b.DeadLetter(event, &schemas.Failure{}); !r.Timestamp.IsZero() {
		t.Errorf("dead letter: %v", r.Timestamp)
	}
}

// The URI that records name is that of the schema.
func TestDataSchemaIsTheSchemas(t *testing.T) {
	text, err := schemas.Files.ReadFile("enriched.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		ID string `json:"$id"`
	}
	if err := json.Unmarshal(text, &schema); err != nil || schema.ID != schemas.EnrichedID {
		t.Errorf("%q, %v; want %q", schema.ID, err, schemas.EnrichedID)
	}
}
