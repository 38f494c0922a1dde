package fetch

import (
	"time"

	"enricher/schemas"
)

// Verdict is what an answer of the API means for the event that waits for it.
// The set is closed; consumer holds the one switch on it.
type Verdict uint8

const (
	// Found: the record is there and the call has ended.
	Found Verdict = iota
	// NotYet: the API has no record, or one of a call that has not ended; it may come.
	NotYet
	// Retry: this try failed for a reason that is expected to pass.
	Retry
	// SlowDown: the API asks all callers to pause. Not an attempt.
	SlowDown
	// Halt: nothing can succeed until somebody mends key, app or account. Not an attempt.
	Halt
	// Reject: the API calls this very request malformed; asking again is no use.
	Reject
	// Unknown: a code that is not in the table.
	Unknown
)

var verdictNames = [...]string{"found", "not_yet", "retry", "slow_down", "halt", "reject", "unknown_code"}

// String is the name used in logs and metric labels.
func (v Verdict) String() string { return verdictNames[v] }

// Verdicts lists all verdicts, in the order of their values.
func Verdicts() []Verdict {
	return []Verdict{Found, NotYet, Retry, SlowDown, Halt, Reject, Unknown}
}

// Answer is what came of one request. A failure of any kind is an answer too:
// the API says HTTP 200 for most of its own.
type Answer struct {
	Verdict Verdict
	// Code is the API's ErrorCode, or the HTTP status when that decided; 0 when
	// neither did (found, network trouble, a body that could not be read).
	Code int
	// Label names the answer in the metric enricher_lookups_total{code}: one of
	// CodeLabels.
	Label string
	// Message says in words what came back, without any secret, at most 1 KiB.
	Message string
	// RequestID is the API's own id of the request; "" when it sent none.
	RequestID string
	// Record is set when Verdict is Found.
	Record *schemas.Record
	// NotEnded is true for NotYet when a record came without an end time.
	NotEnded bool
	// RetryAfter is the pause that a SlowDown answer asked for, capped at
	// 60 s; 0 when it named none.
	RetryAfter time.Duration
	// ProbeEvery is, for Halt, how long to wait between probes.
	ProbeEvery time.Duration
	// HaltAfter is, for a few Retry codes, the number of such answers in a row
	// for one CallId after which they mean Halt; 0 for all others.
	HaltAfter int
}
