package lookup

import (
	"fmt"
	"time"
)

// maxUnprovenDeadLetters is how many lookups may end in dead letters before a
// process has found its first record. A process that is restarted in a wrong
// region again and again writes that many each time, not the whole limit.
const maxUnprovenDeadLetters = 20

// maxScoutInterval is the longest interval between scouts; they begin with 1 s.
const maxScoutInterval = 30 * time.Second

// Guard is the dead-letter guard: between two records found, at most limit
// lookups may end in dead letters. Whatever would exceed that is withheld until
// the next record is found: it shows that the API has records, so those that it
// has none for are at fault themselves.
//
// It is pure: no clock, no lock.
type Guard struct {
	limit       int // 0: off
	count       int // dead letters since the last record found
	withholding bool
	round       int // how often withholding has ended

	scouts    int // without a record since withholding began
	nextScout time.Time
}

// NewGuard returns a guard that allows limit dead letters in a row; 0: any number.
func NewGuard(limit int) *Guard {
	return &Guard{limit: limit, count: max(0, limit-maxUnprovenDeadLetters)}
}

// Decision is what becomes of a lookup that would end in dead letters.
type Decision uint8

// The decisions.
const (
	Allowed  Decision = iota // the lookup ends
	Withheld                 // it waits, without a request, until Found returns true
	Outdated                 // its request began before withholding ended: request it again
)

// Allow decides about a lookup that would end in dead letters, and counts it if it
// does. round is what Round returned when its request began: what was in flight
// when withholding ended would exceed the limit at once.
func (g *Guard) Allow(now time.Time, round int) Decision {
	switch {
	case g.limit <= 0:
		return Allowed
	case round != g.round:
		return Outdated
	case g.withholding:
		return Withheld
	case g.count < g.limit:
		g.count++
		return Allowed
	}
	g.withholding, g.scouts = true, 0
	g.nextScout = now.Add(time.Second)
	return Withheld
}

// Round returns the number of times that withholding has ended.
func (g *Guard) Round() int { return g.round }

// Withholding reports whether dead letters are withheld.
func (g *Guard) Withholding() bool { return g.withholding }

// Detail returns the facts while dead letters are withheld, in words.
func (g *Guard) Detail() string {
	return fmt.Sprintf("%d lookups in a row ended in dead letters; further ones are withheld until a record is found", g.limit)
}

// Found notes that a record was found, and reports whether that ends withholding.
func (g *Guard) Found() (released bool) {
	g.count = 0
	if !g.withholding {
		return false
	}
	g.withholding = false
	g.round++
	return true
}

// ScoutDelay returns how long it is until the next scout may go out.
func (g *Guard) ScoutDelay(now time.Time) time.Duration {
	if !g.withholding {
		return idleWait
	}
	return max(0, g.nextScout.Sub(now))
}

// ScoutFailed notes that a scout found no record, or no event ahead.
func (g *Guard) ScoutFailed(now time.Time) {
	interval := maxScoutInterval
	if g.scouts < 5 { // 1 s << 5 exceeds it
		interval = min(interval, time.Second<<g.scouts)
	}
	g.scouts++
	g.nextScout = now.Add(interval)
}
