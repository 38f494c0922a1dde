// Package fetch asks the call-record API for one call's record at a time, and
// decides when it may ask: request, UserSig, error table, retry schedule, quota,
// gate, and a cache that shares one lookup among all events of a CallId.
//
// What it refuses to do: it knows nothing of Kafka; it follows no redirect and
// repeats no request by itself (one Lookup is at most one request, because the
// caller counts requests against a quota); and it lets no secret out. The app's
// key, a UserSig and a URL that holds one stay in this package: every text that
// leaves it went through one redactor.
//
// Start reading at Client.Lookup; what an answer means is in the table of
// codes.go.
package fetch
