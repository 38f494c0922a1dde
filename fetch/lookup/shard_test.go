package lookup

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/schemas"
)

// A part of the API that fails, with a code in the table or without, for less than
// the retry window makes no dead letter, and holds up no other call.
func TestSickShard(t *testing.T) {
	for _, v := range []fetch.Verdict{fetch.Unknown, fetch.Retry, fetch.AccountRejected} {
		for _, sick := range []time.Duration{15 * time.Second, 45 * time.Second, 270 * time.Second} {
			spec(t, fmt.Sprintf("%v for %v", v, sick), func(e *env) {
				n := 0
				for range 300 { // 10 s of events, and the last of them within the failure
					e.event(fmt.Sprintf("call-%d", n), 0, 1)
					n++
					<-time.After(time.Second / 30)
				}
				<-time.After(10 * time.Second)
				for _, o := range e.Outcomes().Take() {
					if strings.HasSuffix(o.Event.CallID, "0") {
						continue
					}
					if took := o.Completed.Sub(o.Event.Time); o.Failure != nil || took > 7*time.Second {
						e.t.Errorf("%s: %v after %v", o.Event.CallID, o.Failure, took)
					}
					n--
				}
				if n != 30 {
					e.t.Errorf("%d events wait, want those 30 of the sick part", n)
				}
				<-time.After(sick + 2*time.Minute) // the longest back-off is a minute
				for _, o := range e.Outcomes().Take() {
					if o.Failure != nil {
						e.t.Errorf("%s: %s after %d attempts in %v", o.Event.CallID, o.Failure.Reason, o.Failure.Attempts, o.Failure.Last.Sub(o.Failure.First))
					}
					n--
				}
				if n != 0 {
					e.t.Errorf("%d events still wait", n)
				}
			}, func(cfg *Config) {
				begin := time.Now()
				cfg.API = apiFunc(func(_ context.Context, callID string) fetch.Response {
					switch {
					case callID == fetch.ProbeCallID:
						return responses["not_yet"]
					case strings.HasSuffix(callID, "0") && time.Since(begin) < 20*time.Second+sick:
						return fetch.Response{Verdict: v}
					}
					return fetch.Response{Verdict: fetch.Found, Record: &schemas.CallRecord{CallID: callID, End: 1}}
				})
			})
		}
	}
}
