package audittest_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

func generator(mix audittest.Mix) *audittest.Generator {
	return &audittest.Generator{
		API: fetchtest.New(fetchtest.Config{}), Rand: rand.New(rand.NewPCG(1, 2)), Mix: mix, MaxDelay: time.Second,
	}
}

// Every kind of event has the value and the outcome of its kind.
func TestEveryKindHasItsOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		mix     audittest.Mix
		reason  schemas.Reason // "": no dead letter
		skipped bool
		callID  string // of the event, as schemas.ParseEvent finds it
	}{
		"malformed":      {mix: audittest.Mix{Malformed: 100}, reason: schemas.Malformed},
		"other callback": {mix: audittest.Mix{OtherCallback: 100}, skipped: true},
		"never found":    {mix: audittest.Mix{NeverFound: 100}, reason: schemas.NotFound, callID: "call-0"},
		"late":           {mix: audittest.Mix{Late: 100}, callID: "call-0"},
		"bare":           {mix: audittest.Mix{Bare: 100}, callID: "call-0"},
		"first":          {callID: "call-0"},
	} {
		t.Run(name, func(t *testing.T) {
			e := generator(c.mix).Next()
			parsed, err := schemas.ParseEvent(e.Value)
			if (err != nil) != (c.reason == schemas.Malformed) {
				t.Fatal(err)
			}
			if c.callID != "" && parsed.CallID != c.callID {
				t.Errorf("CallId %q, want %q", parsed.CallID, c.callID)
			}
			var want []schemas.Reason
			if c.reason != "" {
				want = []schemas.Reason{c.reason}
			}
			if enriched := c.reason == "" && !c.skipped; !slices.Equal(e.Reasons, want) || (e.Enriched != nil) != enriched || enriched && e.CallID != c.callID {
				t.Errorf("%s with the outcome %v, %q, %s", e.Value, e.Reasons, e.CallID, e.Enriched)
			}
		})
	}
}

func TestRepeatedEventsAreOfEarlierCalls(t *testing.T) {
	g := generator(audittest.Mix{Repeated: 100})
	first := g.Next()
	for range 10 {
		if e := g.Next(); e.CallID != first.CallID || string(e.Enriched) != string(first.Enriched) {
			t.Errorf("an event of %s, want one of %s", e.CallID, first.CallID)
		}
	}
}

func TestCallIDsComeAgain(t *testing.T) {
	g := generator(audittest.Mix{})
	g.Calls = 3
	var ids []string
	for range 4 {
		ids = append(ids, g.Next().CallID)
	}
	if want := []string{"call-0", "call-1", "call-2", "call-0"}; !slices.Equal(ids, want) {
		t.Errorf("%v, want %v", ids, want)
	}
}

// A mix is in percent.
func TestMixIsKept(t *testing.T) {
	const n = 10_000
	g := generator(audittest.Mix{Malformed: 10, NeverFound: 30})
	count := map[schemas.Reason]int{}
	for range n {
		e := g.Next()
		if len(e.Reasons) > 0 {
			count[e.Reasons[0]]++
		}
	}
	for reason, percent := range map[schemas.Reason]int{schemas.Malformed: 10, schemas.NotFound: 30} {
		if got := 100 * count[reason] / n; got < percent-2 || got > percent+2 {
			t.Errorf("%d %% %s, want %d %%", got, reason, percent)
		}
	}
}
