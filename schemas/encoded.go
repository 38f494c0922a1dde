package schemas

// Encoded is what the enriched records of a call have in common, ready to be
// written. Everyone who gets one shares it, so it is only read.
type Encoded struct {
	Value  []byte // the enriched record, in the output format
	Caller string
	End    int64 // of the call, in Unix seconds; 0: not known
}

// EncodeJSON enriches a call record and encodes the result as JSON.
func EncodeJSON(r *CallRecord) Encoded {
	e := Enrich(r)
	return Encoded{Value: e.Encode(), Caller: e.Caller, End: e.EndTime}
}

// RecordSource says where the call record of an enriched record came from: a value
// of HeaderRecordSource.
type RecordSource string

const (
	FromAPI   RecordSource = "api"
	FromEvent RecordSource = "event" // the event carried it
)
