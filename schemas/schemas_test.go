package schemas_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"enricher/schemas"
)

// schema compiles NAME.schema.json.
func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	b, err := schemas.Files.ReadFile(name + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(name, instance(t, b)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func instance(t *testing.T, b []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func samples(t *testing.T, pattern string) map[string][]byte {
	t.Helper()
	names, err := fs.Glob(schemas.Files, "samples/"+pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("no samples %s: %v", pattern, err)
	}
	m := make(map[string][]byte)
	for _, n := range names {
		b, err := schemas.Files.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		m[n] = bytes.TrimSpace(b)
	}
	return m
}

func TestTypesSchemasAndSamplesAgree(t *testing.T) {
	t.Run("event", func(t *testing.T) {
		s := schema(t, "event")
		for name, b := range samples(t, "event-*.json") {
			if err := s.Validate(instance(t, b)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := schemas.ParseEvent(b); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Schema and parser reject the same events, except for what no schema can
		// express.
		for _, c := range eventCases {
			if !json.Valid([]byte(c.value)) || c.beyondSchema {
				continue
			}
			schemaErr := s.Validate(instance(t, []byte(c.value)))
			if (schemaErr == nil) != (c.why == "") {
				t.Errorf("%.80s: the schema says %v, the table %q", c.value, schemaErr, c.why)
			}
		}
	})
	t.Run("record and enriched", func(t *testing.T) {
		record, enriched := schema(t, "record"), schema(t, "enriched")
		for name, b := range samples(t, "call-*-record.json") {
			if err := record.Validate(instance(t, b)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			var r schemas.CallRecord
			if err := json.Unmarshal(b, &r); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got := schemas.Enrich(&r).Encode()
			want := samples(t, strings.TrimPrefix(strings.Replace(name, "record", "enriched", 1), "samples/"))
			for n, w := range want {
				if !bytes.Equal(got, w) {
					t.Errorf("%s:\n got %s\nwant %s", n, got, w)
				}
				if err := enriched.Validate(instance(t, w)); err != nil {
					t.Errorf("%s: %v", n, err)
				}
			}
		}
		// Schema and type name the same fields.
		sameNames(t, "record.schema.json", jsonNames(reflect.TypeFor[schemas.CallRecord]()))
		sameNames(t, "enriched.schema.json", jsonNames(reflect.TypeFor[schemas.Enriched]()))
		var list struct {
			Properties struct {
				Anomalies struct {
					Items struct{ Examples []schemas.Anomaly }
				}
			}
		}
		read(t, "enriched.schema.json", &list)
		if got := list.Properties.Anomalies.Items.Examples; !slices.Equal(got, schemas.Anomalies()) {
			t.Errorf("the schema's anomalies are %v", got)
		}
	})
	t.Run("dead letter", func(t *testing.T) {
		s := schema(t, "dead-letter")
		for name, b := range samples(t, "dead-letter-*.json") {
			if err := s.Validate(instance(t, b)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		sameNames(t, "dead-letter.schema.json", []string{
			schemas.HeaderReason, schemas.HeaderCode, schemas.HeaderMessage, schemas.HeaderRequestID, schemas.HeaderAttempts,
			schemas.HeaderFirstAttempt, schemas.HeaderLastAttempt, schemas.HeaderReplays, schemas.HeaderOriginalTimestamp,
			schemas.HeaderOmittedBytes, schemas.HeaderUnreadableOffsets, schemas.HeaderConnectTopic, schemas.HeaderConnectPartition,
			schemas.HeaderConnectOffset, schemas.HeaderConnectMessage,
			schemas.HeaderDLQTopic, schemas.HeaderDLQPartition, schemas.HeaderDLQOffset, schemas.HeaderDLQGroup,
			schemas.HeaderDLQDeliveryCount, schemas.HeaderDLQMessage,
		})
		var list struct {
			Properties struct {
				Reason struct{ Examples []schemas.Reason } `json:"enricher.reason"`
			}
		}
		read(t, "dead-letter.schema.json", &list)
		if got := list.Properties.Reason.Examples; !slices.Equal(got, schemas.Reasons()) {
			t.Errorf("the schema's reasons are %v", got)
		}
	})
}

func read(t *testing.T, name string, v any) {
	t.Helper()
	b, err := schemas.Files.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func sameNames(t *testing.T, file string, want []string) {
	t.Helper()
	var s struct{ Properties map[string]any }
	read(t, file, &s)
	var got []string
	for name := range s.Properties {
		got = append(got, name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s has properties\n%v, want\n%v", file, got, want)
	}
}

func jsonNames(typ reflect.Type) []string {
	var names []string
	for i := range typ.NumField() {
		name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// No record panics, and durations keep the rules of checkDurations.
func FuzzCallRecord(f *testing.F) {
	names, err := fs.Glob(schemas.Files, "samples/call-*-record.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		b, err := schemas.Files.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r schemas.CallRecord
		if json.Unmarshal(b, &r) != nil {
			return
		}
		e := schemas.Enrich(&r)
		if !json.Valid(e.Encode()) {
			t.Fatalf("%s", e.Encode())
		}
		checkDurations(t, schemas.Durations{Answered: e.Answered, Ring: e.RingSeconds, Talk: e.TalkSeconds, Total: e.TotalSeconds, Anomalies: e.Anomalies})
	})
}
