package lookup

import (
	"fmt"
	"time"

	"enricher/fetch"
)

// PauseReason is why lookups are paused.
type PauseReason uint8

// The reasons, most severe first.
const (
	AccountRejected PauseReason = iota // the API rejects the account, key or app
	APIDown                            // the API fails for all calls
	NothingFound                       // too many lookups in a row would end in a dead letter
	Throttled                          // the API asks for a slower pace
	pauseReasons
)

var pauseReasonNames = [pauseReasons]string{"account_rejected", "api_down", "nothing_found", "throttled"}

// String returns the name used in logs, readiness and metric labels.
func (r PauseReason) String() string { return pauseReasonNames[r] }

// PauseReasons returns all reasons, most severe first.
func PauseReasons() []PauseReason {
	return []PauseReason{AccountRejected, APIDown, NothingFound, Throttled}
}

const (
	// APIDown begins after this many failures in a row, of this many calls. At
	// the default rate that is a tenth of a second of nothing but failures,
	// which single bad calls do not cause.
	downFailures, downCalls = 20, 5
	// It also begins after this many failures of the only call that is looked up.
	downAlone = 5

	downProbeInterval = time.Second
	// Probes for NothingFound are ordinary lookups and most find nothing, so
	// they are rarer.
	nothingFoundProbeInterval = 5 * time.Second
)

// throttlePauses are the pauses after throttled responses that name none; the
// last one repeats. The vendor names no duration; these keep the loss below the
// time that its own clients wait.
var throttlePauses = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second}

// Breaker is the circuit breaker between waiting events and the API. It pauses
// lookups for one or more reasons; while they are paused only probes go out. It
// is pure: no clock, no lock.
type Breaker struct {
	maxDeadLetters int // 0: off

	paused    [pauseReasons]bool
	since     [pauseReasons]time.Time // when the pause for the reason began
	lastProbe time.Time
	resumedAt time.Time // when the last reason ended; zero: never paused

	accountError   fetch.Response      // the last AccountRejected
	failures       int                 // Retry and Unknown responses in a row
	failed         map[string]struct{} // their CallIds, up to downCalls
	failure        fetch.Response      // the last of them
	deadLetters    int                 // lookups that were given up since the last Found
	throttle       fetch.Response      // the last Throttled
	throttledUntil time.Time
	throttleLevel  int // index in throttlePauses of the next pause
}

// NewBreaker returns a breaker that pauses nothing yet. maxDeadLetters is the
// number of lookups in a row that may end in a dead letter, without one found in
// between; 0: any number.
func NewBreaker(maxDeadLetters int) *Breaker {
	return &Breaker{maxDeadLetters: maxDeadLetters, failed: make(map[string]struct{})}
}

// Paused returns the most severe reason for which lookups are paused, if any.
func (b *Breaker) Paused(now time.Time) (PauseReason, bool) {
	if b.paused[Throttled] && !now.Before(b.throttledUntil) {
		b.reset(Throttled, b.throttledUntil)
	}
	for r, paused := range b.paused {
		if paused {
			return PauseReason(r), true
		}
	}
	return 0, false
}

// PausedFor reports whether r is one of the reasons for which lookups are paused.
func (b *Breaker) PausedFor(r PauseReason) bool { return b.paused[r] }

// ResumedAt returns when lookups were last resumed; zero: they were never paused.
func (b *Breaker) ResumedAt() time.Time { return b.resumedAt }

// ProbeDelay returns how long it is until the next probe may go out; 0: now,
// or lookups are not paused.
func (b *Breaker) ProbeDelay(now time.Time) time.Duration {
	reason, paused := b.Paused(now)
	if !paused {
		return 0
	}
	var interval time.Duration
	switch reason {
	case AccountRejected:
		interval = b.accountError.ProbeEvery
	case APIDown:
		interval = downProbeInterval
	case NothingFound:
		interval = nothingFoundProbeInterval
	}
	last := b.since[reason]
	if b.lastProbe.After(last) {
		last = b.lastProbe
	}
	wait := last.Add(interval).Sub(now)
	if b.paused[Throttled] { // whatever the other reasons are
		wait = max(wait, b.throttledUntil.Sub(now))
	}
	return max(0, wait)
}

