// Package lookup turns a CallId into the outcome of the events that carry it:
// an enriched value, or the reason for a dead letter. It decides when a request
// starts and what its response means.
//
// It depends on neither Kafka nor HTTP: events come in by
// Scheduler.Add, outcomes leave by Scheduler.Outcomes, and a request is one call
// of API.Lookup.
//
// Four parts have one job each:
//
//	Limiter  may one more request go out now?
//	Breaker  does the API work at all? If not, only probes go out.
//	queue    which call is next? First requests and repeats take turns.
//	Guard    may this lookup end in dead letters? If not, they are withheld.
//
// What each verdict does (fetch.Verdict says how a response gets one; verdicts.go
// holds the switch). A good response is found, not_yet or rejected; a bad one is
// retry, account_rejected or unknown_code. After 20 bad ones in a row, or one when
// there was no good one for a second, the breaker pauses lookups and finds out by a
// probe whose fault it is.
//
//	verdict           attempt  API   next request               dead letter, if the guard allows it
//	found             yes      good  –                          never; releases what the guard withholds
//	not_yet           yes      good  RetryPolicy.NextNotFound   when the window is over: not_found, not_ended
//	                                                            or expired
//	retry             yes      bad   RetryPolicy.Backoff        RetryPolicy.GiveUp: lookup_failed
//	account_rejected  yes      bad   RetryPolicy.Backoff        RetryPolicy.GiveUp: lookup_failed
//	unknown_code      yes      bad   RetryPolicy.Backoff        RetryPolicy.GiveUp: unknown_code
//	rejected          yes      good  –                          rejected, at once
//	throttled         no       –     at once; the limiter slows never
//	                                 down
//
// Windows are unpaused time: Breaker.Unpaused. No pause begins one again, and no
// pause ends a back-off.
//
// So for 101050 (record_not_found, the row in fetch/codes.go): not_yet, which
// onNotYet handles: requested again 5, 10, 20, 40, 80 and 120 s after the event
// with the default window of two minutes, then a dead letter not_found.
package lookup
