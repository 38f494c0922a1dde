package lookup

import (
	"math"
	"time"

	"enricher/fetch"
)

const (
	// maxBadInRow is the number of bad responses in a row that pause lookups until
	// a probe has shown whose fault they are. At the default rate that is a tenth
	// of a second of nothing but failures.
	maxBadInRow = 20
	// maxQuiet is how long the last good response may be ago for a single bad one
	// to be taken as the fault of its call.
	maxQuiet = time.Second

	// The intervals between probes double from 1 s up to these. An account is
	// fixed by a person; an API that fails may be back at any moment.
	maxProbeInterval        = 5 * time.Second
	maxAccountProbeInterval = 30 * time.Second

	// maxPauses bounds the memory of pauses: at one a minute, those of four hours.
	maxPauses = 256
)

// How likely it is that all failures of a call are chance is estimated from the
// share of requests that fail at the moment.
const (
	// shareWeight is the weight of one response in the moving average: the last
	// fifty or so count.
	shareWeight = 0.02
	// shareDoubt is added to the average, because the sample is small.
	shareDoubt = 0.1
	// maxShare keeps a failure from counting nothing: in the end, a call that
	// always fails is given up even if nearly all others fail.
	maxShare = 0.97
)

// Breaker is the circuit breaker between waiting calls and the API. There is one
// kind of pause, and only a good response to a probe ends it: a request for a call
// that does not exist, so it shows whether the API works for this account. A
// pause begins with such a probe at once. If only some calls are at fault, it is
// over after one round trip.
//
// It is pure: no clock, no lock.
type Breaker struct {
	paused    bool
	since     time.Time // when the pause began
	level     int       // probes of this pause that failed
	nextProbe time.Time
	probing   bool           // a probe is in flight
	failure   fetch.Response // of the last probe that failed

	resumedAt time.Time
	badInRow  int
	lastGood  time.Time // the last good response
	lastFound time.Time // the last good response to a request for a call, not to a probe
	pauses    []pause   // those that are over, oldest first
	badShare  float64   // of the first requests for calls
}

type pause struct{ from, to time.Time }

// Paused reports whether lookups are paused: only a probe may go out.
func (b *Breaker) Paused() bool { return b.paused }

// Reason returns why lookups are paused and what the last probe showed. Nothing
// is reported before a probe has failed: a single bad call is no reason.
func (b *Breaker) Reason() (r Reason, detail string, ok bool) {
	switch {
	case !b.paused || b.level == 0:
		return 0, "", false
	case b.failure.Verdict == fetch.AccountRejected:
		return AccountRejected, "the API rejects the account: " + b.failure.Message, true
	}
	return APIDown, "the API fails for all calls: " + b.failure.Message, true
}

// ProbeDelay returns how long it is until the next probe of this pause may go out.
func (b *Breaker) ProbeDelay(now time.Time) time.Duration {
	if b.probing {
		return idleWait
	}
	return max(0, b.nextProbe.Sub(now))
}

// ProbeSent notes that a probe is in flight.
func (b *Breaker) ProbeSent() { b.probing = true }

// ProbeWithheld notes that the probe was not made after all.
func (b *Breaker) ProbeWithheld() { b.probing = false }

// ProbeNow lets the next probe out at once: the cause may be fixed.
func (b *Breaker) ProbeNow(now time.Time) { b.nextProbe = now }

// ObserveProbe applies the response to a probe.
func (b *Breaker) ObserveProbe(now time.Time, r *fetch.Response) {
	b.probing = false
	if r.Verdict.Good() {
		b.badInRow, b.lastGood = 0, now
		b.resume(now)
		return
	}
	b.failure = *r
	b.level++
	longest := maxProbeInterval
	if r.Verdict == fetch.AccountRejected {
		longest = maxAccountProbeInterval
	}
	interval := longest
	if b.level < 6 { // 1 s << 5 exceeds both
		interval = min(longest, time.Second<<(b.level-1))
	}
	b.nextProbe = now.Add(max(interval, r.Lockout))
}

// Observe applies the response to a request for a call. first says that it is
// the first one for this call: repeated requests would count a call that always
// fails again and again.
func (b *Breaker) Observe(now, started time.Time, r *fetch.Response, first bool) {
	bad := r.Verdict.Bad()
	if first && r.Verdict != fetch.Throttled {
		b.observeFirst(bad)
	}
	switch {
	case r.Verdict.Good():
		b.badInRow, b.lastGood, b.lastFound = 0, now, now
	case b.paused, !bad, started.Before(b.resumedAt):
		// A request from before the last pause says nothing new.
	default:
		b.badInRow++
		if b.badInRow >= maxBadInRow || Elapsed(b.lastGood, now) >= maxQuiet {
			b.paused, b.since, b.level, b.nextProbe, b.badInRow = true, now, 0, now, 0
		}
	}
}

func (b *Breaker) observeFirst(bad bool) {
	x := 0.0
	if bad {
		x = 1
	}
	b.badShare += shareWeight * (x - b.badShare)
}

func (b *Breaker) resume(now time.Time) {
	if !b.paused {
		return
	}
	b.paused, b.resumedAt = false, now
	b.pauses = append(b.pauses, pause{b.since, now})
	if len(b.pauses) > maxPauses {
		// The two oldest become one of the same total length.
		oldest := b.pauses[0]
		b.pauses = b.pauses[1:]
		b.pauses[0].from = b.pauses[0].from.Add(-oldest.to.Sub(oldest.from))
	}
}

// LastGood returns when a request for a call, not a probe, last got a good
// response.
func (b *Breaker) LastGood() time.Time { return b.lastFound }

// Unpaused returns how much of the time between from and to lookups were not
// paused. from may be any time, because an event may have been in Kafka during a
// pause that has to count for it. The time of an event is a time of day, and its
// pauses are then measured by it, too, in case the machine slept meanwhile.
func (b *Breaker) Unpaused(from, to time.Time) time.Duration {
	d := to.Sub(from)
	if b.paused {
		d -= overlap(pause{b.since, to}, from, to)
	}
	for i := len(b.pauses) - 1; i >= 0 && b.pauses[i].to.After(from); i-- {
		d -= overlap(b.pauses[i], from, to)
	}
	return max(d, 0)
}

// overlap returns how much of the pause lies between from and to.
func overlap(p pause, from, to time.Time) time.Duration {
	if timeOfDay := from.Round(0); from == timeOfDay { //nolint:staticcheck // it asks for a reading of the clock, not for the same moment
		p.from, p.to = p.from.Round(0), p.to.Round(0)
	}
	if from.After(p.from) {
		p.from = from
	}
	if to.Before(p.to) {
		p.to = to
	}
	return max(0, p.to.Sub(p.from))
}

// Evidence returns what one more failure of a call says against the call itself:
// −ln of the chance that a request fails at the moment. Failures are chance with
// e to the minus their sum.
func (b *Breaker) Evidence() float64 { return -math.Log(min(b.badShare+shareDoubt, maxShare)) }
