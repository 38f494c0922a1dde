package fetch

import (
	"fmt"
	"time"
)

// GateReason is why the gate is shut. The gravest comes first.
type GateReason uint8

// The reasons, gravest first.
const (
	HaltGate GateReason = iota
	CircuitGate
	FloodGate
	SlowGate
	gateReasons
)

var gateReasonNames = [gateReasons]string{"halt", "circuit", "flood_guard", "slow_down"}

// String is the name used in logs and metric labels.
func (r GateReason) String() string { return gateReasonNames[r] }

// GateReasons lists all reasons, gravest first.
func GateReasons() []GateReason { return []GateReason{HaltGate, CircuitGate, FloodGate, SlowGate} }

const (
	// The circuit shuts after so many failures in a row over so many calls,
	circuitFailures, circuitCalls = 20, 5
	// or after so many of one call when nothing else is asked.
	circuitAlone = 5

	circuitProbeEvery = time.Second
	floodProbeEvery   = 5 * time.Second
)

// slowPauses are the pauses after slow-down answers that name none; the last
// one repeats.
var slowPauses = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second}

// Gate stands between those who wait for a lookup and the client. It is open,
// or shut for one or more reasons; while it is shut only probes go out. It is
// pure: no clock, no lock.
type Gate struct {
	floodGuard int // 0: off

	shut   [gateReasons]bool
	since  [gateReasons]time.Time // when it shut
	probed time.Time              // last probe
	opened time.Time              // when the last reason went away

	halt      Answer              // the last one of that verdict
	failures  int                 // retry and unknown answers in a row
	failed    map[string]struct{} // their CallIds, up to circuitCalls
	failure   Answer              // the last one
	lookups   int                 // that were about to end in a dead letter since the last found
	slow      Answer              // the last one of that verdict
	slowUntil time.Time
	slowLevel int // index in slowPauses of the next pause
}

// NewGate makes an open gate. floodGuard is the number of lookups in a row that
// may end in a dead letter, without one found in between; 0: any number.
func NewGate(floodGuard int) *Gate {
	return &Gate{floodGuard: floodGuard, failed: make(map[string]struct{})}
}

// Shut returns the gravest reason for which the gate is shut.
func (g *Gate) Shut(now time.Time) (GateReason, bool) {
	if g.shut[SlowGate] && !now.Before(g.slowUntil) {
		g.open(SlowGate, g.slowUntil)
	}
	for r, shut := range g.shut {
		if shut {
			return GateReason(r), true
		}
	}
	return 0, false
}

// ShutFor says whether r is one of the reasons for which the gate is shut.
func (g *Gate) ShutFor(r GateReason) bool { return g.shut[r] }

// Opened is when the gate last opened; zero: it was never shut.
func (g *Gate) Opened() time.Time { return g.opened }

// Probe says, of a gate that is shut, how long it is until the next probe may
// go out; 0: now.
func (g *Gate) Probe(now time.Time) time.Duration {
	reason, shut := g.Shut(now)
	if !shut {
		return 0
	}
	var every time.Duration
	switch reason {
	case HaltGate:
		every = g.halt.ProbeEvery
	case CircuitGate:
		every = circuitProbeEvery
	case FloodGate:
		every = floodProbeEvery
	}
	last := g.since[reason]
	if g.probed.After(last) {
		last = g.probed
	}
	wait := last.Add(every).Sub(now)
	if g.shut[SlowGate] { // whatever else it is shut for
		wait = max(wait, g.slowUntil.Sub(now))
	}
	return max(0, wait)
}

// Probed tells that a probe went out.
func (g *Gate) Probed(now time.Time) { g.probed = now }

// ProbeNow lets the next probe out at once: what the gate is shut for may have
// been mended.
func (g *Gate) ProbeNow() {
	g.probed = time.Time{}
	if g.shut[HaltGate] {
		g.since[HaltGate] = time.Time{}
	}
}

// Observe takes in an answer to a request for callID that was started then.
func (g *Gate) Observe(now, started time.Time, callID string, a *Answer) {
	g.Shut(now)
	failed := a.Verdict == Retry || a.Verdict == Unknown
	switch {
	case a.Verdict == Halt:
		g.halt = *a
		g.close(HaltGate, now)
	case a.Verdict == SlowDown:
		g.pause(now, started, a)
	case failed:
		g.fail(now, callID, a)
	}
	if a.Verdict != SlowDown && !failed {
		g.failures = 0
		clear(g.failed)
		g.open(CircuitGate, now)
		// An answer that was on its way when the gate shut says nothing new.
		if a.Verdict != Halt && started.After(g.since[HaltGate]) {
			g.open(HaltGate, now)
		}
	}
	if a.Verdict == Unknown && started.After(g.since[HaltGate]) {
		g.open(HaltGate, now)
	}
	if a.Verdict == Found {
		g.lookups = 0
		g.open(FloodGate, now)
	}
	if (a.Verdict == Found || a.Verdict == NotYet) && !g.shut[SlowGate] {
		g.slowLevel = 0
	}
}

func (g *Gate) fail(now time.Time, callID string, a *Answer) {
	g.failure = *a
	g.failures++
	if len(g.failed) < circuitCalls {
		g.failed[callID] = struct{}{}
	}
	if g.failures >= circuitFailures && len(g.failed) >= circuitCalls ||
		g.failures >= circuitAlone && len(g.failed) == 1 {
		g.close(CircuitGate, now)
	}
}

// pause shuts the gate for as long as the API asks, or for longer each time.
func (g *Gate) pause(now, started time.Time, a *Answer) {
	g.slow = *a
	pause := a.RetryAfter
	if pause == 0 {
		// Answers to what was sent before the pause began are one refusal.
		if !started.After(g.since[SlowGate]) {
			return
		}
		pause = slowPauses[g.slowLevel]
		g.slowLevel = min(g.slowLevel+1, len(slowPauses)-1)
	}
	if until := now.Add(pause); until.After(g.slowUntil) {
		g.slowUntil = until
	}
	g.close(SlowGate, now)
}

// MayFail asks, for one lookup, whether its events may become dead letters. The
// flood guard says no once that has been so for too many in a row.
func (g *Gate) MayFail(now time.Time) bool {
	if g.floodGuard <= 0 {
		return true
	}
	if g.lookups >= g.floodGuard {
		g.close(FloodGate, now)
		return false
	}
	g.lookups++
	return true
}

func (g *Gate) close(r GateReason, now time.Time) {
	if !g.shut[r] || r == SlowGate {
		g.since[r] = now
	}
	g.shut[r] = true
}

func (g *Gate) open(r GateReason, now time.Time) {
	if !g.shut[r] {
		return
	}
	g.shut[r] = false
	if g.shut == [gateReasons]bool{} {
		g.opened = now
	}
}

// Why says in one sentence why the gate is shut for r, and what to look at.
func (g *Gate) Why(r GateReason) string {
	switch r {
	case HaltGate:
		return fmt.Sprintf("the API refuses this program: %s; check the secret key, --sdk-app-id, --identifier, the region and the account's package", g.halt.Message)
	case CircuitGate:
		return fmt.Sprintf("the API fails for everybody: %s; nothing to mend here, lookups go on when it answers again", g.failure.Message)
	case FloodGate:
		return fmt.Sprintf("%d lookups in a row came to nothing and none was found in between; check --region and --sdk-app-id: is this where the calls are?", g.lookups)
	default:
		return fmt.Sprintf("the API asks to slow down: %s; is another program using the quota, or --api-rate above it?", g.slow.Message)
	}
}
