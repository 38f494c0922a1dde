package lookup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"enricher/schemas"
)

// ownRecord is the record that the event of a call carries.
func ownRecord(callID string) *schemas.CallRecord {
	return &schemas.CallRecord{CallID: callID, End: 1, Result: "own"}
}

// withRecord adds an event that carries a record.
func (e *env) withRecord(callID string, age time.Duration) {
	e.Add([]*Event{{
		CallID: callID, Time: time.Now().Add(-age), Assignment: 1,
		Record: func() *schemas.CallRecord { return ownRecord(callID) },
	}})
}

// TestOwnRecordReplacesDeadLetter: an event's own record is used where the API has
// none to the end, and only there.
func TestOwnRecordReplacesDeadLetter(t *testing.T) {
	const week = 8 * 24 * time.Hour
	for _, c := range []struct {
		name, script string
		age          time.Duration
		want         string
	}{
		{"found late", "not_yet not_yet found", 0, "call miss@20"},
		{"not found", "not_yet", 0, "call @120"},
		{"expired", "not_yet", week, "call @10"},
		{"not ended", "not_ended", 0, "call not_ended after 6@120"},
		{"rejected", "rejected", 0, "call rejected after 1@5"},
	} {
		spec(t, c.name, func(e *env) {
			e.script("call", c.script)
			e.withRecord("call", c.age)
			e.expect("outcomes", e.run(3*time.Minute), c.want)
		})
	}
	for _, script := range []string{"retry", "unknown_code"} {
		spec(t, script+" while others succeed", func(e *env) {
			e.script("call", script)
			e.withRecord("call", 0)
			for n := range 400 {
				e.event("other"+strconv.Itoa(n), 5*time.Second, 1)
				e.run(time.Second)
			}
			i := slices.IndexFunc(e.completed, func(o string) bool { return strings.HasPrefix(o, "call ") })
			if i < 0 {
				e.t.Fatal("no outcome")
			}
			if own := strings.HasPrefix(e.completed[i], "call @"); own != (script == "retry") {
				e.t.Errorf("outcome %q", e.completed[i])
			}
		})
	}
}

// TestOwnRecordsAreNotWithheld: events with a record of their own pass the guard,
// those without one beside them, of the same call too, do not.
func TestOwnRecordsAreNotWithheld(t *testing.T) {
	spec(t, "", func(e *env) {
		for n := range 10 {
			id := "call" + strconv.Itoa(n)
			e.script(id, "not_yet")
			e.event(id, time.Hour, 1)
			e.withRecord(id, time.Hour)
		}
		own, dead := 0, 0
		e.run(3 * time.Minute)
		for _, o := range e.completed {
			if strings.Contains(o, " @") {
				own++
			} else {
				dead++
			}
		}
		if own != 10 || dead != 3 {
			e.t.Errorf("%d own records used and %d dead letters, want 10 and 3: %q", own, dead, e.completed)
		}
	}, func(c *Config) { c.MaxConsecutiveDeadLetters = 3 })
}

// verifications returns the results of verifications by name.
func (e *env) verifications() map[string]int {
	n := make(map[string]int)
	for _, r := range verificationResults() {
		var m dto.Metric
		if err := e.Metrics.Verifications.WithLabelValues(r).Write(&m); err != nil {
			e.t.Fatal(err)
		}
		if v := int(m.GetCounter().GetValue()); v > 0 {
			n[r] = v
		}
	}
	return n
}

func (e *env) expectVerifications(want map[string]int) {
	e.t.Helper()
	if got := e.verifications(); fmt.Sprint(got) != fmt.Sprint(want) {
		e.t.Errorf("verifications %v, want %v", got, want)
	}
}

func TestVerification(t *testing.T) {
	spec(t, "results", func(e *env) {
		e.script("missing", "not_yet")
		e.script("failing", "retry")
		for _, id := range []string{"equal", "different", "missing", "failing"} {
			r := &schemas.CallRecord{CallID: id, End: 1}
			if id == "different" {
				r.Result, r.Caller = "Cancel", "other"
			}
			e.Verify(r)
		}
		e.expect("outcomes", e.run(2*time.Minute))
		e.expectVerifications(map[string]int{"equal": 1, "different": 1, "failed": 1, "not_found": 1})
		for _, f := range schemas.ComparedFields() {
			var m dto.Metric
			if err := e.Metrics.RecordDifferences.WithLabelValues(f).Write(&m); err != nil {
				e.t.Fatal(err)
			}
			if want := f == "result" || f == "caller"; (m.GetCounter().GetValue() == 1) != want {
				e.t.Errorf("field %s: %v differences", f, m.GetCounter().GetValue())
			}
		}
		// They are made at once; a failure before the first record has the API probed.
		requests := slices.DeleteFunc(slices.Sorted(slices.Values(e.requested())), func(r string) bool { return r == "probe@60" })
		e.expect("requests", requests, "different@60", "equal@60", "failing@60", "missing@60")
	})
	spec(t, "the API's record goes into the cache", func(e *env) {
		e.Verify(ownRecord("call"))
		e.run(time.Minute)
		e.event("call", 0, 1)
		e.expect("outcomes", e.run(time.Second), "call hit@60")
	})
	spec(t, "too many", func(e *env) {
		for n := range maxVerifications + 5 {
			e.Verify(&schemas.CallRecord{CallID: strconv.Itoa(n), End: 1})
		}
		e.run(10 * time.Minute)
		e.expectVerifications(map[string]int{"equal": maxVerifications, "dropped": 5})
	})
	spec(t, "events go first", func(e *env) {
		e.Limiter.SetShare(time.Now(), 1, 0)
		e.Verify(&schemas.CallRecord{CallID: "verified", End: 1})
		e.run(50 * time.Second)
		for n := range 40 {
			e.event("call"+strconv.Itoa(n), 5*time.Second, 1)
		}
		e.run(20 * time.Second)
		e.expectVerifications(map[string]int{})
		e.run(30 * time.Second)
		e.expectVerifications(map[string]int{"equal": 1})
	}, func(c *Config) { c.Limiter = NewLimiter(true) })
	spec(t, "an API that is down", func(e *env) {
		e.script("probe", "retry")
		e.script("event", "retry")
		e.event("event", 5*time.Second, 1)
		e.Verify(&schemas.CallRecord{CallID: "verified", End: 1})
		e.run(5 * time.Minute)
		e.expectVerifications(map[string]int{})
	})
}
