package schemas_test

import (
	"encoding/json"
	"fmt"

	"enricher/schemas"
)

// An event is the body of a callback, or just a CallId. Callbacks of other types
// are skipped; anything else is malformed.
func ExampleParseEvent() {
	for _, value := range []string{
		`{"CallbackCommand":"Call.CallbackAfterEndCall","CallRecord":{"CallId":"5c2f7f0e"},"EventTime":1764000067412}`,
		`{"CallId":"5c2f7f0e"}`,
		`{"CallbackCommand":"Call.CallbackAfterStartCall","CallRecord":{"CallId":"5c2f7f0e"}}`,
		`{"CallbackCommand":"Call.CallbackAfterEndCall","EventTime":1764000067412}`,
	} {
		event, err := schemas.ParseEvent([]byte(value))
		switch {
		case err != nil:
			fmt.Println("malformed:", err)
		case event.IsOtherCallback():
			fmt.Println("skipped:", event.Command)
		default:
			fmt.Println("CallId", event.CallID, "sent at", event.Time)
		}
	}
	// Output:
	// CallId 5c2f7f0e sent at 1764000067412
	// CallId 5c2f7f0e sent at 0
	// skipped: Call.CallbackAfterStartCall
	// malformed: the event has no CallId
}

// The enriched record depends only on the call record: callees without the caller,
// and durations in seconds.
func ExampleEnrich() {
	var record schemas.CallRecord
	err := json.Unmarshal([]byte(`{"CallId":"5c2f7f0e","Caller_Account":"alice","MediaType":"Video","CallType":"SingleCall",
		"StartTime":1764000000,"AcceptTime":1764000007,"EndTime":1764000067,"CallResult":"NormalEnd",
		"CalleeList_Account":["alice","bob"],"RoomId":"8841","RoomIdType":1}`), &record)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", schemas.Enrich(&record).Encode())
	// Output:
	// {"schema_version":1,"call_id":"5c2f7f0e","caller":"alice","callees":["bob"],"media_type":"Video","call_type":"SingleCall","result":"NormalEnd","room_id":"8841","room_id_type":1,"start_time":1764000000,"accept_time":1764000007,"end_time":1764000067,"answered":true,"ring_seconds":7,"talk_seconds":60,"total_seconds":67}
}
