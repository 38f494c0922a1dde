package schemas_test

import (
	"testing"

	"enricher/schemas"
)

// BenchmarkOwnRecord is what an event costs that is enriched from its own record,
// beside parsing it.
func BenchmarkOwnRecord(b *testing.B) {
	event := []byte(`{"CallbackCommand":"Call.CallbackAfterEndCall","CallRecord":{"CallId":"5c2f7f0e-9d0b-4f4e-8a55-3d2a8f6f1b11","Caller_Account":"alice","MediaType":"Video","CallType":"SingleCall","StartTime":1764000000,"AcceptTime":1764000007,"EndTime":1764000067,"CallResult":"NormalEnd","CalleeList_Account":["alice","bob"],"RoomId":"8841","RoomIdType":1},"EventTime":1764000067412}`)
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := schemas.ParseEvent(event); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("record", func(b *testing.B) {
		b.ReportAllocs()
		e, _ := schemas.ParseEvent(event)
		for b.Loop() {
			if r, _ := e.OwnRecord(); r == nil {
				b.Fatal("not complete")
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		e, _ := schemas.ParseEvent(event)
		r, _ := e.OwnRecord()
		for b.Loop() {
			schemas.EncodeJSON(r)
		}
	})
}
