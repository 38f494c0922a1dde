package fetch_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"enricher/fetch"
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
	s := fetch.Schedule{Settle: 5 * time.Second, NotFoundWindow: 2 * time.Minute, RetryWindow: 5 * time.Minute}
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
				next, again := s.NotYet(epoch, now, n)
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
	if got := s.First(epoch); got != at(5) {
		t.Errorf("first lookup at %v", got.Sub(epoch))
	}
	if s.Expired(epoch, at(7*86400)) || !s.Expired(epoch, at(7*86400+1)) {
		t.Error("the API keeps records for seven days")
	}
}

// TestBackoff: half a second doubled up to 30 s, with full jitter.
func TestBackoff(t *testing.T) {
	var s fetch.Schedule
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

// step is one thing that happens to a gate.
type step struct {
	at      float64 // s
	verdict string  // an answer to a request started a moment before; "" none
	call    string
	started float64 // s before the answer; 0: 0.01
	retry   float64 // RetryAfter, s
	mayFail string  // "yes" or "no": a lookup ends in a dead letter, and what the gate says
	want    string  // the reason it is shut for afterwards; "": open
	probe   float64 // s until the next probe; −1: not looked at
}

func play(t *testing.T, g *fetch.Gate, steps []step) {
	t.Helper()
	verdicts := map[string]fetch.Answer{
		"found": {Verdict: fetch.Found}, "not yet": {Verdict: fetch.NotYet}, "retry": {Verdict: fetch.Retry, Message: "it failed"},
		"slow": {Verdict: fetch.SlowDown, Message: "slower"}, "halt": {Verdict: fetch.Halt, ProbeEvery: 30 * time.Second, Message: "no"},
		"locked": {Verdict: fetch.Halt, ProbeEvery: time.Minute}, "reject": {Verdict: fetch.Reject}, "unknown": {Verdict: fetch.Unknown},
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
		if s.mayFail != "" && g.MayFail(now) != (s.mayFail == "yes") {
			t.Errorf("step %d at %v s: MayFail says otherwise", i, s.at)
		}
		reason, shut := g.Shut(now)
		got := ""
		if shut {
			got = reason.String()
		}
		if got != s.want {
			t.Fatalf("step %d at %v s: shut for %q, want %q", i, s.at, got, s.want)
		}
		if shut && g.Why(reason) == "" {
			t.Errorf("step %d: no words for %v", i, reason)
		}
		if shut && s.probe >= 0 {
			if wait := g.Probe(now).Seconds(); wait < s.probe-.001 || wait > s.probe+.001 {
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

// TestGate is every transition of the design's table.
func TestGate(t *testing.T) {
	join := func(parts ...[]step) (all []step) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for name, steps := range map[string][]step{
		"open":                  {{verdict: "found"}, {verdict: "not yet"}, {verdict: "reject"}, {verdict: "retry"}, {verdict: "unknown"}},
		"halt":                  {{at: 1, verdict: "halt", want: "halt", probe: 30}, {at: 2, want: "halt", probe: 29}, {at: 31.5, verdict: "halt", want: "halt"}},
		"halt, locked out":      {{at: 1, verdict: "locked", want: "halt", probe: 60}},
		"halt opens: found":     {{at: 1, verdict: "halt", want: "halt"}, {at: 31, verdict: "found"}},
		"halt opens: not yet":   {{at: 1, verdict: "halt", want: "halt"}, {at: 31, verdict: "not yet"}},
		"halt opens: reject":    {{at: 1, verdict: "halt", want: "halt"}, {at: 31, verdict: "reject"}},
		"halt opens: unknown":   {{at: 1, verdict: "halt", want: "halt"}, {at: 31, verdict: "unknown"}},
		"halt stays: retry":     {{at: 1, verdict: "halt", want: "halt"}, {at: 31, verdict: "retry", want: "halt"}},
		"halt stays: slow-down": {{at: 1, verdict: "halt", want: "halt"}, {at: 31, verdict: "slow", want: "halt"}},
		"halt stays: an answer to what was asked before": {{at: 1, verdict: "halt", want: "halt"}, {at: 1.5, verdict: "found", started: 2, want: "halt", probe: -1}},
		"circuit: 20 in a row over 5 calls":              join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "circuit", probe: 1}, {at: 1.5, want: "circuit", probe: .5}}),
		"circuit: unknown codes count":                   join(repeat(10, step{verdict: "retry"}), repeat(9, step{at: .5, verdict: "unknown"}), []step{{at: 1, verdict: "unknown", want: "circuit", probe: 1}}),
		"circuit: a good answer in between":              join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "not yet"}}, repeat(19, step{at: 2, verdict: "retry"})),
		"circuit: 5 of one call alone": {
			{at: 1, verdict: "retry"}, {at: 2, verdict: "retry"}, {at: 3, verdict: "retry"}, {at: 4, verdict: "retry"}, {at: 5, verdict: "retry", want: "circuit", probe: 1},
		},
		"circuit: few calls, not one": {
			{at: 1, verdict: "retry", call: "a"}, {at: 2, verdict: "retry", call: "b"}, {at: 3, verdict: "retry", call: "a"}, {at: 4, verdict: "retry", call: "b"}, {at: 5, verdict: "retry", call: "a"}, {at: 6, verdict: "retry", call: "b"},
		},
		"circuit opens: not yet":        join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "circuit"}, {at: 2, verdict: "not yet"}}),
		"circuit stays: retry":          join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "circuit"}, {at: 2, verdict: "retry", want: "circuit", probe: -1}}),
		"circuit stays: slow-down":      join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "circuit"}, {at: 2, verdict: "slow", want: "circuit", probe: -1}}),
		"circuit gives way to halt":     join(repeat(19, step{verdict: "retry"}), []step{{at: 1, verdict: "retry", want: "circuit"}, {at: 2, verdict: "halt", want: "halt", probe: 30}}),
		"flood guard":                   {{mayFail: "yes"}, {mayFail: "yes"}, {mayFail: "yes"}, {at: 1, mayFail: "no", want: "flood_guard", probe: 5}, {at: 2, mayFail: "no", want: "flood_guard", probe: 4}},
		"flood guard counts from found": {{mayFail: "yes"}, {mayFail: "yes"}, {verdict: "found"}, {mayFail: "yes"}, {mayFail: "yes"}, {mayFail: "yes"}, {at: 1, mayFail: "no", want: "flood_guard", probe: 5}},
		"flood guard opens: found":      {{mayFail: "yes"}, {mayFail: "yes"}, {mayFail: "yes"}, {at: 1, mayFail: "no", want: "flood_guard"}, {at: 6, verdict: "found"}, {at: 7, mayFail: "yes"}},
		"flood guard stays: not yet":    {{mayFail: "yes"}, {mayFail: "yes"}, {mayFail: "yes"}, {at: 1, mayFail: "no", want: "flood_guard"}, {at: 6, verdict: "not yet", want: "flood_guard", probe: -1}},
		"slow-down: a pause that grows": {
			{at: 0, verdict: "slow", want: "slow_down", probe: 1}, {at: 1}, {at: 1.5, verdict: "slow", want: "slow_down", probe: 2}, {at: 3.5},
			{at: 4, verdict: "slow", want: "slow_down", probe: 4}, {at: 8.1, verdict: "slow", want: "slow_down", probe: 5}, {at: 13.2, verdict: "slow", want: "slow_down", probe: 5},
			{at: 18.3, verdict: "found"}, {at: 19, verdict: "slow", want: "slow_down", probe: 1},
		},
		"slow-down: what was on its way is one refusal": {
			{at: 0, verdict: "slow", want: "slow_down", probe: 1}, {at: .02, verdict: "slow", started: .5, want: "slow_down", probe: .98}, {at: .03, verdict: "slow", started: .5, want: "slow_down", probe: .97}, {at: 1},
		},
		"slow-down: an announced pause":    {{at: 0, verdict: "slow", retry: 7, want: "slow_down", probe: 7}, {at: 6.9, want: "slow_down", probe: .1}, {at: 7}},
		"slow-down: the longer pause wins": {{at: 0, verdict: "slow", retry: 7, want: "slow_down"}, {at: .1, verdict: "slow", retry: 2, want: "slow_down", probe: 6.9}},
		"slow-down holds probes back":      {{at: 0, verdict: "halt", want: "halt", probe: 30}, {at: 29, verdict: "slow", retry: 20, want: "halt", probe: 20}, {at: 49, want: "halt", probe: 0}},
		"flood guard under circuit":        join([]step{{mayFail: "yes"}, {mayFail: "yes"}, {mayFail: "yes"}, {mayFail: "no", want: "flood_guard"}}, repeat(19, step{at: 1, verdict: "retry", want: "flood_guard", probe: -1}), []step{{at: 2, verdict: "retry", want: "circuit", probe: -1}, {at: 3, verdict: "not yet", want: "flood_guard", probe: -1}, {at: 4, verdict: "found"}}),
	} {
		for i := range steps {
			if steps[i].want != "" && steps[i].probe == 0 && !strings.Contains(name, "holds probes") {
				steps[i].probe = -1
			}
		}
		t.Run(name, func(t *testing.T) { play(t, fetch.NewGate(3), steps) })
	}

	t.Run("flood guard off", func(t *testing.T) {
		g := fetch.NewGate(0)
		for range 5000 {
			if !g.MayFail(epoch) {
				t.Fatal("shut")
			}
		}
	})
	t.Run("windows count from the opening", func(t *testing.T) {
		g := fetch.NewGate(3)
		if !g.Opened().IsZero() {
			t.Error("opened, though it was never shut")
		}
		play(t, g, []step{{at: 1, verdict: "halt", want: "halt", probe: -1}, {at: 31, verdict: "slow", retry: 10, want: "halt", probe: -1}, {at: 35, verdict: "not yet", want: "slow_down", probe: -1}, {at: 50}})
		if got := g.Opened().Sub(epoch).Seconds(); got != 41 {
			t.Errorf("opened at %v s, want 41, when the last reason went", got)
		}
	})
	t.Run("probes", func(t *testing.T) {
		g := fetch.NewGate(3)
		if g.Probe(epoch) != 0 {
			t.Error("an open gate holds probes back")
		}
		play(t, g, []step{{at: 1, verdict: "halt", want: "halt", probe: 30}})
		g.Probed(at(31))
		play(t, g, []step{{at: 32, want: "halt", probe: 29}})
		g.ProbeNow()
		play(t, g, []step{{at: 33, want: "halt", probe: 0}})
	})
	for _, r := range fetch.GateReasons() {
		if r.String() == "" {
			t.Error("a reason without a name")
		}
	}
}
