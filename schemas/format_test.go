package schemas_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/twmb/avro"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"enricher/schemas"
)

// Every record has, in each format, the bytes that the usual library writes, and that
// library reads the same record from them.
func TestFormatsEqualThoseOfLibraries(t *testing.T) {
	codecs := map[schemas.Format]codec{}
	for _, f := range schemas.Formats() {
		codecs[f] = newCodec(t, f, f.Schema())
	}
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		e := schemas.Enrich(r)
		e.Revision = rapid.SampledFrom([]int64{0, 0, 1, 7, math.MaxInt64}).Draw(t, "revision")
		want := encoded(t, &e)
		for f, c := range codecs {
			got := f.Append([]byte("before"), &e)
			value, ok := bytes.CutPrefix(got, []byte("before"))
			if !ok || !bytes.Equal(value, f.Append(nil, &e)) {
				t.Fatalf("%s: appended %q", f, got)
			}
			if f == schemas.JSON {
				if !bytes.Equal(value, want) {
					t.Fatalf("\n got %q\nwant %q", value, want)
				}
				continue // the schema demands a CallId, and no negative room type
			}
			if other := c.encode(t, want); !bytes.Equal(value, other) {
				t.Fatalf("%s:\n got %x\nwant %x", f, value, other)
			}
			sameRecord(t, c.decode(t, c, value), want)
		}
	})
}

func drawRecord(t *rapid.T) *schemas.CallRecord {
	odd := rapid.SampledFrom([]string{"", "alice", "\x00\x01\x1f\x7f", "\b\f\n\r\t\"\\/", "<a href='x'>&</a>", "\u2028\u2029\u2027", "\xff\xfe", "a\xc3", "\xed\xa0\x80",
		"\xf4\x90\x80\x80", "\xe2\x80", "\ufffd", "é漢😀", "\xc0\xaf"})
	part := rapid.OneOf(odd, rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	text := rapid.Map(rapid.SliceOfN(part, 0, 4), func(all []string) string { return strings.Join(all, "") })
	times := rapid.OneOf(rapid.Int64(), rapid.Just(int64(0)), rapid.Int64Range(1764000000, 1764000100), rapid.Int64Range(1764000000, 1764999999))
	return &schemas.CallRecord{
		CallID: text.Draw(t, "call"), Caller: text.Draw(t, "caller"), Callees: rapid.SliceOfN(text, 0, 20).Draw(t, "callees"),
		MediaType: text.Draw(t, "media"), CallType: text.Draw(t, "type"), Result: rapid.OneOf(text, rapid.Just("NormalEnd")).Draw(t, "result"),
		RoomID: text.Draw(t, "room"), RoomIDType: int(rapid.Int64().Draw(t, "room type")),
		Start: times.Draw(t, "start"), Accept: times.Draw(t, "accept"), End: times.Draw(t, "end"),
	}
}

// One text with everything that encoding/json treats specially, and any other.
func FuzzText(f *testing.F) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	f.Add(string(all))
	f.Add("\u2028\u2029\u2030<>&\xe2\x80\xff")
	f.Fuzz(func(t *testing.T, s string) {
		e := schemas.Enriched{CallID: s, Callees: []string{s, ""}}
		if got, want := schemas.JSON.Append(nil, &e), encoded(t, &e); !bytes.Equal(got, want) {
			t.Fatalf("\n got %q\nwant %q", got, want)
		}
	})
}

func released(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "released", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var schemaFiles = map[schemas.Format]string{schemas.JSON: "enriched.schema.json", schemas.Avro: "enriched.avsc", schemas.Protobuf: "enriched.proto"}

// The schemas of the last release, in testdata/released, and those of today read
// each other's records in each format: readers and enricher are updated in any order.
func TestEvolution(t *testing.T) {
	var records [][]byte
	for _, pattern := range []string{"samples", "testdata/released"} {
		names, err := filepath.Glob(pattern + "/call-*-enriched.json")
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: no samples: %v", pattern, err)
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, bytes.TrimSpace(b))
		}
	}
	for _, f := range schemas.Formats() {
		last, now := newCodec(t, f, released(t, schemaFiles[f])), newCodec(t, f, f.Schema())
		for _, pair := range []struct {
			name           string
			writer, reader codec
		}{{"now reads now", now, now}, {"now reads the last release", last, now}, {"the last release reads now", now, last}} {
			t.Run(fmt.Sprint(f, "/", pair.name), func(t *testing.T) {
				for _, want := range records {
					value := pair.writer.encode(t, want)
					sameRecord(t, pair.reader.decode(t, pair.writer, value), want)
				}
			})
		}
	}
}

