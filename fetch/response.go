package fetch

import (
	"time"

	"enricher/schemas"
)

// Response is what came of one request. A failure of any kind is an answer too:
// the API says HTTP 200 for most of its own.
type Response struct {
	Verdict Verdict
	// Code is the API's ErrorCode, or the HTTP status when that decided; 0 when
	// neither did (found, network trouble, a body that could not be read).
	Code int
	// Label names the answer in the metric enricher_lookups_total{code}: one of
	// ResponseLabels.
	Label string
	// Message says in words what came back, without any secret, at most 1 KiB.
	Message string
	// RequestID is the API's own id of the request; "" when it sent none.
	RequestID string
	// Record is set when Verdict is Found.
	Record *schemas.CallRecord
	// NotEnded is true for NotYet when a record came without an end time.
	NotEnded bool
	// RetryAfter is the pause that a Throttled answer asked for, capped at
	// 60 s; 0 when it named none.
	RetryAfter time.Duration
	// ProbeEvery is, for AccountRejected, how long to wait between probes.
	ProbeEvery time.Duration
	// EscalateAfter is, for a few Retry codes, the number of such answers in a row
	// for one CallId after which they mean AccountRejected; 0 for all others.
	EscalateAfter int
	// Lockout is for how long the API refuses every request of the account.
	Lockout time.Duration
}
