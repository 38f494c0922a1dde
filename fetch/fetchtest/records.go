package fetchtest

import (
	"strconv"

	"enricher/schemas"
)

// answer is what the API sends, as it spells it.
type answer struct {
	ActionStatus string
	ErrorCode    int
	ErrorInfo    string
	RequestID    string        `json:"RequestId"`
	Response     *responseBody `json:",omitempty"`
}

type responseBody struct{ CallRecord wireRecord }

// wireRecord spells a record as the API does. It is written down a second time
// here, apart from schemas, so that a misspelt field of one of them shows.
type wireRecord struct {
	CallID     string   `json:"CallId"`
	Caller     string   `json:"Caller_Account"`
	MediaType  string   `json:"MediaType"`
	CallType   string   `json:"CallType"`
	StartTime  int64    `json:"StartTime"`
	AcceptTime int64    `json:"AcceptTime"`
	EndTime    int64    `json:"EndTime"`
	CallResult string   `json:"CallResult"`
	Callees    []string `json:"CalleeList_Account"`
	RoomID     string   `json:"RoomId"`
	RoomIDType int      `json:"RoomIdType"`
}

// firstStart is the earliest StartTime of a simulated call, Unix seconds.
const firstStart = 1764000000

// RecordFor is the record this simulator has of callID: a pure function of the
// CallId and Config.Seed, so that a test can work out what an enriched record
// must hold. About a quarter of the calls were never answered, some have several
// callees, and the callees include the caller, as in the API's own samples.
func (a *API) RecordFor(callID string) schemas.CallRecord { return RecordFor(a.cfg.Seed, callID) }

// RecordFor is the record that a simulator with this seed has of callID.
func RecordFor(seed uint64, callID string) schemas.CallRecord {
	picks := uint64(0)
	pick := func(n uint64) uint64 {
		picks++
		return hash(seed, callID, picks) % n
	}
	caller := "user" + strconv.FormatUint(pick(5000), 10)
	callees := []string{caller}
	callType := "SingleCall"
	more := uint64(1)
	if pick(5) == 0 {
		callType, more = "MultiCall", 2+pick(3)
	}
	for range more {
		callees = append(callees, "user"+strconv.FormatUint(5000+pick(5000), 10))
	}
	start := int64(firstStart + pick(86400))
	r := schemas.CallRecord{
		CallID:     callID,
		Caller:     caller,
		Callees:    callees,
		MediaType:  []string{"Audio", "Video"}[pick(2)],
		CallType:   callType,
		Start:      start,
		RoomID:     strconv.FormatUint(1+pick(1_000_000), 10),
		RoomIDType: 1,
	}
	if pick(4) == 0 {
		r.Result = []string{"Cancel", "Reject", "NotAnswer", "CallBusy"}[pick(4)]
		r.End = start + 1 + int64(pick(45))
		return r
	}
	r.Result = "NormalEnd"
	r.Accept = start + 1 + int64(pick(20))
	r.End = r.Accept + 1 + int64(pick(1800))
	return r
}

// recordAnswer is the answer that holds callID's record.
func (a *API) recordAnswer(callID string) answer {
	r := a.RecordFor(callID)
	return answer{
		ActionStatus: "OK",
		RequestID:    "sim-" + strconv.FormatUint(hash(a.cfg.Seed, callID, 1), 16),
		Response: &responseBody{wireRecord{
			CallID:     r.CallID,
			Caller:     r.Caller,
			MediaType:  r.MediaType,
			CallType:   r.CallType,
			StartTime:  r.Start,
			AcceptTime: r.Accept,
			EndTime:    r.End,
			CallResult: r.Result,
			Callees:    r.Callees,
			RoomID:     r.RoomID,
			RoomIDType: r.RoomIDType,
		}},
	}
}
