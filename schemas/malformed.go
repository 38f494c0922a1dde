package schemas

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A malformed event is nearly always good JSON that its producer has wrapped, or
// encoded in another way. The functions of this file name that, for the person who
// has to find the producer's setting. They run for malformed events only.

// signatures are how values begin that are no text.
var signatures = []struct{ prefix, what string }{
	{"\x1f\x8b", "gzip data"},
	{"\x28\xb5\x2f\xfd", "zstd data"},
	{"\x04\x22\x4d\x18", "lz4 data"},
	{"\xff\x06\x00\x00sNaPpY", "snappy data"},
	{"\x82SNAPPY\x00", "snappy data"},
	{"\x78\x01", "zlib data"},
	{"\x78\x5e", "zlib data"},
	{"\x78\x9c", "zlib data"},
	{"\x78\xda", "zlib data"},
	{"BZh", "bzip2 data"},
	{"\xfd7zXZ\x00", "xz data"},
	{"PK\x03\x04", "a zip file"},
	{"Obj\x01", "an Avro file"},
	{"\xc3\x01", "an Avro object"},
	{"\xac\xed\x00\x05", "a Java object"},
}

// describe says what a value is that is not a JSON object, and why it is so.
func describe(value []byte) string {
	value = trimEnd(value)
	text := trimStart(value)
	if s := signature(value); s != "" {
		return s + ", not JSON: its producer compresses or encodes the value"
	}
	switch {
	case isWide(value):
		return "UTF-16 or UTF-32, not JSON in UTF-8: its producer uses another character encoding"
	case len(value) > frameBytes && value[0] == 0:
		return fmt.Sprintf("in a schema registry's frame (schema id %d), but not a JSON object: its producer encodes as Avro or Protobuf, or the frame has other content",
			binary.BigEndian.Uint32(value[1:frameBytes]))
	case len(value) > guidFrameBytes && value[0] == 1:
		return fmt.Sprintf("in a schema registry's frame with a GUID (%x), which belongs in a header", value[1:guidFrameBytes])
	case !utf8.Valid(text) && bytes.IndexByte([]byte(`{["`), text[0]) >= 0:
		return "not valid UTF-8, though it looks like JSON: its producer uses another character encoding, such as GBK, or the value was cut"
	case !utf8.Valid(text):
		return "not valid UTF-8: it is binary data"
	case !json.Valid(text):
		return describeText(text)
	case text[0] == '"':
		return "not a JSON object but a JSON string" + doubleEncoding(text)
	case text[0] == '[' && bytes.IndexByte(text, '{') >= 0:
		return "not a JSON object but an array: its producer puts several events into one record"
	case text[0] == '[':
		return "not a JSON object but an array"
	}
	return "not a JSON object"
}

// guidFrameBytes is the size of a frame with the schema's GUID: a one and the GUID.
const guidFrameBytes = 17

func signature(b []byte) string {
	for _, s := range signatures {
		if bytes.HasPrefix(b, []byte(s.prefix)) {
			return s.what
		}
	}
	return ""
}

// isWide reports whether a value is text with two or four bytes for a character.
func isWide(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	return bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) ||
		b[0] == '{' && b[1] == 0 || b[0] == 0 && b[1] == '{' && b[2] == 0 || bytes.HasPrefix(b, []byte("\x00\x00\x00{"))
}

// describeText describes valid UTF-8 that is not JSON.
func describeText(text []byte) string {
	encoding := decoded(string(text))
	switch {
	case encoding != "":
		return encoding + ", not JSON: its producer encodes the value"
	case severalObjects(text):
		return "not JSON but several JSON objects: its producer puts several events into one record"
	case text[0] == '<':
		return "XML or HTML, not JSON"
	case bytes.HasPrefix(text, []byte("{'")):
		return "not JSON: its names are in single quotes, as Python prints a dict"
	case text[0] == '{' && bytes.Contains(text, []byte("CallId=")):
		return "not JSON: it has name=value pairs in braces, as Java prints a map"
	}
	var v any
	return fmt.Sprintf("not JSON: %v", json.Unmarshal(text, &v))
}

