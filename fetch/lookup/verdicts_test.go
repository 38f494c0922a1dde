package lookup

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/schemas"
)

// What becomes of a call, by the responses to its requests. Retries after bad
// responses have jitter, so their times are not given.
func TestOutcomeOfEveryVerdict(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name     string
		script   string        // the last word repeats
		age      time.Duration // of the event
		others   bool          // every second another call is looked up and found
		outcome  string        // "": none within 20 minutes
		requests string        // seconds; "": not given
		probe    string        // the script of probes; "": they succeed
		reason   string        // why no progress is made at the end; "": it is

		notBefore time.Duration // of the outcome
	}{
		{name: "found", script: "found", outcome: "miss@5", requests: "5"},
		{name: "the lookup delay counts from the event", script: "found", age: 3 * time.Second, outcome: "miss@2", requests: "2"},

		{name: "not yet, then found", script: "not_yet not_yet found", outcome: "miss@20", requests: "5 10 20"},
		{name: "not found within the window", script: "not_yet", outcome: "not_found after 6@120", requests: "5 10 20 40 80 120"},
		{name: "not ended within the window", script: "not_ended", outcome: "not_ended after 6@120", requests: "5 10 20 40 80 120"},
		{name: "the last response decides between the two", script: "not_ended not_yet", outcome: "not_found after 6@120"},
		{name: "past its window: one confirmation", script: "not_yet", age: time.Hour, outcome: "not_found after 2@10", requests: "0 10"},
		{name: "past its window, and found", script: "not_yet found", age: time.Hour, outcome: "miss@10", requests: "0 10"},
		{name: "older than the API keeps records: one confirmation", script: "not_yet", age: 8 * day, outcome: "expired after 2@10", requests: "0 10"},
		{name: "older than the API keeps records, and found", script: "found", age: 8 * day, outcome: "miss@0", requests: "0"},
		{name: "a pause takes nothing from the window", script: "not_yet account_rejected not_yet", probe: "account_rejected account_rejected account_rejected not_yet",
			outcome: "not_found after 7@127", requests: "5 10 17 27 47 87 127"},

		{name: "retried, then found", script: "retry retry found", outcome: "miss", others: true},
		{name: "fails for the retry window, while others succeed", script: "retry", outcome: "lookup_failed", others: true, notBefore: 305 * time.Second},
		{name: "fails alone, and probes succeed", script: "retry"},
		{name: "fails alone, and probes fail", script: "retry", probe: "retry", reason: "api_down"},
		{name: "an outage ends", script: "retry retry retry retry retry retry found", outcome: "miss"},

		{name: "unknown code for the retry window, while others succeed", script: "unknown_code", outcome: "unknown_code", others: true, notBefore: 305 * time.Second},
		{name: "unknown code, four times", script: "unknown_code unknown_code unknown_code unknown_code rejected", outcome: "rejected after 5", others: true},
		{name: "the last response decides between failed and unknown", script: "retry retry retry unknown_code", outcome: "unknown_code", others: true, notBefore: 305 * time.Second},
		{name: "unknown code for all", script: "unknown_code", probe: "unknown_code", reason: "api_down"},
		{name: "rejected", script: "rejected", outcome: "rejected after 1@5", requests: "5"},

		{name: "throttled is no attempt", script: "throttled rejected", outcome: "rejected after 1@6", requests: "5 6"},
		{name: "throttled for as long as the API asks", script: "throttled_7s found", outcome: "miss@12", requests: "5 12"},
		{name: "throttled never ends in a dead letter", script: "throttled", reason: "throttled"},
		{name: "throttled, but others are found", script: "throttled", others: true},

		{name: "account rejected for this call alone", script: "account_rejected", outcome: "lookup_failed", others: true, notBefore: 305 * time.Second},
		{name: "account rejected for all", script: "account_rejected", probe: "account_rejected", reason: "account_rejected"},
		{name: "account rejected, then accepted", script: "account_rejected found", probe: "account_rejected account_rejected not_yet", outcome: "miss@8", requests: "5 8"},
		{name: "locked out: no probe for a minute", script: "locked_out found", probe: "locked_out not_yet", outcome: "miss@65", requests: "5 65"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnv(t)
				e.script("call", c.script)
				e.script("probe", c.probe)
				e.event("call", c.age, 1)
				outcome := ""
				for n := 0; n < 20*60 && outcome == ""; n++ {
					if c.others {
						e.event("other"+strconv.Itoa(n), 5*time.Second, 1)
					}
					for _, o := range e.run(time.Second) {
						if o, mine := strings.CutPrefix(o, "call "); mine {
							outcome = o
						}
					}
				}
				if !strings.HasPrefix(outcome, c.outcome) || c.outcome == "" && outcome != "" || time.Since(e.start) < c.notBefore {
					t.Errorf("outcome %q, want %q, not before %v", outcome, c.outcome, c.notBefore)
				}
				var requests []string
				for _, r := range e.requested() {
					if at, mine := strings.CutPrefix(r, "call@"); mine {
						requests = append(requests, at)
					}
				}
				if got := strings.Join(requests, " "); c.requests != "" && got != c.requests {
					t.Errorf("requests at %s, want %s", got, c.requests)
				}
				reason := ""
				for _, r := range e.Conditions() {
					reason += r.Reason.String()
				}
				if reason != c.reason {
					t.Errorf("reason %q, want %q", reason, c.reason)
				}
			})
		})
	}
}

// The scheduler's goroutine does not look at a record, however large: it was
// enriched and encoded where it was received.
func TestSchedulerDoesNotReadRecords(t *testing.T) {
	now := time.Now()
	s := NewScheduler(Config{
		API: apiFunc(nil), Limiter: NewLimiter(false), Cache: NewCache(1, 1<<20, time.Hour),
		Metrics: NewMetrics(prometheus.NewRegistry()), Log: zap.NewNop(),
	})
	s.enqueue(&Event{CallID: "call", Time: now}, now)
	r, _ := s.next(now)
	s.queue.take(r.call)
	s.inFlight++
	s.handleResponse(&response{request: r, Response: fetch.Response{Verdict: fetch.Found}, encoded: schemas.Encoded{Value: []byte("encoded")}, ended: now}, now)
	outcomes := s.Outcomes().Take()
	if len(outcomes) != 1 || string(outcomes[0].Value) != "encoded" || outcomes[0].Failure != nil {
		t.Errorf("outcomes %+v", outcomes)
	}
}
