package fetchtest_test

import (
	"reflect"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

// The records are varied, consistent, and always the same for a CallId.
func TestRecordsAreVaried(t *testing.T) {
	const n = 1000
	kinds := map[string]int{}
	durations := map[int64]bool{}
	for i := range n {
		id := "call-" + strconv.Itoa(i)
		r := fetchtest.RecordFor(1, id)
		if !reflect.DeepEqual(r, fetchtest.RecordFor(1, id)) || reflect.DeepEqual(r, fetchtest.RecordFor(2, id)) {
			t.Fatalf("%s: the record is no function of seed and CallId", id)
		}
		e := schemas.Enrich(&r)
		if len(e.Anomalies) > 0 || len(e.Callees) == 0 || e.Answered != (*e.TalkSeconds > 0) {
			t.Errorf("%s", e.Encode())
		}
		kinds[r.Result]++
		kinds[r.MediaType]++
		kinds[r.CallType]++
		durations[*e.TotalSeconds] = true
	}
	for _, kind := range []string{"NormalEnd", "Cancel", "Reject", "NotAnswer", "CallBusy", "Audio", "Video", "SingleCall", "MultiCall"} {
		if kinds[kind] < n/20 {
			t.Errorf("%d of %d calls are %s", kinds[kind], n, kind)
		}
	}
	if kinds["NormalEnd"] < n/2 || len(durations) < n/4 {
		t.Errorf("%d of %d calls were answered, with %d different durations", kinds["NormalEnd"], n, len(durations))
	}
}

// MaxInAnyWindow agrees with counting from every time on.
func TestMaxInAnyWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := time.Unix(1764000000, 0)
		var times []time.Time
		for _, ms := range rapid.SliceOfN(rapid.IntRange(0, 50), 0, 30).Draw(t, "ms") {
			times = append(times, base.Add(time.Duration(ms)*time.Millisecond))
		}
		window := time.Duration(rapid.IntRange(1, 60).Draw(t, "window")) * time.Millisecond
		want := 0
		var first time.Time
		for _, from := range times {
			n := 0
			for _, at := range times {
				if d := at.Sub(from); d >= 0 && d < window {
					n++
				}
			}
			if n > want || n == want && from.Before(first) {
				want, first = n, from
			}
		}
		if got, from := fetchtest.MaxInAnyWindow(times, window); got != want || !from.Equal(first) {
			t.Errorf("%d from %v, want %d from %v", got, from.Sub(base), want, first.Sub(base))
		}
	})
}
