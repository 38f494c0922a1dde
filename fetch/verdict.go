package fetch

// Verdict is what a response of the API means for the events that wait for it.
// The set is closed. What the scheduler does on each verdict is in the table of
// package fetch/lookup.
type Verdict uint8

const (
	// Found means that the record exists and the call has ended: the event is
	// enriched and the record cached.
	Found Verdict = iota
	// NotYet means that the API has no record, or one of a call that has not
	// ended: it is requested again until the not-found window is over, and then
	// the event becomes a dead letter (not_found, not_ended or expired).
	NotYet
	// Retry means that this attempt failed for a reason that usually passes: it is
	// repeated with back-off. A call that fails for the whole retry window while
	// others succeed becomes a dead letter (lookup_failed).
	Retry
	// Throttled means that the API asks for a slower pace: all lookups pause. It
	// is not an attempt.
	Throttled
	// AccountRejected means that no request can succeed until key, app or account
	// is fixed: lookups pause and a probe asks from time to time. It is not an
	// attempt.
	AccountRejected
	// Rejected means that the API calls this very request malformed: the event
	// becomes a dead letter (rejected).
	Rejected
	// Unknown means a code that is not in the table: after MaxUnknownAttempts the
	// event becomes a dead letter (unknown_code), if other calls succeed meanwhile.
	Unknown
)

// verdicts has one row for each verdict, in the order of their values.
var verdicts = [...]struct {
	name    string
	attempt bool   // it counts as an attempt
	good    bool   // the API works and accepts the account
	effect  string // for the documentation
}{
	Found:           {"found", true, true, "the event is enriched and the record cached"},
	NotYet:          {"not_yet", true, true, "requested again until the not-found window is over, then a dead letter"},
	Retry:           {"retry", true, false, "requested again with back-off; a dead letter only if the call fails for the whole retry window while others succeed"},
	Throttled:       {"throttled", false, false, "all lookups pause for as long as the API asks, or 1 to 5 s"},
	AccountRejected: {"account_rejected", true, false, "lookups pause until the API accepts the account again; a probe asks from time to time"},
	Rejected:        {"rejected", true, false, "a dead letter"},
	Unknown:         {"unknown_code", true, false, "requested again with back-off, five times, then a dead letter if other calls succeed meanwhile"},
}

// String returns the name used in logs and metric labels.
func (v Verdict) String() string { return verdicts[v].name }

// CountsAsAttempt reports whether a response with this verdict counts as an
// attempt for the events that wait for it.
func (v Verdict) CountsAsAttempt() bool { return verdicts[v].attempt }

// Good reports whether the verdict shows that the API works and accepts the
// account.
func (v Verdict) Good() bool { return verdicts[v].good }

// Effect returns what happens on this verdict, in words.
func (v Verdict) Effect() string { return verdicts[v].effect }

// Bad reports whether the verdict shows that the API does not work, or does not
// accept the account, at least for this call.
func (v Verdict) Bad() bool { return v == Retry || v == AccountRejected || v == Unknown }