func severalObjects(text []byte) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	var first json.RawMessage
	if d.Decode(&first) != nil || first[0] != '{' {
		return false
	}
	return bytes.HasPrefix(trimStart(text[d.InputOffset():]), []byte("{"))
}

// decoded names the encoding of a text that hides JSON or binary data; "": none.
func decoded(text string) string {
	const sample = 64 // characters; a multiple of 4, which base64 needs
	if len(text) < 8 {
		return ""
	}
	head := text[:min(len(text), sample)]
	plausible := func(b []byte, err error) bool {
		// The end of a text may be padded or not; its beginning is enough.
		b = trimStart(b)
		return (err == nil || len(b) > 0) && (bytes.HasPrefix(b, []byte("{")) || bytes.HasPrefix(b, []byte("[{")) || signature(b) != "")
	}
	head = strings.TrimRight(head, "=")
	switch {
	case plausible(hex.DecodeString(head[:len(head)&^1])):
		return "hexadecimal text"
	case plausible(base64.RawStdEncoding.DecodeString(head)), plausible(base64.RawURLEncoding.DecodeString(head)):
		return "base64 text"
	}
	return ""
}

// doubleEncoding says what a JSON string contains, if that is an event.
func doubleEncoding(value []byte) string {
	s, ok := scalarText(value)
	if !ok || value[0] != '"' {
		return ""
	}
	if inner := unwrap([]byte(s)); len(inner) > 0 && inner[0] == '{' && json.Valid(inner) {
		return ", a string that contains JSON: its producer encodes it twice"
	}
	if what := decoded(s); what != "" {
		return ", a string that contains " + what + ": its producer encodes it twice"
	}
	return ""
}

// whereElse says where an object without a CallId seems to have one: under another
// spelling, or in an envelope.
func whereElse(object []byte) string {
	fields := make(map[string][]byte)
	spelling, inside := "", ""
	forEachMember(object, func(name, value []byte) bool {
		n := string(name)
		fields[n] = value
		switch {
		case spelling == "" && isCallID(n):
			spelling = n
		case n == "CallRecord" && value[0] == '{':
			forEachMember(value, func(name, _ []byte) bool {
				if isCallID(string(name)) {
					spelling = string(name)
				}
				return spelling == ""
			})
		case inside == "" && hasCallID(value):
			inside = n
		}
		return true
	})
	_, schema := fields["schema"]
	_, payload := fields["payload"]
	_, version := fields["specversion"]
	switch {
	case spelling != "":
		return fmt.Sprintf(", but %.40q: the field must be CallId", spelling)
	case schema && payload:
		return ": it is an envelope of schema and payload, as Kafka Connect writes with schemas.enable=true; the value must be what is in payload"
	case version:
		return ": it is a structured CloudEvent; the value must be what is in data, as in the binary mode"
	case inside != "":
		return fmt.Sprintf(": there is one in its field %.40q; the value must be what is in that field", inside)
	}
	return ""
}

// hasCallID reports whether a value is an object with a CallId, or a string that
// contains one.
func hasCallID(value []byte) (found bool) {
	if value[0] == '"' {
		s, _ := scalarText(value)
		if value = unwrap([]byte(s)); len(value) == 0 || value[0] != '{' || !json.Valid(value) {
			return false
		}
	}
	if value[0] != '{' {
		return false
	}
	forEachMember(value, func(name, value []byte) bool {
		found = isCallID(string(name)) || string(name) == "CallRecord" && value[0] == '{' && hasCallID(value) // one level deeper
		return !found
	})
	return found
}

// isCallID reports whether a name is CallId in some spelling.
func isCallID(name string) bool {
	return strings.EqualFold(strings.NewReplacer("_", "", "-", "", " ", "", ".", "").Replace(name), "CallId")
}
