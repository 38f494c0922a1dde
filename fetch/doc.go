// Package fetch requests call records from the call-record API, one call and one
// request at a time. It signs the requests, and gives every response a verdict.
//
// It knows nothing about Kafka, and nothing about when to send a request: package
// fetch/lookup decides that. It follows no redirect and repeats no request: one
// Lookup sends at most one, because the caller counts requests against a rate. And
// it lets no secret out: all text that leaves it, in a Response, an error or a
// panic, passes one redactor.
//
// Start reading at Client.Lookup. What a code means is in the table of codes.go,
// what happens on a verdict in the table of verdict.go.
package fetch
