package lookup

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"enricher/fetch"
)

func TestOnlyProbesWhilePaused(t *testing.T) {
	spec(t, "a bad call costs the others one round trip", func(e *env) {
		e.took = 100 * time.Millisecond
		e.script("bad", "account_rejected found")
		e.event("bad", 5*time.Second, 1)
		e.event("good", 5*time.Second-150*time.Millisecond, 1)
		e.run(220 * time.Millisecond)
		e.expectRequests("bad@0", "probe@0.1", "good@0.2")
		if c := e.Conditions(); len(c) > 0 {
			e.t.Errorf("reported, though the probe succeeded: %v", c)
		}
	})
	spec(t, "a pause ends no back-off", func(e *env) {
		e.took = time.Millisecond
		e.script("bad", "retry found")
		e.event("bad", 5*time.Second, 1)
		e.run(250 * time.Millisecond)
		e.expectRequests("bad@0", "probe@0.001")
	})
	for _, c := range []struct{ verdict, requests string }{
		{"account_rejected", "bad@0 probe@0 probe@1 probe@3 probe@7 probe@15 probe@31 probe@61 probe@91"},
		{"retry", "bad@0 probe@0 probe@1 probe@3 probe@7 probe@12 probe@17 probe@22"},
		{"throttled", "bad@0 probe@0 probe@1 probe@3 probe@7 probe@12 probe@17 probe@22"},
		{"locked_out", "bad@0 probe@0 probe@60 probe@120 probe@180"},
	} {
		spec(t, "probes that fail: "+c.verdict, func(e *env) {
			e.script("bad", "retry")
			e.script("probe", c.verdict)
			e.event("bad", 5*time.Second, 1)
			e.event("other", 0, 1)
			want := strings.Fields(c.requests)
			for len(e.requested()) < len(want) {
				e.run(time.Second)
			}
			e.expectRequests(want...)
		})
	}
	var changed atomic.Bool
	spec(t, "a probe at once when the secret changes", func(e *env) {
		e.script("a", "account_rejected found")
		e.script("probe", "account_rejected account_rejected account_rejected account_rejected account_rejected not_yet")
		e.event("a", 5*time.Second, 1)
		e.run(16500 * time.Millisecond)
		changed.Store(true)
		e.expect("outcomes", e.run(time.Minute), "a miss@17")
	}, func(cfg *Config) { cfg.API = secretAPI{cfg.API, &changed} })
	spec(t, "a probe that panics has failed", func(e *env) {
		e.script("probe", "panic not_yet")
		e.script("first", "retry found")
		e.event("first", 5*time.Second, 1)
		e.expect("outcomes", e.run(time.Minute), "first miss@1")
		e.expectRequests("first@0", "probe@0", "probe@1", "first@1")
	})
}

// secretAPI reports one change of the secret.
type secretAPI struct {
	API
	changed *atomic.Bool
}

// CheckKey implements API.
func (a secretAPI) CheckKey(time.Time) (bool, error) { return a.changed.Swap(false), nil }

func TestPausedMetricShowsTheReason(t *testing.T) {
	spec(t, "", func(e *env) {
		e.script("bad", "retry found")
		e.script("probe", "retry account_rejected retry not_yet")
		e.event("bad", 5*time.Second, 1)
		for _, step := range []struct {
			after  time.Duration
			paused map[Reason]float64
		}{
			{100 * time.Millisecond, map[Reason]float64{APIDown: 1}},
			{2 * time.Second, map[Reason]float64{AccountRejected: 1}},
			{2 * time.Second, map[Reason]float64{APIDown: 1}},
			{time.Minute, nil},
		} {
			e.run(step.after)
			for _, r := range PauseReasons() {
				if got := gauge(e, e.Metrics.Paused.WithLabelValues(r.String())); got != step.paused[r] {
					e.t.Errorf("%v is %v at %v, want %v", r, got, time.Since(e.start), step.paused[r])
				}
			}
		}
	})
}

func gauge(e *env, g prometheus.Gauge) float64 {
	var m dto.Metric
	if err := g.Write(&m); err != nil {
		e.t.Fatal(err)
	}
	return m.GetGauge().GetValue()
}

// deadLetterLimit is of the tests below.
const deadLetterLimit = 3

func limited(cfg *Config) { cfg.MaxConsecutiveDeadLetters = deadLetterLimit }

// reject adds events whose calls are rejected.
func (e *env) reject(ids ...string) {
	for _, id := range ids {
		if e.scripts[id] == "" {
			e.script(id, "rejected")
		}
		e.event(id, 5*time.Second, 1)
		e.run(10 * time.Millisecond)
	}
}

