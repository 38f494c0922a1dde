package schemas

import (
	"hash/fnv"
	"slices"
)

// RecordState says how far the record that an event carries can replace the API's.
type RecordState string

// The states.
const (
	NoRecord            RecordState = "none"          // the event carries none
	IncompleteRecord    RecordState = "incomplete"    // start, end or result is missing, or a field cannot be read
	ContradictoryRecord RecordState = "contradictory" // its times contradict each other or its result, or there are two
	CompleteRecord      RecordState = "complete"
)

// RecordStates returns all states.
func RecordStates() []RecordState {
	return []RecordState{NoRecord, IncompleteRecord, ContradictoryRecord, CompleteRecord}
}

// OwnRecord returns the record that the event itself carries, with the event's
// CallId. Only a complete one may be used in place of the API's; the record is nil if
// it is not complete.
func (e *Event) OwnRecord() (*CallRecord, RecordState) {
	switch {
	case e.records > 1:
		return nil, ContradictoryRecord
	case e.record == nil:
		return nil, NoRecord
	}
	r := &CallRecord{}
	if err := r.UnmarshalJSON(e.record); err != nil {
		return nil, IncompleteRecord
	}
	r.CallID = e.CallID // ParseEvent has found no other one
	if r.Start == 0 || r.End == 0 || r.Result == "" {
		return nil, IncompleteRecord
	}
	for _, a := range ComputeDurations(r.Start, r.Accept, r.End, r.Result).Anomalies {
		if a != LongerThanADay { // calls of days are real
			return nil, ContradictoryRecord
		}
	}
	return r, CompleteRecord
}

// Sampled reports whether a call belongs to a fraction of all calls. All instances
// choose the same ones.
func Sampled(callID string, fraction float64) bool {
	if fraction <= 0 {
		return false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(callID))
	const steps = 1 << 53 // the lower bits vary most
	return float64(h.Sum64()%steps) < fraction*steps
}

// Differences returns the fields of the enriched record in which two records of a
// call differ, by their names in JSON, in order. Durations are not among them: they
// follow from the times.
func Differences(a, b *CallRecord) []string {
	x, y := Enrich(a), Enrich(b)
	var fields []string
	for i, same := range [...]bool{
		x.Caller == y.Caller, slices.Equal(x.Callees, y.Callees), x.MediaType == y.MediaType, x.CallType == y.CallType,
		x.Result == y.Result, x.RoomID == y.RoomID, x.RoomIDType == y.RoomIDType,
		x.StartTime == y.StartTime, x.AcceptTime == y.AcceptTime, x.EndTime == y.EndTime,
	} {
		if !same {
			fields = append(fields, comparedFields[i])
		}
	}
	return fields
}

var comparedFields = [...]string{
	"caller", "callees", "media_type", "call_type", "result", "room_id", "room_id_type", "start_time", "accept_time", "end_time",
}

// ComparedFields returns the fields that Differences can return.
func ComparedFields() []string { return comparedFields[:] }