// ProbeSent notes that a probe went out.
func (b *Breaker) ProbeSent(now time.Time) { b.lastProbe = now }

// ProbeNow lets the next probe out at once: the cause may be fixed.
func (b *Breaker) ProbeNow() {
	b.lastProbe = time.Time{}
	if b.paused[AccountRejected] {
		b.since[AccountRejected] = time.Time{}
	}
}

// Observe applies the response to a request for callID that was started then.
func (b *Breaker) Observe(now, started time.Time, callID string, r *fetch.Response) {
	b.Paused(now)
	failed := r.Verdict == fetch.Retry || r.Verdict == fetch.Unknown
	switch {
	case r.Verdict == fetch.AccountRejected:
		b.accountError = *r
		b.trip(AccountRejected, now)
	case r.Verdict == fetch.Throttled:
		b.pause(now, started, r)
	case failed:
		b.fail(now, callID, r)
	}
	if r.Verdict != fetch.Throttled && !failed {
		b.failures = 0
		clear(b.failed)
		b.reset(APIDown, now)
		// A response to a request from before the pause is no news.
		if r.Verdict != fetch.AccountRejected && started.After(b.since[AccountRejected]) {
			b.reset(AccountRejected, now)
		}
	}
	if r.Verdict == fetch.Unknown && started.After(b.since[AccountRejected]) {
		b.reset(AccountRejected, now)
	}
	if r.Verdict == fetch.Found {
		b.deadLetters = 0
		b.reset(NothingFound, now)
	}
	if r.Verdict.Good() && !b.paused[Throttled] {
		b.throttleLevel = 0
	}
}

func (b *Breaker) fail(now time.Time, callID string, r *fetch.Response) {
	b.failure = *r
	b.failures++
	if len(b.failed) < downCalls {
		b.failed[callID] = struct{}{}
	}
	if b.failures >= downFailures && len(b.failed) >= downCalls ||
		b.failures >= downAlone && len(b.failed) == 1 {
		b.trip(APIDown, now)
	}
}

// pause pauses lookups for as long as the API asks, or for longer each time.
func (b *Breaker) pause(now, started time.Time, r *fetch.Response) {
	b.throttle = *r
	pause := r.RetryAfter
	if pause == 0 {
		// All requests sent before the pause began were throttled once.
		if !started.After(b.since[Throttled]) {
			return
		}
		pause = throttlePauses[b.throttleLevel]
		b.throttleLevel = min(b.throttleLevel+1, len(throttlePauses)-1)
	}
	if until := now.Add(pause); until.After(b.throttledUntil) {
		b.throttledUntil = until
	}
	b.trip(Throttled, now)
}

// TakeDeadLetter allows one lookup to end in dead letters and counts it. After
// too many in a row it refuses and pauses lookups.
func (b *Breaker) TakeDeadLetter(now time.Time) bool {
	if b.maxDeadLetters <= 0 {
		return true
	}
	if b.deadLetters >= b.maxDeadLetters {
		b.trip(NothingFound, now)
		return false
	}
	b.deadLetters++
	return true
}

func (b *Breaker) trip(r PauseReason, now time.Time) {
	if !b.paused[r] || r == Throttled {
		b.since[r] = now
	}
	b.paused[r] = true
}

func (b *Breaker) reset(r PauseReason, now time.Time) {
	if !b.paused[r] {
		return
	}
	b.paused[r] = false
	if b.paused == [pauseReasons]bool{} {
		b.resumedAt = now
	}
}

// Detail returns the facts behind a reason, in words.
func (b *Breaker) Detail(r PauseReason) string {
	switch r {
	case AccountRejected:
		return "the API rejects the account: " + b.accountError.Message
	case APIDown:
		return "the API fails for all calls: " + b.failure.Message
	case NothingFound:
		return fmt.Sprintf("%d consecutive lookups found nothing", b.deadLetters)
	default:
		return "the API throttles requests: " + b.throttle.Message
	}
}
