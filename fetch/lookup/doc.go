// Package lookup turns a CallId into the outcome of the events that carry it:
// an enriched value, or the reason for a dead letter. It decides when a request
// starts and what its response means.
//
// It knows nothing of Kafka and nothing of HTTP: events come in by
// Scheduler.Add, outcomes leave by Scheduler.Outcomes, and a request is one call
// of API.Lookup.
//
// What each verdict does (fetch.Verdict says how a response gets one; verdicts.go
// holds the switch):
//
//	verdict           attempt  breaker                          next try                 dead letter
//	found             yes      ends api_down, account_rejected  –                        never
//	                           and nothing_found
//	not_yet           yes      ends api_down, account_rejected  RetryPolicy.NextNotFound when the window is over: not_found,
//	                                                                                     not_ended or expired
//	retry             yes      many in a row: api_down          RetryPolicy.Backoff      lookup_failed, after the retry window,
//	                                                                                     if other calls succeed
//	throttled         no       throttled                        when lookups resume      never
//	account_rejected  no       account_rejected                 as a probe               lookup_failed, at the third time while
//	                                                                                     other calls succeed
//	rejected          yes      ends api_down, account_rejected  –                        rejected, at once
//	unknown_code      yes      many in a row: api_down          RetryPolicy.Backoff      unknown_code, at the fifth in a row,
//	                           ends account_rejected                                     if other calls succeed
//
// Every dead letter, except expired ones and those of a call that alone gets
// account errors, needs Breaker.TakeDeadLetter, which refuses after too many in a
// row: lookups pause then for nothing_found.
//
// So for 101050 (record_not_found, the row in fetch/codes.go): not_yet, which
// onNotYet handles: requested again 5, 10, 20, 40, 80 and 120 s after the event
// with the default window of two minutes, then a dead letter not_found.
package lookup
