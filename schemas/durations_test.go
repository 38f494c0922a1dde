package schemas_test

import (
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"enricher/schemas"
)

const absent = int64(-1)

// Every order and absence of the three times.
func TestComputeDurations(t *testing.T) {
	const s = 1764000000
	implausible := []schemas.Anomaly{schemas.ImplausibleTime}
	for _, c := range []struct {
		name               string
		start, accept, end int64
		result             string
		answered           bool
		ring, talk, total  int64
		anomalies          []schemas.Anomaly
	}{
		{name: "answered", start: s, accept: s + 7, end: s + 67, result: "NormalEnd", answered: true, ring: 7, talk: 60, total: 67},
		{name: "never answered", start: s, end: s + 30, result: "NotAnswer", ring: 30, talk: 0, total: 30},
		{name: "cancelled at once", start: s, end: s, result: "Cancel", ring: 0, talk: 0, total: 0},
		{name: "answered and ended at once", start: s, accept: s, end: s, result: "NormalEnd", answered: true},
		{name: "normal end, never answered", start: s, end: s + 30, result: "NormalEnd", ring: absent, talk: absent, total: 30, anomalies: []schemas.Anomaly{schemas.NoAcceptTime}},
		{name: "unknown result", start: s, accept: s + 1, end: s + 2, result: "Teleported", answered: true, ring: 1, talk: 1, total: 2},
		{name: "accept before start", start: s, accept: s - 1, end: s + 10, result: "NormalEnd", answered: true, ring: absent, talk: absent, total: 10, anomalies: []schemas.Anomaly{schemas.AcceptBeforeStart}},
		{name: "accept after end", start: s, accept: s + 11, end: s + 10, result: "NormalEnd", answered: true, ring: absent, talk: absent, total: 10, anomalies: []schemas.Anomaly{schemas.AcceptAfterEnd}},
		{name: "end before start", start: s, end: s - 10, result: "Cancel", ring: absent, talk: absent, total: absent, anomalies: []schemas.Anomaly{schemas.EndBeforeStart}},
		{name: "all three backwards", start: s, accept: s - 5, end: s - 10, result: "NormalEnd", answered: true, ring: absent, talk: absent, total: absent,
			anomalies: []schemas.Anomaly{schemas.EndBeforeStart, schemas.AcceptBeforeStart, schemas.AcceptAfterEnd}},
		{name: "no end", start: s, accept: s + 5, result: "NormalEnd", answered: true, ring: 5, talk: absent, total: absent, anomalies: []schemas.Anomaly{schemas.NoEndTime}},
		{name: "no end, never answered", start: s, result: "Offline", ring: absent, talk: absent, total: absent, anomalies: []schemas.Anomaly{schemas.NoEndTime}},
		{name: "no start", accept: s, end: s + 5, result: "NormalEnd", answered: true, ring: absent, talk: 5, total: absent, anomalies: []schemas.Anomaly{schemas.NoStartTime}},
		{name: "nothing", result: "", ring: absent, talk: absent, total: absent, anomalies: []schemas.Anomaly{schemas.NoStartTime, schemas.NoEndTime}},
		{name: "negative times", start: -5, accept: -3, end: -1, result: "Cancel", ring: absent, talk: absent, total: absent, anomalies: implausible},
		{name: "negative accept", start: s, accept: -1, end: s + 30, result: "Cancel", ring: absent, talk: absent, total: 30, anomalies: implausible},
		{name: "milliseconds", start: s * 1000, accept: s*1000 + 7000, end: s*1000 + 67000, result: "NormalEnd", answered: true, ring: absent, talk: absent, total: absent, anomalies: implausible},
		{name: "milliseconds, never answered", start: s * 1000, end: s*1000 + 30000, result: "Cancel", ring: absent, talk: absent, total: absent, anomalies: implausible},
		{name: "microseconds", start: s * 1e6, end: s*1e6 + 3e7, result: "Cancel", ring: absent, talk: absent, total: absent, anomalies: implausible},
		{name: "centiseconds", start: s * 100, end: s*100 + 3000, result: "Cancel", ring: absent, talk: absent, total: absent, anomalies: implausible},
		{name: "only the end in milliseconds", start: s, accept: s + 7, end: s*1000 + 67000, result: "NormalEnd", answered: true, ring: 7, talk: absent, total: absent, anomalies: implausible},
		{name: "only the start in milliseconds", start: s * 1000, accept: s + 7, end: s + 67, result: "NormalEnd", answered: true, ring: absent, talk: 60, total: absent, anomalies: implausible},
		{name: "only accept in milliseconds", start: s, accept: s*1000 + 7000, end: s + 67, result: "NormalEnd", answered: true, ring: absent, talk: absent, total: 67, anomalies: implausible},
		{name: "seconds since a restart", start: 100, accept: 107, end: 167, result: "NormalEnd", answered: true, ring: absent, talk: absent, total: absent, anomalies: implausible},
		{name: "start in seconds since a restart", start: 100, end: s, result: "Cancel", ring: absent, talk: absent, total: absent, anomalies: implausible},
		{name: "accept in seconds since the start", start: s, accept: 7, end: s + 67, result: "NormalEnd", answered: true, ring: absent, talk: absent, total: 67, anomalies: implausible},
		{name: "the first second of 2015", start: schemas.EarliestTime, end: schemas.EarliestTime + 5, result: "Cancel", ring: 5, talk: 0, total: 5},
		{name: "the last of 2014", start: schemas.EarliestTime - 1, end: schemas.EarliestTime + 5, result: "Cancel", ring: absent, talk: absent, total: absent, anomalies: implausible},
		{name: "the first of 2100", start: schemas.LatestTime - 5, end: schemas.LatestTime, result: "Cancel", ring: absent, talk: absent, total: absent, anomalies: implausible},
		{name: "the largest number", start: s, accept: s, end: math.MaxInt64, result: "NormalEnd", answered: true, ring: 0, talk: absent, total: absent, anomalies: implausible},
		{name: "no start, end in milliseconds", end: s * 1000, result: "Cancel", ring: absent, talk: absent, total: absent, anomalies: []schemas.Anomaly{schemas.NoStartTime, schemas.ImplausibleTime}},
		{name: "a day", start: s, accept: s, end: s + 86400, result: "NormalEnd", answered: true, ring: 0, talk: 86400, total: 86400},
		{name: "53 hours", start: s, accept: s + 10, end: s + 53*3600, result: "NormalEnd", answered: true, ring: 10, talk: 53*3600 - 10, total: 53 * 3600, anomalies: []schemas.Anomaly{schemas.LongerThanADay}},
		{name: "5 days", start: s, accept: s + 1, end: s + 5*86400, result: "Interrupt", answered: true, ring: 1, talk: 5*86400 - 1, total: 5 * 86400, anomalies: []schemas.Anomaly{schemas.LongerThanADay}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := schemas.ComputeDurations(c.start, c.accept, c.end, c.result)
			for _, f := range []struct {
				name string
				got  *int64
				want int64
			}{{"ring", d.Ring, c.ring}, {"talk", d.Talk, c.talk}, {"total", d.Total, c.total}} {
				if (f.got == nil) != (f.want == absent) || f.got != nil && *f.got != f.want {
					t.Errorf("%s is %v, want %d", f.name, deref(f.got), f.want)
				}
			}
			if d.Answered != c.answered || !slices.Equal(d.Anomalies, c.anomalies) {
				t.Errorf("answered %v, anomalies %v; want %v, %v", d.Answered, d.Anomalies, c.answered, c.anomalies)
			}
			checkDurations(t, d)
		})
	}
}

