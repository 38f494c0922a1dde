package lookup_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/lookup"
)

// The schedule and the gate are pure: their tests need no clock but the times
// that they hand over.

var epoch = time.Unix(1764000000, 0)

func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// TestNotFoundSchedule: a call is asked for 5, 10, 20, 40, 80 and 120 s after
// its event, and then given up; a late start joins in; an old event gets one
// confirmation.
func TestNotFoundSchedule(t *testing.T) {
	s := lookup.RetryPolicy{LookupDelay: 5 * time.Second, NotFoundWindow: 2 * time.Minute, RetryWindow: 5 * time.Minute}
	for name, c := range map[string]struct {
		first float64 // s after the event
		took  float64 // s between asking and the next look at the schedule
		want  []float64
	}{
		"in time":                       {5, 0, []float64{5, 10, 20, 40, 80, 120}},
		"settle delay of 0":             {0, 0, []float64{0, 5, 10, 20, 40, 80, 120}},
		"answers take half a second":    {5, .5, []float64{5, 10, 20, 40, 80, 120}},
		"first asked after 30 s":        {30, 0, []float64{30, 40, 80, 120}},
		"first asked just at the end":   {120, 0, []float64{120, 130}},
		"first asked after the window":  {500, 0, []float64{500, 510}},
		"first asked days later":        {86400, 0, []float64{86400, 86410}},
		"first asked just before it is": {119, 0, []float64{119, 120}},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []float64
			now := at(c.first)
			for n := 1; ; n++ {
				asked = append(asked, now.Sub(epoch).Seconds())
				next, again := s.NextNotFound(epoch, now, n)
				if !again {
					break
				}
				if !next.After(now) || n > 20 {
					t.Fatalf("asked at %v, next at %v", asked, next.Sub(epoch))
				}
				now = next
			}
			if fmt.Sprint(asked) != fmt.Sprint(c.want) {
				t.Errorf("asked at %v, want %v", asked, c.want)
			}
		})
	}
	if got := s.FirstLookup(epoch); got != at(5) {
		t.Errorf("first lookup at %v", got.Sub(epoch))
	}
	if s.Expired(epoch, at(7*86400)) || !s.Expired(epoch, at(7*86400+1)) {
		t.Error("the API keeps records for seven days")
	}
}

// TestBackoff: half a second doubled up to 30 s, with full jitter.
func TestBackoff(t *testing.T) {
	var s lookup.RetryPolicy
	for n := 1; n <= 40; n++ {
		limit := 30 * time.Second
		if n <= 6 {
			limit = 500 * time.Millisecond << (n - 1)
		}
		var sum, most time.Duration
		for range 2000 {
			d := s.Backoff(n)
			if d < 0 || d >= limit {
				t.Fatalf("after %d failures: %v, want less than %v", n, d, limit)
			}
			sum, most = sum+d, max(most, d)
		}
		if mean := sum / 2000; mean < limit*4/10 || mean > limit*6/10 || most < limit*9/10 {
			t.Errorf("after %d failures: mean %v, most %v of %v", n, mean, most, limit)
		}
	}
}

// step is one thing that happens to a breaker.
type step struct {
	at         float64 // s
	verdict    string  // an answer to a request started a moment before; "" none
	call       string
	started    float64 // s before the answer; 0: 0.01
	retry      float64 // RetryAfter, s
	deadLetter string  // "yes" or "no": a lookup is about to end in a dead letter, and whether the breaker allows it
	want       string  // the reason for the pause afterwards; "": none
	probe      float64 // s until the next probe; −1: not looked at
}

func play(t *testing.T, g *lookup.Breaker, steps []step) {
	t.Helper()
	verdicts := map[string]fetch.Response{
		"found": {Verdict: fetch.Found}, "not yet": {Verdict: fetch.NotYet}, "retry": {Verdict: fetch.Retry, Message: "it failed"},
		"throttled": {Verdict: fetch.Throttled, Message: "slower"}, "account_rejected": {Verdict: fetch.AccountRejected, ProbeEvery: 30 * time.Second, Message: "no"},
		"locked": {Verdict: fetch.AccountRejected, ProbeEvery: time.Minute}, "rejected": {Verdict: fetch.Rejected}, "unknown": {Verdict: fetch.Unknown},
	}
	for i, s := range steps {
		now := at(s.at)
		if s.verdict != "" {
			a, ok := verdicts[s.verdict]
			if !ok {
				t.Fatalf("step %d: no such verdict", i)
			}
			a.RetryAfter = time.Duration(s.retry * float64(time.Second))
			if s.started == 0 {
				s.started = 0.01
			}
			if s.call == "" {
				s.call = "call"
			}
			g.Observe(now, at(s.at-s.started), s.call, &a)
		}
		if s.deadLetter != "" && g.TakeDeadLetter(now) != (s.deadLetter == "yes") {
			t.Errorf("step %d at %v s: TakeDeadLetter, want %s", i, s.at, s.deadLetter)
		}
		reason, paused := g.Paused(now)
		got := ""
		if paused {
			got = reason.String()
		}
		if got != s.want {
			t.Fatalf("step %d at %v s: paused for %q, want %q", i, s.at, got, s.want)
		}
		if paused && s.probe >= 0 {
			if wait := g.ProbeDelay(now).Seconds(); wait < s.probe-.001 || wait > s.probe+.001 {
				t.Errorf("step %d at %v s: next probe in %v s, want %v", i, s.at, wait, s.probe)
			}
		}
	}
}

