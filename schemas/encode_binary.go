package schemas

import (
	"encoding/binary"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// appendAvro appends a record as enriched.avsc describes it: its fields in order.
func appendAvro(b []byte, e *Enriched) []byte {
	b = binary.AppendVarint(b, int64(e.SchemaVersion))
	b = avroText(b, e.CallID)
	b = avroText(b, e.Caller)
	b = avroTexts(b, e.Callees)
	b = avroText(b, e.MediaType)
	b = avroText(b, e.CallType)
	b = avroText(b, e.Result)
	b = avroText(b, e.RoomID)
	b = binary.AppendVarint(b, int64(e.RoomIDType))
	b = binary.AppendVarint(b, e.StartTime)
	b = avroOptional(b, nonZero(&e.AcceptTime))
	b = binary.AppendVarint(b, e.EndTime)
	b = append(b, byte(protowire.EncodeBool(e.Answered)))
	b = avroOptional(b, e.RingSeconds)
	b = avroOptional(b, e.TalkSeconds)
	b = avroOptional(b, e.TotalSeconds)
	b = avroTexts(b, e.Anomalies)
	return avroOptional(b, nonZero(&e.Revision))
}

func avroText(b []byte, s string) []byte {
	s = validUTF8(s)
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

// avroTexts appends an array: a block of all items, unless there are none, and an
// empty one.
func avroTexts[S ~string](b []byte, all []S) []byte {
	if len(all) > 0 {
		b = binary.AppendVarint(b, int64(len(all)))
	}
	for _, s := range all {
		b = avroText(b, string(s))
	}
	return append(b, 0)
}

// avroOptional appends a union of null and long.
func avroOptional(b []byte, v *int64) []byte {
	if v == nil {
		return binary.AppendVarint(b, 0)
	}
	return binary.AppendVarint(binary.AppendVarint(b, 1), *v)
}

// appendProtobuf appends a record as enriched.proto describes it, in the order of
// the field numbers and, as proto3 demands, without fields that are zero.
func appendProtobuf(b []byte, e *Enriched) []byte {
	b = protoInt(b, 1, int64(e.SchemaVersion))
	b = protoText(b, 2, e.CallID)
	b = protoText(b, 3, e.Caller)
	b = protoTexts(b, 4, e.Callees)
	b = protoText(b, 5, e.MediaType)
	b = protoText(b, 6, e.CallType)
	b = protoText(b, 7, e.Result)
	b = protoText(b, 8, e.RoomID)
	b = protoInt(b, 9, int64(e.RoomIDType))
	b = protoInt(b, 10, e.StartTime)
	b = protoInt(b, 11, e.AcceptTime)
	b = protoInt(b, 12, e.EndTime)
	b = protoInt(b, 13, int64(protowire.EncodeBool(e.Answered)))
	b = protoOptional(b, 14, e.RingSeconds)
	b = protoOptional(b, 15, e.TalkSeconds)
	b = protoOptional(b, 16, e.TotalSeconds)
	b = protoTexts(b, 17, e.Anomalies)
	return protoInt(b, 18, e.Revision)
}

func protoInt(b []byte, n protowire.Number, v int64) []byte {
	return protoOptional(b, n, nonZero(&v))
}

func protoOptional(b []byte, n protowire.Number, v *int64) []byte {
	if v == nil {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(*v))
}

func protoText(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protoTexts(b, n, []string{s})
}

func protoTexts[S ~string](b []byte, n protowire.Number, all []S) []byte {
	for _, s := range all {
		b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), validUTF8(string(s)))
	}
	return b
}

func nonZero(v *int64) *int64 {
	if *v == 0 {
		return nil
	}
	return v
}

// validUTF8 replaces each byte that is no UTF-8 by U+FFFD, as JSON does: both formats
// require it of texts, and readers reject the whole record otherwise.
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}
