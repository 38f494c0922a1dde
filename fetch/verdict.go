package fetch

// Verdict is what a response means for the events that wait for it. The set is
// closed. The table below says what enricher does on each; package fetch/lookup
// does it.
type Verdict uint8

const (
	// Found means that the record exists and the call has ended.
	Found Verdict = iota
	// NotYet means that the API has no record, or one of a call that has not
	// ended.
	NotYet
	// Retry means that this request failed for a reason that usually passes.
	Retry
	// Throttled means that the API asks for a slower pace.
	Throttled
	// AccountRejected means that no request can succeed until key, app or account
	// is fixed.
	AccountRejected
	// Rejected means that the API calls this very request malformed.
	Rejected
	// Unknown means a code that is not in the error table.
	Unknown
)

// verdicts has one row for each verdict, in the order of their values.
var verdicts = [...]struct {
	name    string
	attempt bool   // see CountsAsAttempt
	good    bool   // see Good
	effect  string // see Effect
}{
	Found:           {"found", true, true, "enriches the event and caches the record"},
	NotYet:          {"not_yet", true, true, "retries until the not-found window ends, then dead-letters the event as `not_found`, `not_ended` or, after 7 days, `expired`"},
	Retry:           {"retry", true, false, "retries with exponential backoff. A call that keeps failing for the retry window while others succeed is dead-lettered as `lookup_failed`. If a probe fails, too, lookups pause"},
	Throttled:       {"throttled", false, false, "slows down, and waits for as long as the API asks (at most a minute)"},
	AccountRejected: {"account_rejected", true, false, "retries with exponential backoff. A call that alone is rejected for the retry window is dead-lettered as `lookup_failed`. If a probe is rejected, too, lookups pause"},
	Rejected:        {"rejected", true, true, "dead-letters the event as `rejected`"},
	Unknown:         {"unknown_code", true, false, "retries with exponential backoff. A call that keeps drawing such codes for the retry window while others succeed is dead-lettered as `unknown_code`. If a probe draws one, too, lookups pause"},
}

// String returns the name used in logs and metric labels.
func (v Verdict) String() string { return verdicts[v].name }

// CountsAsAttempt reports whether the response counts as an attempt for the
// events that wait for it.
func (v Verdict) CountsAsAttempt() bool { return verdicts[v].attempt }

// Good reports whether the response shows that the API works and accepts the
// account.
func (v Verdict) Good() bool { return verdicts[v].good }

// Effect returns what enricher does on this verdict, as the documents say it. The
// tests hold the documents and package fetch/lookup to it.
func (v Verdict) Effect() string { return verdicts[v].effect }

// Bad reports whether the verdict shows that the API does not work, or does not
// accept the account, at least for this call.
func (v Verdict) Bad() bool { return v == Retry || v == AccountRejected || v == Unknown }
