package consumer_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

// endCallWith is the event of a call that carries a record.
func endCallWith(t testing.TB, r *schemas.CallRecord, at time.Time) []byte {
	t.Helper()
	record, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"CallbackCommand":"Call.CallbackAfterEndCall","CallRecord":%s,"EventTime":%d}`, record, at.UnixMilli())
}

// feedOwn feeds an event that carries the record of a call, changed, and must be
// enriched from it, or from the API's record.
func (e *env) feedOwn(partition int32, callID string, own bool, change func(*schemas.CallRecord)) {
	e.T.Helper()
	r := e.API.RecordFor(callID)
	if change != nil {
		change(&r)
	}
	event := audittest.Enriched(e.API, callID)
	event.Value = endCallWith(e.T, &r, time.Now())
	if own {
		event.Enriched = schemas.EncodeJSON(&r).Value
	}
	e.Feed(partition, event)
}

func with(mode consumer.EventRecord, sample float64) func(*consumer.Config) {
	return func(c *consumer.Config) { c.EventRecord, c.VerifySample = mode, sample }
}

func otherRoom(r *schemas.CallRecord) { r.RoomID = "of the event" }

// TestEventRecordFirst: complete records of events are used at once, others are
// looked up, while the API is down too. The API's record is preferred where it is known.
func TestEventRecordFirst(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		i := e.Start("a", with(consumer.UseFirst, 0))
		for n := range 10 * partitions {
			e.feedOwn(int32(n%partitions), fmt.Sprintf("own-%d", n), true, otherRoom)
		}
		start := time.Now()
		e.Await(time.Minute)
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		if n := e.API.Requests(); n != 0 {
			t.Errorf("%d requests", n)
		}

		e.FeedCalls("looked-up-", partitions)
		for p := range int32(partitions) { // incomplete and contradictory ones
			e.feedOwn(p, fmt.Sprintf("incomplete-%d", p), false, func(r *schemas.CallRecord) { r.End = 0 })
			e.feedOwn(p, fmt.Sprintf("contradictory-%d", p), false, func(r *schemas.CallRecord) { r.Start, r.End = r.End+1, r.Start })
		}
		e.Await(time.Minute)
		// These are in the cache now.
		for p := range int32(partitions) {
			e.feedOwn(p, fmt.Sprintf("incomplete-%d", p), false, otherRoom)
		}
		e.Await(time.Minute)

		e.API.SetOutage(fetchtest.BadGateway())
		for n := range partitions {
			e.feedOwn(int32(n), fmt.Sprintf("outage-%d", n), true, nil)
		}
		start = time.Now()
		e.Await(time.Minute)
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v while the API was down", took)
		}
		e.Check()
		if own, api := i.Metric("enricher_enriched_records_total", "event"), i.Metric("enricher_enriched_records_total", "api"); own != 11*partitions || api != 4*partitions {
			t.Errorf("%v records of events and %v of the API used, want %v and %v", own, api, 11*partitions, 4*partitions)
		}
	})
}

// TestEventRecordFallback: an event that would become a dead letter for lack of the
// API's record is enriched from its own, and so is its dead letter when it is replayed.
func TestEventRecordFallback(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		i := e.Start("a", with(consumer.UseFallback, 0))
		for p := range int32(partitions) {
			found, lost, incomplete := fmt.Sprintf("found-%d", p), fmt.Sprintf("lost-%d", p), fmt.Sprintf("incomplete-%d", p)
			e.feedOwn(p, found, false, otherRoom)
			e.API.Never(lost)
			e.feedOwn(p, lost, true, nil)
			e.feedOwn(p, lost, true, otherRoom) // a repeated callback that differs
			e.API.Never(incomplete)
			r := e.API.RecordFor(incomplete)
			r.Result = ""
			e.Feed(p, audit.Expect{Value: endCallWith(t, &r, time.Now()), Reasons: []schemas.Reason{schemas.NotFound}})
		}
		e.Await(5 * time.Minute)
		e.Check()
		if n := i.Metric("enricher_enriched_records_total", "event"); n != 2*partitions {
			t.Errorf("%v records of events used, want %v", n, 2*partitions)
		}
	})
}

// TestEventRecordIsCountedOnce: a record that cannot be used is counted once, however
// often the call is requested again while its dead letter is withheld.
func TestEventRecordIsCountedOnce(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		i := e.Start("a", with(consumer.UseFallback, 0), func(c *consumer.Config) { c.MaxConsecutiveDeadLetters = 1 })
		for p := range int32(partitions) {
			id := fmt.Sprintf("lost-%d", p)
			e.API.Never(id)
			e.FeedDead(p, audittest.EndCall(id, time.Now()), schemas.NotFound)
		}
		<-time.After(30 * time.Minute)
		for p := range int32(partitions) { // each releases those that are withheld
			e.FeedCall(p, fmt.Sprintf("found-%d", p))
			<-time.After(5 * time.Minute)
		}
		e.Check()
		if n := i.Metric("enricher_event_records_total", "incomplete"); n != partitions {
			t.Errorf("%v incomplete records counted, want %d", n, partitions)
		}
	})
}

// TestEventRecordNever: by default events' records are not used.
func TestEventRecordNever(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		e.Start("a")
		for p := range int32(partitions) {
			e.feedOwn(p, fmt.Sprintf("found-%d", p), false, otherRoom)
			id := fmt.Sprintf("lost-%d", p)
			e.API.Never(id)
			r := e.API.RecordFor(id)
			e.Feed(p, audit.Expect{Value: endCallWith(t, &r, time.Now()), Reasons: []schemas.Reason{schemas.NotFound}})
		}
		e.Await(5 * time.Minute)
		e.Check()
	})
}

// TestEventRecordVerified: output does not wait for verification, which uses what the
// rate leaves.
func TestEventRecordVerified(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		i := e.Start("a", with(consumer.UseFirst, 0.1))
		for n := range 1000 {
			change := otherRoom
			if n%2 == 0 {
				change = nil
			}
			e.feedOwn(int32(n%partitions), fmt.Sprintf("own-%d", n), true, change)
		}
		e.Await(time.Minute)
		if n := e.API.Requests(); n != 0 {
			t.Errorf("%d requests before any was due", n)
		}
		<-time.After(2 * time.Minute)
		e.Check()
		equal, different := i.Metric("enricher_event_record_verifications_total", "equal"), i.Metric("enricher_event_record_verifications_total", "different")
		if equal < 30 || different < 30 || equal+different > 150 || i.Metric("enricher_event_record_differences_total", "room_id") != different {
			t.Errorf("%v equal, %v different, want about 50 each", equal, different)
		}
	})
}
