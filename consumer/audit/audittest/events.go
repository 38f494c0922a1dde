// Package audittest generates events whose outcomes are known, for the calls of a
// simulated API, and feeds them to a topic together with an audit ledger.
//
// It is for tests, the demo and the simulator. It does not read any outcome:
// package audit does.
package audittest

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

// EndCall is the value of the event of a call that ended at a time.
func EndCall(callID string, at time.Time) []byte {
	return callback("Call.CallbackAfterEndCall", callID, at)
}

func callback(command, callID string, at time.Time) []byte {
	return fmt.Appendf(nil, `{"CallbackCommand":%q,"CallRecord":{"CallId":%q},"EventTime":%d}`, command, callID, at.UnixMilli())
}

// Enriched is the outcome of an event of a call whose record the API has.
func Enriched(api *fetchtest.API, callID string) audit.Expect {
	r := api.RecordFor(callID)
	return audit.Expect{CallID: callID, Enriched: schemas.Enrich(&r).Encode()}
}

// malformed are values that no event has.
var malformed = []string{"", "null", "{}", "not JSON", "{\"CallId\":\"\xff", `{"CallId":["a list"]}`, `{"CallId":""}`}

// Mix is the percentage of events of each kind. The rest are the first events of
// calls whose record exists at once.
type Mix struct {
	Malformed     float64
	OtherCallback float64
	NeverFound    float64
	Late          float64 // the record appears within Generator.MaxDelay
	Repeated      float64 // an event of an earlier call
	Bare          float64 // a first event without the fields around the CallId
}

// Generator generates events at random. It is not safe for concurrent use.
type Generator struct {
	API  *fetchtest.API
	Rand *rand.Rand
	Mix  Mix
	// MaxDelay bounds how long after its event the record of a Late call appears.
	MaxDelay time.Duration
	// Calls is how many different CallIds there are, because a simulated API
	// remembers each; 0: any number.
	Calls int

	n      int
	recent []string // CallIds to repeat
}

// maxRecent is how many calls back a repeated event may reach.
const maxRecent = 1000

// Next returns the next event, as the key, the value and the outcome that it must
// have.
func (g *Generator) Next() audit.Expect {
	n := g.n
	g.n++
	if g.Calls > 0 {
		n %= g.Calls
	}
	id := "call-" + strconv.Itoa(n)
	e := g.event(id, time.Now())
	if e.Key == nil {
		e.Key = []byte("key-of-" + id)
	}
	return e
}

func (g *Generator) event(id string, now time.Time) audit.Expect {
	percent := g.Rand.Float64() * 100
	is := func(share float64) bool {
		hit := 0 <= percent && percent < share
		percent -= share
		return hit
	}
	switch {
	case is(g.Mix.Malformed):
		return audit.Expect{Value: []byte(malformed[g.Rand.IntN(len(malformed))]), Reasons: []schemas.Reason{schemas.Malformed}}
	case is(g.Mix.OtherCallback):
		return audit.Expect{Value: callback("Call.CallbackAfterStartCall", id, now)}
	case is(g.Mix.NeverFound):
		g.API.Never(id)
		return audit.Expect{Value: EndCall(id, now), Reasons: []schemas.Reason{schemas.NotFound}}
	case is(g.Mix.Repeated) && len(g.recent) > 0:
		return g.found(g.recent[g.Rand.IntN(len(g.recent))], now)
	}
	g.recent = append(g.recent, id)
	if len(g.recent) > maxRecent {
		g.recent = g.recent[1:]
	}
	e := g.found(id, now)
	switch {
	case is(g.Mix.Late):
		g.API.AvailableAt(id, now.Add(time.Duration(g.Rand.Int64N(int64(g.MaxDelay)))))
	case is(g.Mix.Bare):
		e.Value = fmt.Appendf(nil, `{"CallId":%q}`, id)
	}
	return e
}

func (g *Generator) found(id string, now time.Time) audit.Expect {
	e := Enriched(g.API, id)
	e.Key, e.Value = []byte(id), EndCall(id, now)
	return e
}
