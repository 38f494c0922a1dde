package fetchtest

import (
	"math/rand/v2"
	"strconv"

	"enricher/schemas"
)

// response is a body as the API spells it.
type response struct {
	ActionStatus string
	ErrorCode    int
	ErrorInfo    string
	RequestID    string        `json:"RequestId"`
	Response     *responseBody `json:",omitempty"`
}

type responseBody struct{ CallRecord wireRecord }

// wireRecord is a call record as the API spells it. It is spelt a second time here
// on purpose, apart from schemas, so that a misspelt field fails the tests.
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

// firstStart is the earliest StartTime of a simulated call, in Unix seconds.
const firstStart = 1764000000

// RecordFor returns the call record of callID: a pure function of the CallId and
// Config.Seed, so that a test can compute the enriched record.
func (a *API) RecordFor(callID string) schemas.CallRecord { return RecordFor(a.cfg.Seed, callID) }

// RecordFor returns the record that a simulator with this seed has of callID.
// About a third of the calls were never answered, a fifth are group calls, and the
// callees include the caller, as in the API's own samples.
func RecordFor(seed uint64, callID string) schemas.CallRecord {
	rng := rand.New(rand.NewPCG(seed, hash(seed, callID, 0)))
	caller := "user" + strconv.Itoa(rng.IntN(5000))
	callees := []string{caller}
	callType, others := "SingleCall", 1
	if rng.IntN(5) == 0 {
		callType, others = "MultiCall", 2+rng.IntN(3)
	}
	for range others {
		callees = append(callees, "user"+strconv.Itoa(5000+rng.IntN(5000)))
	}
	start := int64(firstStart + rng.IntN(86400))
	r := schemas.CallRecord{
		CallID:     callID,
		Caller:     caller,
		Callees:    callees,
		MediaType:  []string{"Audio", "Video"}[rng.IntN(2)],
		CallType:   callType,
		Start:      start,
		RoomID:     strconv.Itoa(1 + rng.IntN(1_000_000)),
		RoomIDType: 1,
	}
	ring := int64(1 + rng.IntN(45))
	if rng.IntN(3) == 0 {
		r.Result = []string{"Cancel", "Reject", "NotAnswer", "CallBusy"}[rng.IntN(4)]
		r.End = start + ring
		return r
	}
	r.Result = "NormalEnd"
	r.Accept = start + ring
	r.End = r.Accept + 1 + rng.Int64N(1800)
	return r
}

// recordResponse returns the body with the record of callID.
func (a *API) recordResponse(callID string) response {
	r := a.RecordFor(callID)
	return response{
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
