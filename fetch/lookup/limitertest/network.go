package limitertest

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Network is the way to the API and back, and the API's own time.
type Network struct {
	Out, API, Back time.Duration // at least
	Jitter         time.Duration // on top, each way: requests may overtake each other by as much
	Slow           float64       // part of the responses that take 1 to 4 s more
	Lost           float64       // part of the requests of which a packet is lost once
	Stalls         []Stall
	Rand           *rand.Rand
	// Refuse, if not nil, reports whether the API refuses a request that arrives.
	Refuse func(arrival time.Time) bool
	// Arrivals are the times at which requests arrived.
	Arrivals []time.Time
}

// Stall is a time, since Start, during which the network or the API stands still.
type Stall struct {
	From, To time.Duration
	Kind     StallKind
}

// StallKind says what becomes of what is sent during a stall.
type StallKind int

// The kinds of stalls.
const (
	HoldRequests  StallKind = iota // arrive at the end of the stall, in order
	HoldResponses                  // the same for responses
	HoldAPI                        // the API takes requests in and responds at the end
	DropRequests                   // each arrives with its own retransmission: out of order
	DropResponses
)

// retransmit is TCP's first timeout: it doubles with every retransmission.
const retransmit = 200 * time.Millisecond

// InOrder are the stalls that keep the order of requests.
var InOrder = []StallKind{HoldRequests, HoldResponses, HoldAPI}

// RandomStalls draws stalls of 0.1 to 10 s, most of them short, from from to to.
func RandomStalls(rng *rand.Rand, kinds []StallKind, from, to time.Duration) []Stall {
	var all []Stall
	for at := from; at < to; {
		d := Between(rng, 100*time.Millisecond, time.Second)
		if rng.IntN(3) == 0 {
			d = Between(rng, time.Second, 10*time.Second)
		}
		all = append(all, Stall{at, at + d, kinds[rng.IntN(len(kinds))]})
		at += d + Between(rng, 0, 3*time.Second)
	}
	return all
}

// Between draws a duration from from to to.
func Between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)))
}

// cross returns when what is sent at a time has passed the stalls.
func (n *Network) cross(at time.Duration, hold, drop StallKind) time.Duration {
	for _, s := range n.Stalls {
		if at < s.From || at >= s.To {
			continue
		}
		switch s.Kind {
		case hold:
			at = s.To
		case drop:
			for timeout := retransmit; at < s.To; timeout *= 2 {
				at += timeout
			}
		}
	}
	return at
}

func (n *Network) jitter() time.Duration {
	if n.Jitter == 0 {
		return 0
	}
	return Between(n.Rand, 0, n.Jitter)
}

// send returns when a request that is written now arrives, and when its response
// is back.
func (n *Network) send(now time.Duration) (arrival, response time.Duration) {
	at := n.cross(now, HoldRequests, DropRequests)
	if n.Lost > 0 && n.Rand.Float64() < n.Lost {
		at += retransmit
	}
	arrival = at + n.Out + n.jitter()
	done := arrival + n.API
	if n.Slow > 0 && n.Rand.Float64() < n.Slow {
		done += Between(n.Rand, time.Second, 4*time.Second)
	}
	for _, s := range n.Stalls {
		if s.Kind == HoldAPI && done >= s.From && done < s.To {
			done = s.To
		}
	}
	return arrival, n.cross(done, HoldResponses, DropResponses) + n.Back + n.jitter()
}

// Busiest returns the largest number of arrivals within any span that is shorter
// than window, and when it began.
func (n *Network) Busiest(window time.Duration) (most int, from time.Duration) {
	slices.SortFunc(n.Arrivals, time.Time.Compare)
	first := 0
	for last, t := range n.Arrivals {
		for t.Sub(n.Arrivals[first]) >= window {
			first++
		}
		if last-first+1 > most {
			most, from = last-first+1, n.Arrivals[first].Sub(Start)
		}
	}
	return most, from
}

// Count returns how many requests arrived from from to to.
func (n *Network) Count(from, to time.Duration) int {
	count := 0
	for _, t := range n.Arrivals {
		if d := t.Sub(Start); d >= from && d < to {
			count++
		}
	}
	return count
}
