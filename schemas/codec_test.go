package schemas_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/twmb/avro"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"enricher/schemas"
)

// codec is a schema in the hands of a library that others use. Records are in JSON.
type codec interface {
	encode(t require, record []byte) []byte
	// decode reads a value that was written with another schema of the same format.
	decode(t require, writer codec, value []byte) []byte
}

type require interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newCodec(t *testing.T, format schemas.Format, schema string) codec {
	t.Helper()
	switch format {
	case schemas.Avro:
		s, err := avro.Parse(schema)
		if err != nil {
			t.Fatal(err)
		}
		return avroCodec{s}
	case schemas.Protobuf:
		c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{"enriched.proto": schema})}}
		files, err := c.Compile(t.Context(), "enriched.proto")
		if err != nil {
			t.Fatal(err)
		}
		return protoCodec{files[0].Messages().Get(0)}
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("enriched", instance(t, []byte(schema))); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("enriched")
	if err != nil {
		t.Fatal(err)
	}
	return jsonCodec{s}
}

type jsonCodec struct{ schema *jsonschema.Schema }

func (c jsonCodec) encode(t require, record []byte) []byte { return c.decode(t, c, record) }

func (c jsonCodec) decode(t require, _ codec, value []byte) []byte {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err == nil {
		err = c.schema.Validate(v)
	}
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	return value
}

type avroCodec struct{ schema *avro.Schema }

func (c avroCodec) encode(t require, record []byte) []byte {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(record))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", record, err)
	}
	b, err := c.schema.Encode(v)
	if err != nil {
		t.Fatalf("%s: %v", record, err)
	}
	return b
}

func (c avroCodec) decode(t require, writer codec, value []byte) []byte {
	t.Helper()
	s, err := avro.Resolve(writer.(avroCodec).schema, c.schema)
	if err != nil {
		t.Fatalf("%v", err)
	}
	var v map[string]any
	rest, err := s.Decode(value, &v)
	if err != nil || len(rest) > 0 {
		t.Fatalf("%x: %d bytes are left: %v", value, len(rest), err)
	}
	return toJSON(v)
}

type protoCodec struct {
	message protoreflect.MessageDescriptor
}

func (c protoCodec) encode(t require, record []byte) []byte {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(record))
	d.UseNumber()
	var all map[string]any
	if err := d.Decode(&all); err != nil {
		t.Fatalf("%s: %v", record, err)
	}
	m := dynamicpb.NewMessage(c.message)
	for name, v := range all {
		f := c.message.Fields().ByName(protoreflect.Name(name))
		if f == nil {
			continue // unknown to this schema
		}
		switch v := v.(type) {
		case []any:
			list := m.Mutable(f).List()
			for _, s := range v {
				list.Append(protoreflect.ValueOfString(s.(string)))
			}
		case json.Number:
			n, err := v.Int64()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			m.Set(f, protoreflect.ValueOfInt64(n))
		default:
			m.Set(f, protoreflect.ValueOf(v))
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatalf("%s: %v", record, err)
	}
	return b
}

func (c protoCodec) decode(t require, _ codec, value []byte) []byte {
	t.Helper()
	m := dynamicpb.NewMessage(c.message)
	if err := proto.Unmarshal(value, m); err != nil {
		t.Fatalf("%x: %v", value, err)
	}
	all := map[string]any{}
	for i := range c.message.Fields().Len() {
		f := c.message.Fields().Get(i)
		switch v := m.Get(f); {
		case f.HasPresence() && !m.Has(f):
		case f.IsList():
			list := []string{}
			for i := range v.List().Len() {
				list = append(list, v.List().Get(i).String())
			}
			all[string(f.Name())] = list
		default:
			all[string(f.Name())] = v.Interface()
		}
	}
	return toJSON(all)
}

// toJSON returns a record in JSON, with absent fields absent.
func toJSON(all map[string]any) []byte {
	for name, v := range all {
		list := reflect.ValueOf(v)
		if v == nil || name == "anomalies" && list.Len() == 0 {
			delete(all, name)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return b
}

// sameRecord checks that two records in JSON are equal.
func sameRecord(t require, got, want []byte) {
	t.Helper()
	var a, b schemas.Enriched
	for v, text := range map[*schemas.Enriched][]byte{&a: got, &b: want} {
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("\n got %s\nwant %s", got, want)
	}
}

// encoded is what encoding/json makes of a record.
func encoded(t require, e *schemas.Enriched) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		t.Fatalf("%v", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
