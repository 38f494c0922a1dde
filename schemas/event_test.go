package schemas_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"enricher/schemas"
)

var eventCases = []struct {
	value        string
	id, command  string
	time         int64
	why          string // part of the error; "": accepted
	beyondSchema bool   // a schema cannot express it
}{
	{value: `{"CallId":"a"}`, id: "a"},
	{value: ` {"CallId" : "a" , "x":[{"CallId":"b"}]} `, id: "a"},
	{value: `{"CallId":"a\u00e9\"b"}`, id: `aé"b`},
	{value: `{"CallId":"a"}`, id: "a"},
	{value: `{"CallId":7}`, id: "7"},
	{value: `{"CallId":123456789012345678901234567890}`, id: "123456789012345678901234567890"},
	{value: `{"CallRecord":{"CallId":"a"}}`, id: "a"},
	{value: `{"CallId":"a","CallRecord":{"CallId":"a"}}`, id: "a"},
	{value: `{"CallId":"a","CallRecord":null}`, id: "a"},
	{value: `{"CallbackCommand":null,"CallId":"a"}`, id: "a"},
	{value: `{"CallbackCommand":"Call.CallbackAfterEndCall","CallRecord":{"CallId":"a"},"EventTime":1764000067412}`, id: "a", command: schemas.EndOfCall, time: 1764000067412},
	{value: `{"CallId":"a","EventTime":"1764000067412"}`, id: "a", time: 1764000067412},
	{value: `{"CallId":"a","EventTime":-5}`, id: "a"},
	{value: `{"CallId":"a","EventTime":1e300}`, id: "a"},
	{value: `{"CallId":"a","EventTime":[]}`, id: "a"},
	{value: `{"CallbackCommand":"Call.CallbackAfterStartCall"}`, command: "Call.CallbackAfterStartCall"},
	{value: `{"CallbackCommand":"Other","CallRecord":{"CallId":"a"}}`, command: "Other", id: "a"},
	{value: ``, why: "empty"},
	{value: ` `, why: "empty"},
	{value: `null`, why: "not a JSON object"},
	{value: `{}`, why: "no CallId"},
	{value: `[]`, why: "not a JSON object"},
	{value: `"a"`, why: "not a JSON object"},
	{value: `7`, why: "not a JSON object"},
	{value: `CallId=a`, why: "not JSON"},
	{value: `{"CallId":"a"`, why: "not JSON"},
	{value: `{"CallId":"a"} {"CallId":"a"}`, why: "not JSON"},
	{value: "{\"CallId\":\"\xff\"}", why: "UTF-8", beyondSchema: true},
	{value: `{"CallbackCommand":"call.callbackAfterEndCall","CallId":"a"}`, why: `must be "Call.CallbackAfterEndCall"`, beyondSchema: true},
	{value: `{"CallbackCommand":"Call.CallbackAfterEndCall ","CallId":"a"}`, why: `must be "Call.CallbackAfterEndCall"`, beyondSchema: true},
	{value: `{"CallId":""}`, why: "empty"},
	{value: `{"CallId":null}`, why: "neither string nor number"},
	{value: `{"CallId":true}`, why: "neither string nor number"},
	{value: `{"CallId":["a"]}`, why: "neither string nor number"},
	{value: `{"CallId":{"a":1}}`, why: "neither string nor number"},
	{value: `{"CallId":1.5}`, why: "not an integer"},
	{value: `{"CallId":1e3}`, why: "not an integer", beyondSchema: true},
	{value: `{"CallId":"` + strings.Repeat("x", 256) + `"}`, id: strings.Repeat("x", 256)},
	{value: `{"CallId":"` + strings.Repeat("x", 257) + `"}`, why: "257 bytes"},
	{value: `{"CallId":"a","CallId":"b"}`, why: "conflicting", beyondSchema: true},
	{value: `{"CallId":"a","CallRecord":{"CallId":"b"}}`, why: "conflicting", beyondSchema: true},
	{value: `{"CallId":"a","CallRecord":[]}`, why: "not an object"},
	{value: `{"CallbackCommand":5,"CallId":"a"}`, why: "not a string"},
	{value: strings.Repeat("[", 100_000), why: "not JSON"},
	{value: `{"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `,"CallId":"a"}`, why: "not JSON"},
}

func TestParseEvent(t *testing.T) {
	for _, c := range eventCases {
		e, err := schemas.ParseEvent([]byte(c.value))
		if c.why != "" {
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%.80s: error %v, want one with %q", c.value, err, c.why)
			}
			continue
		}
		if err != nil || e.CallID != c.id || e.Command != c.command || e.Time != c.time {
			t.Errorf("%.80s: %+v, %v", c.value, e, err)
		}
	}
	if _, err := schemas.ParseEvent(nil); err == nil || !strings.Contains(err.Error(), "no value") {
		t.Errorf("null: %v", err)
	}
}

// acceptedWrappings are what may be around an event.
var acceptedWrappings = []string{
	"%s", "\x00\x00\x00\x00\x07%s", "\x00{\"{}%s", "\uFEFF%s", "\x00\x00\x01\x02\x03\uFEFF%s", "%s\x00", "%s\x00\x00\r\n\x00", "%s \t\r\n",
	"\x00\x00\x00\x00\x07 \n%s \x00", "\uFEFF \r\n%s\n", "\x00\x00\x00\x00\x07\uFEFF %s\x00\x00",
}

func TestWrappedEvent(t *testing.T) {
	for _, w := range acceptedWrappings {
		value := []byte(fmt.Sprintf(w, `{"CallId":"a"}`))
		before := bytes.Clone(value)
		e, err := schemas.ParseEvent(value)
		if err != nil || e.CallID != "a" {
			t.Errorf("%q: %+v, %v", value, e, err)
		}
		if !bytes.Equal(value, before) {
			t.Errorf("%q was changed to %q", before, value)
		}
		if n := testing.AllocsPerRun(10, func() { _, _ = schemas.ParseEvent(value) }); n > 1 {
			t.Errorf("%q: %v allocations, want one for the CallId", value, n)
		}
		// The same around what is no event is malformed.
		for _, inner := range []string{``, `{"CallId":"a"`, `[]`, `{}`} {
			if e, err := schemas.ParseEvent([]byte(fmt.Sprintf(w, inner))); err == nil {
				t.Errorf("%q around %q: %+v", w, inner, e)
			}
		}
	}
}

// TestMalformedEventIsNamed: the message says what a value looks like, so that the
// producer's setting can be found. Neighbours of each are not named wrongly.
func TestMalformedEventIsNamed(t *testing.T) {
	event := `{"CallId":"a","EventTime":1764000067412}`
	quoted, _ := json.Marshal(event)
	wide := func(order binary.AppendByteOrder, mark bool) string {
		var b []byte
		if mark {
			b = order.AppendUint16(b, 0xFEFF)
		}
		for _, c := range event {
			b = order.AppendUint16(b, uint16(c))
		}
		return string(b)
	}
	compress := func(to func(io.Writer) io.WriteCloser) string {
		var b bytes.Buffer
		w := to(&b)
		_, _ = io.WriteString(w, event)
		_ = w.Close()
		return b.String()
	}
	zipped := compress(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
	for _, c := range []struct{ value, why, not string }{
		{value: string(quoted), why: "string that contains JSON"},
		{value: `"{\"CallId\":\"a\""`, why: "but a JSON string", not: "contains"},
		{value: `"hello"`, why: "but a JSON string", not: "contains"},
		{value: `{"schema":{"type":"string"},"payload":` + string(quoted) + `}`, why: "Kafka Connect"},
		{value: `{"schema":null,"payload":{"CallId":"a"}}`, why: "Kafka Connect"},
		{value: `{"payload":{"CallId":"a"}}`, why: `in its field "payload"`},
		{value: `{"before":null,"after":` + string(quoted) + `,"op":"c"}`, why: `in its field "after"`},
		{value: `{"message":{"CallRecord":{"CallId":"a"}}}`, why: `in its field "message"`},
		{value: `{"message":{"text":"CallId"}}`, why: "no CallId", not: "field"},
		{value: `{"specversion":"1.0","type":"x","data":{"CallId":"a"}}`, why: "structured CloudEvent"},
		{value: `{"specversion":"1.0","type":"x","data_base64":"eyJDYWxsSWQiOiJhIn0="}`, why: "structured CloudEvent"},
		{value: `[{"CallId":"a"},{"CallId":"b"}]`, why: "an array: its producer puts several events"},
		{value: `[1]`, why: "but an array", not: "several"},
		{value: event + event, why: "several JSON objects"},
		{value: event + "\n" + event + "\n", why: "several JSON objects"},
		{value: event + ",", why: "not JSON: invalid character", not: "several"},
		{value: base64.StdEncoding.EncodeToString([]byte(event)), why: "base64 text"},
		{value: base64.RawURLEncoding.EncodeToString([]byte(event)), why: "base64 text"},
		{value: base64.StdEncoding.EncodeToString([]byte(`{"CallId":"a"}`)), why: "base64 text"},
		{value: base64.StdEncoding.EncodeToString([]byte(zipped)), why: "base64 text"},
		{value: `"` + base64.StdEncoding.EncodeToString([]byte(event)) + `"`, why: "string that contains base64 text"},
		{value: hex.EncodeToString([]byte(event)), why: "hexadecimal text"},
		{value: "deadbeefdeadbeef", why: "not JSON: invalid character", not: "text"},
		{value: "notjsonbutletters", why: "not JSON: invalid character", not: "text"},
		{value: zipped, why: "gzip data"},
		{value: compress(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }), why: "zlib data"},
		{value: "\x28\xb5\x2f\xfd\x04", why: "zstd data"},
		{value: "\x04\x22\x4d\x18\x60", why: "lz4 data"},
		{value: "\xac\xed\x00\x05t\x00", why: "Java object"},
		{value: wide(binary.LittleEndian, true), why: "UTF-16"},
		{value: wide(binary.BigEndian, true), why: "UTF-16"},
		{value: wide(binary.LittleEndian, false), why: "UTF-16"},
		{value: wide(binary.BigEndian, false), why: "UTF-16"},
		{value: "{\"CallId\":\"a\",\"Nick\":\"\xc4\xe3\xba\xc3\"}", why: "another character encoding, such as GBK"},
		{value: "\x91\xa6CallId\xff", why: "binary data"},
		{value: "\x00\x00\x00\x00\x07\x02\x48a", why: "frame (schema id 7), but not a JSON object"},
		{value: "\x00\x00\x00\x00\x09\x00\x0a\x01a", why: "frame (schema id 9), but not a JSON object"},
		{value: "\x01" + strings.Repeat("\x11", 16) + event, why: "frame with a GUID"},
		{value: `{"callId":"a"}`, why: `"callId": the field must be CallId`},
		{value: `{"call_id":"a"}`, why: `"call_id": the field must be CallId`},
		{value: `{"CallbackCommand":"Call.CallbackAfterEndCall","CallRecord":{"CallID":"a"}}`, why: `"CallID": the field must be CallId`},
		{value: `{"Call":"a","Id":7}`, why: "no CallId", not: "must"},
		{value: `{"CallbackCommand":"Call.CallbackAfterEndCall","CallRecord":` + string(quoted) + `}`, why: "CallRecord is not an object, a string that contains JSON"},
		{value: `{'CallId': 'a'}`, why: "Python"},
		{value: `{CallId=a, EventTime=1764000067412}`, why: "Java"},
		{value: `<event><CallId>a</CallId></event>`, why: "XML"},
		{value: event[:20], why: "unexpected end of JSON input"},
	} {
		_, err := schemas.ParseEvent([]byte(c.value))
		if err == nil || !strings.Contains(err.Error(), c.why) || c.not != "" && strings.Contains(err.Error(), c.not) {
			t.Errorf("%.60q: %v, want %q and not %q", c.value, err, c.why, c.not)
		} else if len(err.Error()) > 250 {
			t.Errorf("%.60q: a message of %d bytes", c.value, len(err.Error()))
		}
	}
}

// No input panics, and an accepted CallId is one that encoding/json finds, too.
func FuzzParseEvent(f *testing.F) {
	for _, c := range eventCases {
		for _, w := range acceptedWrappings {
			f.Add([]byte(fmt.Sprintf(w, c.value)))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := schemas.ParseEvent(b)
		if err != nil || e.IsOtherCallback() {
			return
		}
		if e.CallID == "" || len(e.CallID) > schemas.MaxCallID {
			t.Fatalf("CallId of %d bytes", len(e.CallID))
		}
		for _, w := range acceptedWrappings {
			if b[0] != '{' {
				break // no second wrapping
			}
			if again, err := schemas.ParseEvent([]byte(fmt.Sprintf(w, b))); err != nil || again.CallID != e.CallID || again.Command != e.Command || again.Time != e.Time {
				t.Fatalf("wrapped as %q: %+v, %v; want %+v", w, again, err, e)
			}
		}
		if b[0] == 0 {
			b = b[5:]
		}
		var m map[string]any
		d := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(b, []byte("\uFEFF"))))
		d.UseNumber()
		if err := d.Decode(&m); err != nil {
			t.Fatalf("accepted, but not JSON: %v", err)
		}
		if rest, err := io.ReadAll(d.Buffered()); err != nil || len(bytes.Trim(rest, "\x00 \t\r\n")) > 0 {
			t.Fatalf("accepted with %q behind it, %v", rest, err)
		}
		text := func(v any) string {
			switch v := v.(type) {
			case string:
				return v
			case json.Number:
				return v.String()
			}
			return ""
		}
		record, _ := m["CallRecord"].(map[string]any)
		if e.CallID != text(m["CallId"]) && e.CallID != text(record["CallId"]) {
			t.Fatalf("CallId %q of %q", e.CallID, b)
		}
	})
}

// BenchmarkParseEvent: the only allocations are the texts that are returned.
func BenchmarkParseEvent(b *testing.B) {
	for name, value := range map[string]string{
		"bare":     `{"CallId":"5c2f7f0e-0001-4b1e-9d4e-6f2b8e1f7a10"}`,
		"callback": `{"CallbackCommand":"Call.CallbackAfterEndCall","SdkAppId":1400000000,"CallRecord":{"CallId":"5c2f7f0e-0001-4b1e-9d4e-6f2b8e1f7a10","Caller_Account":"alice","CalleeList_Account":["bob","carol"]},"EventTime":1764000067412}`,
		"other":    `{"CallbackCommand":"Call.CallbackAfterStartCall","CallRecord":{"CallId":"5c2f7f0e-0001-4b1e-9d4e-6f2b8e1f7a10"}}`,
	} {
		b.Run(name, func(b *testing.B) {
			event := []byte(value)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := schemas.ParseEvent(event); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