func deref(p *int64) any {
	if p == nil {
		return "absent"
	}
	return *p
}

func TestDurationsOfAnyTimes(t *testing.T) {
	times := rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 10), rapid.Int64Range(1764000000, 1764000100))
	rapid.Check(t, func(t *rapid.T) {
		checkDurations(t, schemas.ComputeDurations(times.Draw(t, "start"), times.Draw(t, "accept"), times.Draw(t, "end"),
			rapid.SampledFrom([]string{"NormalEnd", "Cancel", ""}).Draw(t, "result")))
	})
}

// checkDurations checks that no duration is negative, that they add up, and that
// an anomaly explains each absent one.
func checkDurations(t interface {
	Helper()
	Errorf(string, ...any)
}, d schemas.Durations) {
	t.Helper()
	for name, v := range map[string]*int64{"ring": d.Ring, "talk": d.Talk, "total": d.Total} {
		if v != nil && *v < 0 {
			t.Errorf("%s is %d", name, *v)
		}
		if v == nil && len(d.Anomalies) == 0 {
			t.Errorf("%s is absent, and no anomaly says why", name)
		}
	}
	if d.Ring != nil && d.Talk != nil && d.Total != nil && *d.Ring+*d.Talk != *d.Total {
		t.Errorf("%d + %d is not %d", *d.Ring, *d.Talk, *d.Total)
	}
	if !d.Answered && d.Talk != nil && *d.Talk != 0 {
		t.Errorf("a call that was never answered was talked in for %d s", *d.Talk)
	}
	for _, a := range d.Anomalies {
		if !slices.Contains(schemas.Anomalies(), a) {
			t.Errorf("anomaly %q is not listed", a)
		}
	}
}

func TestCalleesAreDistinctAndExcludeCaller(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{nil, []string{}},
		{[]string{"a"}, []string{}},
		{[]string{"a", "b"}, []string{"b"}},
		{[]string{"c", "a", "b", "c", "a", "b"}, []string{"c", "b"}},
	} {
		if got := schemas.Enrich(&schemas.CallRecord{Caller: "a", Callees: c.in}).Callees; !slices.Equal(got, c.want) || got == nil {
			t.Errorf("%v: %#v, want %v", c.in, got, c.want)
		}
	}
}

// A record of 100,000 callees takes about a hundred times as long as one of 1,000,
// not ten thousand times.
func TestManyCalleesTakeLinearTime(t *testing.T) {
	enrich := func(callees int) (time.Duration, schemas.Enriched) {
		r := schemas.CallRecord{Caller: "caller"}
		for n := range callees {
			r.Callees = append(r.Callees, "callee-"+strconv.Itoa(n/2), "caller")
		}
		best, e := time.Hour, schemas.Enriched{}
		for range 5 {
			start := time.Now()
			e = schemas.Enrich(&r)
			best = min(best, time.Since(start))
		}
		return best, e
	}
	few, _ := enrich(1_000)
	many, e := enrich(100_000)
	if len(e.Callees) != 50_000 || e.Callees[49_999] != "callee-49999" {
		t.Errorf("%d callees", len(e.Callees))
	}
	if many > 2_000*few {
		t.Errorf("100,000 callees took %v, 1,000 took %v", many, few)
	}
}