func repeat(n int, s step) []step {
	var all []step
	for i := range n {
		s.call = fmt.Sprint("call-", i%7)
		s.at += 0.01
		all = append(all, s)
	}
	return all
}

// Every transition of the breaker, one case each.
func TestBreakerTransitions(t *testing.T) {
	join := func(parts ...[]step) (all []step) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for name, steps := range map[string][]step{
		"not paused":                                                      {{verdict: "found"}, {verdict: "not yet"}, {verdict: "rejected"}, {verdict: "retry"}, {verdict: "unknown"}},
		"account_rejected":                                                {{at: 1, verdict: "account_rejected", want: "account_rejected", probe: 30}, {at: 2, want: "account_rejected", probe: 29}, {at: 31.5, verdict: "account_rejected", want: "account_rejected"}},
		"account_rejected, locked out":                                    {{at: 1, verdict: "locked", want: "account_rejected", probe: 60}},
		"account_rejected ends: found":                                    {{at: 1, verdict: "account_rejected", want: "account_rejected"}, {at: 31, verdict: "found"}},
		"account_rejected ends: not yet":                                  {{at: 1, verdict: "account_rejected", want: "account_rejected"}, {at: 31, verdict: "not yet"}},
		"account_rejected ends: reject":                                   {{at: 1, verdict: "account_rejected", want: "account_rejected"}, {at: 31, verdict: "rejected"}},
		"account_rejected ends: unknown":                                  {{at: 1, verdict: "account_rejected", want: "account_rejected"}, {at: 31, verdict: "unknown"}},
		"account_rejected continues: retry":                               {{at: 1, verdict: "account_rejected", want: "account_rejected"}, {at: 31, verdict: "retry", want: "account_rejected"}},
		"account_rejected continues: throttled":                           {{at: 1, verdict: "account_rejected", want: "account_rejected"}, {at: 31, verdict: "throttled", want: "account_rejected"}},
		"account_rejected continues: a response to a request from before": {{at: 1, verdict: "account_rejected", want: "account_rejected"}, {at: 1.5, verdict: "found", started: 2, want: "account_rejected", probe: -1}},
		"api_down: 20 in a row over 5 calls":                              join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "api_down", probe: 1}, {at: 1.5, want: "api_down", probe: .5}}),
		"api_down: unknown codes count":                                   join(repeat(10, step{verdict: "retry"}), repeat(9, step{at: .5, verdict: "unknown"}), []step{{at: 1, verdict: "unknown", want: "api_down", probe: 1}}),
		"api_down: a good answer in between":                              join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "not yet"}}, repeat(19, step{at: 2, verdict: "retry"})),
		"api_down: 5 of one call alone": {
			{at: 1, verdict: "retry"}, {at: 2, verdict: "retry"}, {at: 3, verdict: "retry"}, {at: 4, verdict: "retry"}, {at: 5, verdict: "retry", want: "api_down", probe: 1},
		},
		"api_down: few calls, not one": {
			{at: 1, verdict: "retry", call: "a"}, {at: 2, verdict: "retry", call: "b"}, {at: 3, verdict: "retry", call: "a"}, {at: 4, verdict: "retry", call: "b"}, {at: 5, verdict: "retry", call: "a"}, {at: 6, verdict: "retry", call: "b"},
		},
		"api_down ends: not yet":                 join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "api_down"}, {at: 2, verdict: "not yet"}}),
		"api_down continues: retry":              join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "api_down"}, {at: 2, verdict: "retry", want: "api_down", probe: -1}}),
		"api_down continues: throttled":          join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "api_down"}, {at: 2, verdict: "throttled", want: "api_down", probe: -1}}),
		"account_rejected outranks api_down":     join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "api_down"}, {at: 2, verdict: "account_rejected", want: "account_rejected", probe: 30}}),
		"nothing_found":                          {{deadLetter: "yes"}, {deadLetter: "yes"}, {deadLetter: "yes"}, {at: 1, deadLetter: "no", want: "nothing_found", probe: 5}, {at: 2, deadLetter: "no", want: "nothing_found", probe: 4}},
		"found resets the count of dead letters": {{deadLetter: "yes"}, {deadLetter: "yes"}, {verdict: "found"}, {deadLetter: "yes"}, {deadLetter: "yes"}, {deadLetter: "yes"}, {at: 1, deadLetter: "no", want: "nothing_found", probe: 5}},
		"nothing_found ends: found":              {{deadLetter: "yes"}, {deadLetter: "yes"}, {deadLetter: "yes"}, {at: 1, deadLetter: "no", want: "nothing_found"}, {at: 6, verdict: "found"}, {at: 7, deadLetter: "yes"}},
		"nothing_found continues: not yet":       {{deadLetter: "yes"}, {deadLetter: "yes"}, {deadLetter: "yes"}, {at: 1, deadLetter: "no", want: "nothing_found"}, {at: 6, verdict: "not yet", want: "nothing_found", probe: -1}},
		"throttled: the pause grows": {
			{at: 0, verdict: "throttled", want: "throttled", probe: 1}, {at: 1}, {at: 1.5, verdict: "throttled", want: "throttled", probe: 2}, {at: 3.5},
			{at: 4, verdict: "throttled", want: "throttled", probe: 4}, {at: 8.1, verdict: "throttled", want: "throttled", probe: 5}, {at: 13.2, verdict: "throttled", want: "throttled", probe: 5},
			{at: 18.3, verdict: "found"}, {at: 19, verdict: "throttled", want: "throttled", probe: 1},
		},
		"throttled: requests in flight count once": {
			{at: 0, verdict: "throttled", want: "throttled", probe: 1}, {at: .02, verdict: "throttled", started: .5, want: "throttled", probe: .98}, {at: .03, verdict: "throttled", started: .5, want: "throttled", probe: .97}, {at: 1},
		},
		"throttled: for as long as the API asks": {{at: 0, verdict: "throttled", retry: 7, want: "throttled", probe: 7}, {at: 6.9, want: "throttled", probe: .1}, {at: 7}},
		"throttled: the longer pause wins":       {{at: 0, verdict: "throttled", retry: 7, want: "throttled"}, {at: .1, verdict: "throttled", retry: 2, want: "throttled", probe: 6.9}},
		"throttled holds probes back":            {{at: 0, verdict: "account_rejected", want: "account_rejected", probe: 30}, {at: 29, verdict: "throttled", retry: 20, want: "account_rejected", probe: 20}, {at: 49, want: "account_rejected", probe: 0}},
		"api_down outranks nothing_found":        join([]step{{deadLetter: "yes"}, {deadLetter: "yes"}, {deadLetter: "yes"}, {deadLetter: "no", want: "nothing_found"}}, repeat(19, step{at: 1, verdict: "retry", want: "nothing_found", probe: -1}), []step{{at: 2, verdict: "retry", want: "api_down", probe: -1}, {at: 3, verdict: "not yet", want: "nothing_found", probe: -1}, {at: 4, verdict: "found"}}),
	} {
		for i := range steps {
			if steps[i].want != "" && steps[i].probe == 0 && !strings.Contains(name, "holds probes") {
				steps[i].probe = -1
			}
		}
		t.Run(name, func(t *testing.T) { play(t, lookup.NewBreaker(3), steps) })
	}

	t.Run("any number of dead letters", func(t *testing.T) {
		g := lookup.NewBreaker(0)
		for range 5000 {
			if !g.TakeDeadLetter(epoch) {
				t.Fatal("shut")
			}
		}
	})
	t.Run("ResumedAt is when the last reason ended", func(t *testing.T) {
		g := lookup.NewBreaker(3)
		if !g.ResumedAt().IsZero() {
			t.Error("resumed, though lookups were never paused")
		}
		play(t, g, []step{{at: 1, verdict: "account_rejected", want: "account_rejected", probe: -1}, {at: 31, verdict: "throttled", retry: 10, want: "account_rejected", probe: -1}, {at: 35, verdict: "not yet", want: "throttled", probe: -1}, {at: 50}})
		if got := g.ResumedAt().Sub(epoch).Seconds(); got != 41 {
			t.Errorf("resumed at %v s, want 41, when the last reason ended", got)
		}
	})
	t.Run("probes", func(t *testing.T) {
		g := lookup.NewBreaker(3)
		if g.ProbeDelay(epoch) != 0 {
			t.Error("probes are held back though lookups are not paused")
		}
		play(t, g, []step{{at: 1, verdict: "account_rejected", want: "account_rejected", probe: 30}})
		g.ProbeSent(at(31))
		play(t, g, []step{{at: 32, want: "account_rejected", probe: 29}})
		g.ProbeNow()
		play(t, g, []step{{at: 33, want: "account_rejected", probe: 0}})
	})
	for _, r := range lookup.PauseReasons() {
		if r.String() == "" {
			t.Error("a reason without a name")
		}
	}
}