// What registries check: nothing is removed, nothing more is required, and no number changes.
func TestSchemasAreCompatibleWithTheLastRelease(t *testing.T) {
	last, now := avro.MustParse(released(t, "enriched.avsc")), avro.MustParse(schemas.Avro.Schema())
	if err := avro.CheckCompatibility(last, now); err != nil {
		t.Errorf("today's Avro schema does not read the last release's records: %v", err)
	}
	if err := avro.CheckCompatibility(now, last); err != nil {
		t.Errorf("the last release's Avro schema does not read today's records: %v", err)
	}

	fields := func(schema string) protoreflect.FieldDescriptors {
		return newCodec(t, schemas.Protobuf, schema).(protoCodec).message.Fields()
	}
	for before, i := fields(released(t, "enriched.proto")), 0; i < before.Len(); i++ {
		b := before.Get(i)
		n := fields(schemas.Protobuf.Schema()).ByNumber(b.Number())
		if n == nil || n.Name() != b.Name() || n.Kind() != b.Kind() || n.Cardinality() != b.Cardinality() || n.HasPresence() != b.HasPresence() {
			t.Errorf("field %d of the Protocol Buffers message was %v, and is %v", b.Number(), b, n)
		}
	}

	var before, after struct {
		Required             []string
		Properties           map[string]any
		AdditionalProperties any
	}
	for v, text := range map[any]string{&before: released(t, "enriched.schema.json"), &after: schemas.JSON.Schema()} {
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(before.Required)
	slices.Sort(after.Required)
	if !slices.Equal(before.Required, after.Required) {
		t.Errorf("required were %v, and are %v", before.Required, after.Required)
	}
	for name := range before.Properties {
		if _, ok := after.Properties[name]; !ok {
			t.Errorf("property %s was removed", name)
		}
	}
	if after.AdditionalProperties != false {
		t.Error("the model is open, and may gain no property then")
	}
}

// Readers of today accept what a later version may write: a later schema version,
// anomalies and values that have no name yet, and a revision.
func TestOpenSets(t *testing.T) {
	for _, name := range []string{schemas.JSON.Schema(), string(mustRead(t, "enriched.schema.json"))} {
		c := newCodec(t, schemas.JSON, name)
		c.decode(t, nil, []byte(`{"schema_version":2,"revision":3,"call_id":"c","caller":"a","callees":[],"media_type":"Hologram","call_type":"Party","result":"Teleported",
			"room_id":"","room_id_type":9,"start_time":0,"end_time":0,"answered":false,"anomalies":["clock_of_a_later_version"]}`))
	}
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := schemas.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The spelling for registries and the schema in draft 2020-12 say the same of all
// samples, and of samples that lack a field or have one of another type.
func TestDraftsAgree(t *testing.T) {
	compile := func(text string) *jsonschema.Schema { return newCodec(t, schemas.JSON, text).(jsonCodec).schema }
	spellings := []*jsonschema.Schema{compile(string(mustRead(t, "enriched.schema.json"))), compile(schemas.JSON.Schema())}
	if !strings.Contains(schemas.JSON.Schema(), `"http://json-schema.org/draft-07/schema#"`) {
		t.Error("the spelling for registries is not in draft-07")
	}
	valid, invalid := 0, 0
	check := func(v any) {
		a, b := spellings[0].Validate(v), spellings[1].Validate(v)
		if (a == nil) != (b == nil) {
			t.Errorf("%v: draft 2020-12 says %v, draft-07 %v", v, a, b)
		}
		if a == nil {
			valid++
		} else {
			invalid++
		}
	}
	for _, b := range samples(t, "call-*-enriched.json") {
		check(instance(t, b))
		for name := range instance(t, b).(map[string]any) {
			for _, other := range []any{nil, "text", json.Number("-1"), json.Number("0"), json.Number("1.5"), []any{}, []any{"a", "a"}, []any{json.Number("1")}, map[string]any{}} {
				v := instance(t, b).(map[string]any)
				v[name] = other
				check(v)
			}
			v := instance(t, b).(map[string]any)
			delete(v, name)
			check(v)
			v["x"] = "unknown"
			check(v)
		}
	}
	if valid == 0 || invalid == 0 {
		t.Errorf("%d valid and %d invalid records", valid, invalid)
	}
}

// The schemas name the fields of the type, each once.
func TestSchemasNameTheSameFields(t *testing.T) {
	want := jsonNames(reflect.TypeFor[schemas.Enriched]())
	slices.Sort(want)
	var proto, record []string
	fields := newCodec(t, schemas.Protobuf, schemas.Protobuf.Schema()).(protoCodec).message.Fields()
	for i := range fields.Len() {
		proto = append(proto, string(fields.Get(i).Name()))
	}
	for _, f := range avro.MustParse(schemas.Avro.Schema()).Root().Fields {
		record = append(record, f.Name)
	}
	for name, got := range map[string][]string{"enriched.proto": proto, "enriched.avsc": record} {
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", name, got, want)
		}
	}
}

func BenchmarkFormat(b *testing.B) {
	var r schemas.CallRecord
	text, err := schemas.Files.ReadFile("samples/call-1-record.json")
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range schemas.Formats() {
		b.Run(string(f), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e := schemas.Enrich(&r)
				f.Append(make([]byte, 0, 512), &e)
			}
		})
	}
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e := schemas.Enrich(&r)
			encoded(b, &e)
		}
	})
}
