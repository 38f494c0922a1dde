package fetch_test

import (
	"strings"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// Whatever a response of almost 1 MiB consists of, decoding it takes time in
// proportion to its size: a hundred times as long as a hundredth of it, not ten
// thousand times. The lookups of other calls share the processors with it.
func TestLargeResponsesTakeLinearTime(t *testing.T) {
	const (
		record = `"CallId":"id","StartTime":1,"EndTime":5`
		large  = 1 << 20
		small  = large / 100
	)
	inRecord := func(text string) string {
		return `{"ErrorCode":0,"Response":{"CallRecord":{` + record + text + `}}}`
	}
	repeat := func(text string, size int) string { return strings.Repeat(text, (size-200)/len(text)) }
	for name, c := range map[string]struct {
		body    func(size int) string
		verdict fetch.Verdict
	}{
		"callees": {func(n int) string {
			return inRecord(`,"CalleeList_Account":["c"` + repeat(`,"callee"`, n) + `]`)
		}, fetch.Found},
		"fields of one name": {func(n int) string { return inRecord(repeat(`,"CalleeList_Account":["c"]`, n)) }, fetch.Found},
		"unknown fields":     {func(n int) string { return inRecord(repeat(`,"x":1`, n)) }, fetch.Found},
		"records": {func(n int) string {
			return `{"ErrorCode":0,"Response":{"CallRecord":{}` + repeat(`,"CallRecord":{"CallId":"id","EndTime":5}`, n) + `}}`
		}, fetch.Found},
		"responses": {func(n int) string {
			return `{"ErrorCode":0` + repeat(`,"Response":{"CallRecord":{`+record+`}}`, n) + `}`
		}, fetch.Found},
		"loose responses": {func(n int) string {
			return `{"ErrorCode":"0"` + repeat(`,"Response":{"CallRecord":{`+record+`}}`, n) + `}`
		}, fetch.Found},
		"escapes":        {func(n int) string { return inRecord(`,"RoomId":"` + repeat(`\u0041`, n) + `"`) }, fetch.Found},
		"a long message": {func(n int) string { return `{"ErrorCode":101050,"ErrorInfo":"` + repeat("x", n) + `"}` }, fetch.NotYet},
		"deep nesting":   {func(n int) string { return inRecord(`,"x":` + repeat("[", n/2) + repeat("]", n/2)) }, fetch.Retry},
		"many nestings":  {func(n int) string { return inRecord(repeat(`,"x":[[[[{"y":[[[[{}]]]]}]]]]`, n)) }, fetch.Found},
	} {
		t.Run(name, func(t *testing.T) {
			api := fetchtest.New(fetchtest.Config{})
			client := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)})
			took := func(size int) time.Duration {
				api.SetOutage(fetchtest.Body(name, "application/json", c.body(size)))
				best := time.Hour
				for range 3 {
					start := time.Now()
					r := send(t, client, api, "id")
					best = min(best, time.Since(start))
					if r.Verdict != c.verdict && size == large {
						t.Fatalf("%v: %.200s", r.Verdict, r.Message)
					}
				}
				return best
			}
			if s, l := took(small), took(large); l > 1_000*max(s, 10*time.Microsecond) {
				t.Errorf("a response of %d bytes took %v, one of %d took %v", small, s, large, l)
			}
		})
	}
}
