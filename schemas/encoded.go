package schemas

import (
	"bytes"
	"strings"
)

// Encoded is what the enriched records of a call have in common, ready to be
// written. Everyone who gets one shares it, so it is only read.
type Encoded struct {
	Value    []byte // the enriched record, in the output format and with its frame
	SchemaID []byte // value of HeaderValueSchemaID; nil: none
	Caller   string
	End      int64 // of the call, in Unix seconds; 0: not known
}

// Encoder makes the values of enriched records. Its fields must not change while it
// is in use.
type Encoder struct {
	Format   Format
	Frame    []byte // what precedes each value
	SchemaID []byte // value of HeaderValueSchemaID; nil: none
}

// Encode enriches a call record and encodes the result.
func (e *Encoder) Encode(r *CallRecord) Encoded {
	record := Enrich(r)
	var typical [512]byte // is enough for a call between two people
	b := e.Format.Append(append(typical[:0], e.Frame...), &record)
	// Copies of their own size, because the cache may keep them for long.
	return Encoded{Value: bytes.Clone(b), SchemaID: e.SchemaID, Caller: strings.Clone(record.Caller), End: record.EndTime}
}

// EncodeJSON enriches a call record and encodes the result as JSON.
func EncodeJSON(r *CallRecord) Encoded { return (&Encoder{Format: JSON}).Encode(r) }

// RecordSource says where the call record of an enriched record came from: a value
// of HeaderRecordSource.
type RecordSource string

const (
	FromAPI   RecordSource = "api"
	FromEvent RecordSource = "event" // the event carried it
)
