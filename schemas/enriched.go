package schemas

import "slices"

// Version is the schema version of enriched records.
const Version = 1

// Enriched is the value of an enriched record. It depends only on the call record
// and on Version, so all events of a call have identical values. Schemas:
// enriched.schema.json, enriched.avsc, enriched.proto.
type Enriched struct {
	SchemaVersion int       `json:"schema_version"`
	Revision      int64     `json:"revision,omitempty"` // reserved; 0: absent, which means 1
	CallID        string    `json:"call_id"`
	Caller        string    `json:"caller"`
	Callees       []string  `json:"callees"` // without the caller, each once, in the API's order
	MediaType     string    `json:"media_type"`
	CallType      string    `json:"call_type"`
	Result        string    `json:"result"`
	RoomID        string    `json:"room_id"`
	RoomIDType    int       `json:"room_id_type"`
	StartTime     int64     `json:"start_time"`            // Unix seconds; 0: not known
	AcceptTime    int64     `json:"accept_time,omitempty"` // Unix seconds; absent if never answered, or not known
	EndTime       int64     `json:"end_time"`              // Unix seconds; 0: not known
	Answered      bool      `json:"answered"`
	RingSeconds   *int64    `json:"ring_seconds,omitempty"`
	TalkSeconds   *int64    `json:"talk_seconds,omitempty"`
	TotalSeconds  *int64    `json:"total_seconds,omitempty"`
	Anomalies     []Anomaly `json:"anomalies,omitempty"`
}

// Enrich returns the enriched record of a call.
func Enrich(r *CallRecord) Enriched {
	d := ComputeDurations(r.Start, r.Accept, r.End, r.Result)
	return Enriched{
		SchemaVersion: Version,
		CallID:        r.CallID,
		Caller:        r.Caller,
		Callees:       calleesOf(r),
		MediaType:     r.MediaType,
		CallType:      r.CallType,
		Result:        r.Result,
		RoomID:        r.RoomID,
		RoomIDType:    r.RoomIDType,
		StartTime:     known(r.Start),
		AcceptTime:    known(r.Accept),
		EndTime:       known(r.End),
		Answered:      d.Answered,
		RingSeconds:   d.Ring,
		TalkSeconds:   d.Talk,
		TotalSeconds:  d.Total,
		Anomalies:     d.Anomalies,
	}
}

// fewCallees is up to how many callees comparing each with all others is faster
// than a map.
const fewCallees = 16

// calleesOf returns the callees without the caller, each once.
func calleesOf(r *CallRecord) []string {
	callees := make([]string, 0, len(r.Callees))
	seen := func(c string) bool { return slices.Contains(callees, c) }
	if len(r.Callees) > fewCallees {
		all := make(map[string]struct{}, len(r.Callees))
		seen = func(c string) bool {
			before := len(all)
			all[c] = struct{}{}
			return len(all) == before
		}
	}
	for _, c := range r.Callees {
		if c != r.Caller && !seen(c) {
			callees = append(callees, c)
		}
	}
	return callees
}

// known returns a time, or 0 if it is not a plausible one.
func known(t int64) int64 {
	if !plausible(t) {
		return 0
	}
	return t
}

// Encode returns the value in JSON, with its fields in order.
func (e Enriched) Encode() []byte { return JSON.Append(nil, &e) }