func TestDeadLettersAreWithheldUntilARecordIsFound(t *testing.T) {
	deadLetters := []string{"a rejected after 1@0", "b rejected after 1@0.01", "c rejected after 1@0.02"}
	spec(t, "no outcome meanwhile, one request afterwards", func(e *env) {
		e.reject("a", "b", "c", "d")
		e.expect("outcomes", e.run(time.Minute), deadLetters...)
		if c := e.Conditions(); len(c) != 1 || c[0].Reason != NothingFound || gauge(e, e.Metrics.Withheld) != 1 {
			e.t.Errorf("%v, %v withheld", c, gauge(e, e.Metrics.Withheld))
		}
		e.event("found", 5*time.Second, 1)
		e.expect("outcomes", e.run(time.Hour), append(deadLetters, "found miss@60.04", "d rejected after 8@60.04")...)
		// In between, one of those that are withheld is requested now and then.
		e.expectRequests("a@0", "b@0.01", "c@0.02", "d@0.03", "d@1.03", "d@2.03", "d@4.03", "d@8.03", "d@16.03", "d@32.03", "found@60.04", "d@60.04")
		if c := e.Conditions(); len(c) > 0 {
			e.t.Errorf("still reported: %v", c)
		}
	}, limited)
	spec(t, "the API has the records later", func(e *env) {
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			e.script(id, "rejected rejected found")
		}
		e.reject("a", "b", "c", "d", "e", "f")
		e.run(10 * time.Minute)
		if n := len(e.completed); n != 6 {
			e.t.Errorf("%d outcomes: %q", n, e.completed)
		}
	}, limited)
	spec(t, "what was in flight when a record was found is requested again", func(e *env) {
		e.took = time.Second
		e.script("in flight", "rejected found")
		e.reject("a", "b", "c", "d")
		e.event("found", 3500*time.Millisecond, 1)     // a request from 1.54 to 2.54 s
		e.event("in flight", 3400*time.Millisecond, 1) // from 1.64 to 2.64 s
		e.run(time.Minute)
		if got := e.completed[3:]; !slices.Equal(got, []string{"found miss@2.54", "in flight miss@3.64", "d rejected after 3@4.03"}) {
			e.t.Errorf("outcomes %q", got)
		}
	}, limited)
	spec(t, "another event of a withheld call is looked up", func(e *env) {
		e.script("d", strings.Repeat("rejected ", 7)+"found") // at 0, 1, 2, 4, 8, 16 and 32 s
		e.reject("a", "b", "c", "d")
		e.run(time.Minute)
		e.event("d", 5*time.Second, 1)
		want := append(slices.Clone(deadLetters), "d miss@60.04", "d coalesced@60.04")
		e.expect("outcomes", e.run(time.Minute), want...)
	}, limited)
	spec(t, "dropped events are forgotten", func(e *env) {
		e.reject("a", "b", "c", "d")
		e.Drop(1)
		e.event("found", 5*time.Second, 2)
		e.run(time.Minute)
		if n := len(e.calls); n > 0 || slices.Contains(e.requested(), "d@0.04") {
			e.t.Errorf("%d calls, requests %v", n, e.requested())
		}
	}, limited)
	spec(t, "an event in its window waits on", func(e *env) {
		e.script("old", "not_yet not_yet not_yet found")
		e.reject("a", "b", "c")
		e.event("old", time.Hour, 1)
		e.run(time.Second)
		e.event("old", 0, 1)
		e.run(time.Minute)
		if last := e.completed[len(e.completed)-1]; !strings.HasPrefix(last, "old coalesced") {
			e.t.Errorf("outcomes %q, requests %q", e.completed, e.requested())
		}
	}, limited)
}

// scoutFunc is a Scout.
type scoutFunc func() (string, bool)

// Next implements Scout.
func (f scoutFunc) Next(context.Context) (string, bool) { return f() }

func TestScoutsLookAheadWhileWithholding(t *testing.T) {
	var asked []float64
	var ahead string
	var start time.Time
	scouts := func(cfg *Config) {
		start, asked = time.Now(), nil
		cfg.Scout = scoutFunc(func() (string, bool) {
			asked = append(asked, time.Since(start).Round(time.Second).Seconds())
			return ahead, ahead != ""
		})
	}
	spec(t, "later and later", func(e *env) {
		ahead = ""
		e.run(time.Minute)
		if len(asked) > 0 {
			e.t.Errorf("asked at %v, though nothing is withheld", asked)
		}
		e.reject("a", "b", "c", "d")
		e.run(110 * time.Second)
		if want := []float64{61, 62, 64, 68, 76, 92, 122, 152}; !slices.Equal(asked, want) {
			e.t.Errorf("asked at %v, want %v", asked, want)
		}
	}, limited, scouts)
	spec(t, "a record that one finds releases, and is cached", func(e *env) {
		ahead = "ahead"
		e.script("ahead", "not_yet found")
		e.reject("a", "b", "c", "d")
		e.run(5 * time.Second)
		e.event("ahead", 5*time.Second, 1)
		got := e.run(time.Second)
		if want := []string{"d rejected after 2@2.03", "ahead hit@5.04"}; !slices.Equal(got[3:], want) {
			e.t.Errorf("got %q, want %q; requests %q", got[3:], want, e.requested())
		}
	}, limited, scouts)
	spec(t, "none while lookups are paused", func(e *env) {
		ahead = "ahead"
		e.script("ahead", "retry") // the first scout finds that the API is down
		e.script("probe", "retry")
		e.reject("a", "b", "c", "d")
		e.run(time.Minute)
		if got := e.requested(); len(asked) != 1 || !slices.Equal(got[4:7], []string{"ahead@1.03", "probe@1.03", "probe@2.03"}) {
			e.t.Errorf("asked at %v; requests %q", asked, got)
		}
	}, limited, scouts)
}

func TestReasonNamesTheLastProbe(t *testing.T) {
	b := &Breaker{}
	b.Observe(time.Unix(100, 0), time.Unix(99, 0), &fetch.Response{Verdict: fetch.Retry, Message: "502"}, true)
	b.ProbeSent()
	b.ObserveProbe(time.Unix(101, 0), &fetch.Response{Verdict: fetch.AccountRejected, Message: "wrong key"})
	if r, detail, ok := b.Reason(); !ok || r != AccountRejected || !strings.Contains(detail, "wrong key") {
		t.Errorf("%v %q %v", r, detail, ok)
	}
}
