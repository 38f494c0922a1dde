package schemas_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"enricher/schemas"
)

// TestOwnRecord says which records of events may replace the API's.
func TestOwnRecord(t *testing.T) {
	const (
		start, accept, end = `"StartTime":1764000000`, `"AcceptTime":1764000007`, `"EndTime":1764000067`
		result, id         = `"CallResult":"NormalEnd"`, `"CallId":"id"`
	)
	record := func(members ...string) string { return `{"CallRecord":{` + strings.Join(members, ",") + `}}` }
	for name, c := range map[string]struct {
		event string
		want  schemas.RecordState
	}{
		"all there":                      {record(id, start, accept, end, result), schemas.CompleteRecord},
		"never answered":                 {record(id, start, end, `"CallResult":"Cancel"`), schemas.CompleteRecord},
		"times as text":                  {record(id, `"StartTime":"1764000000"`, accept, end, result), schemas.CompleteRecord},
		"the CallId beside it":           {`{"CallId":"id","CallRecord":{` + strings.Join([]string{start, accept, end, result}, ",") + `}}`, schemas.CompleteRecord},
		"CallId as a number":             {record(`"CallId":17`, start, accept, end, result), schemas.CompleteRecord},
		"a call of two days":             {record(id, start, `"AcceptTime":1764000000`, `"EndTime":1764172800`, result), schemas.CompleteRecord},
		"null among the rest":            {record(id, start, accept, end, result, `"RoomId":null`), schemas.CompleteRecord},
		"a bare CallId":                  {`{"CallId":"id"}`, schemas.NoRecord},
		"null":                           {`{"CallId":"id","CallRecord":null}`, schemas.NoRecord},
		"only a CallId":                  {record(id), schemas.IncompleteRecord},
		"no start":                       {record(id, accept, end, result), schemas.IncompleteRecord},
		"no end":                         {record(id, start, accept, result), schemas.IncompleteRecord},
		"end 0":                          {record(id, start, accept, `"EndTime":0`, result), schemas.IncompleteRecord},
		"no result":                      {record(id, start, accept, end), schemas.IncompleteRecord},
		"empty result":                   {record(id, start, accept, end, `"CallResult":""`), schemas.IncompleteRecord},
		"a time that is none":            {record(id, start, accept, `"EndTime":"late"`, result), schemas.IncompleteRecord},
		"callees that are no list":       {record(id, start, accept, end, result, `"CalleeList_Account":"bob"`), schemas.IncompleteRecord},
		"ended before it started":        {record(id, start, `"EndTime":1763999999`, `"CallResult":"Cancel"`), schemas.ContradictoryRecord},
		"answered before it started":     {record(id, start, `"AcceptTime":1763999999`, end, result), schemas.ContradictoryRecord},
		"answered after its end":         {record(id, start, `"AcceptTime":1764000068`, end, result), schemas.ContradictoryRecord},
		"ended normally, never answered": {record(id, start, end, result), schemas.ContradictoryRecord},
		"in milliseconds":                {record(id, `"StartTime":1764000000000`, `"EndTime":1764000067000`, `"CallResult":"Cancel"`), schemas.ContradictoryRecord},
		"two records":                    {`{"CallRecord":{` + strings.Join([]string{id, start, accept, end, result}, ",") + `},"CallRecord":{` + id + `}}`, schemas.ContradictoryRecord},
		"framed by a schema registry":    {"\x00\x00\x00\x00\x07" + record(id, start, accept, end, result), schemas.CompleteRecord},
	} {
		e, err := schemas.ParseEvent([]byte(c.event))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r, got := e.OwnRecord()
		if got != c.want || (r != nil) != (c.want == schemas.CompleteRecord) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if r != nil && r.CallID != e.CallID {
			t.Errorf("%s: CallId %q, want %q", name, r.CallID, e.CallID)
		}
	}
}

// The same calls are in every sample that is large enough, in the right proportion.
func TestSampled(t *testing.T) {
	const calls = 100_000
	fractions := []float64{0, 0.001, 0.01, 0.3, 1}
	n := make([]int, len(fractions))
	for i := range calls {
		id := "8a1f77c2-4be0-4d51-9d0c-" + fmt.Sprintf("%012d", i)
		in := slices.IndexFunc(fractions, func(f float64) bool { return schemas.Sampled(id, f) })
		for j := range fractions {
			if got := schemas.Sampled(id, fractions[j]); got != (in >= 0 && j >= in) {
				t.Fatalf("%s is in sample %v: %v, though it is in that of %v", id, fractions[j], got, fractions[in])
			} else if got {
				n[j]++
			}
		}
	}
	for j, f := range fractions {
		if got := float64(n[j]) / calls; got < f*0.8 || got > f*1.2 {
			t.Errorf("%v of the calls sampled, want %v", got, f)
		}
	}
}

func TestDifferences(t *testing.T) {
	base := schemas.CallRecord{CallID: "id", Caller: "a", Callees: []string{"b", "c"}, MediaType: "Audio", CallType: "MultiCall", Start: 1764000000,
		Accept: 1764000007, End: 1764000067, Result: "NormalEnd", RoomID: "1", RoomIDType: 1}
	if d := schemas.Differences(&base, &base); d != nil {
		t.Errorf("with itself: %v", d)
	}
	withCaller := base
	withCaller.Callees = []string{"a", "b", "c", "b"}
	if d := schemas.Differences(&base, &withCaller); d != nil {
		t.Errorf("with the caller among the callees: %v", d)
	}
	for i, change := range []func(*schemas.CallRecord){
		func(r *schemas.CallRecord) { r.Caller = "x" },
		func(r *schemas.CallRecord) { r.Callees = []string{"b"} },
		func(r *schemas.CallRecord) { r.MediaType = "Video" },
		func(r *schemas.CallRecord) { r.CallType = "SingleCall" },
		func(r *schemas.CallRecord) { r.Result = "Interrupt" },
		func(r *schemas.CallRecord) { r.RoomID = "2" },
		func(r *schemas.CallRecord) { r.RoomIDType = 2 },
		func(r *schemas.CallRecord) { r.Start++ },
		func(r *schemas.CallRecord) { r.Accept++ },
		func(r *schemas.CallRecord) { r.End++ },
	} {
		other := base
		change(&other)
		if d, want := schemas.Differences(&base, &other), schemas.ComparedFields()[i]; len(d) != 1 || d[0] != want {
			t.Errorf("change %s: %v, want %s", strconv.Itoa(i), d, want)
		}
	}
}
