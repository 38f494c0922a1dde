package fetch

import (
	"time"

	"enricher/schemas"
)

// Response is what came of one request. Failures of every kind are responses,
// too: the API returns HTTP 200 for most of its own.
type Response struct {
	Verdict Verdict
	// Code is the API's ErrorCode, or the HTTP status if that decided; 0 if
	// neither did (found, a network error, a body that could not be read).
	Code int
	// Label is the label code of the metric enricher_api_responses_total: one of
	// ResponseLabels.
	Label string
	// Message describes the failure, without any secret, in at most 1 KiB.
	Message string
	// RequestID is the API's id of the request; "" if it sent none.
	RequestID string
	// Record is set if Verdict is Found.
	Record *schemas.CallRecord
	// NotEnded reports, for NotYet, that a record came without an end time.
	NotEnded bool
	// RetryAfter is the pause that a Throttled response asked for, at most
	// 60 s; 0 if it named none.
	RetryAfter time.Duration
	// Date is the time by the API's clock, to the second; zero if it sent none.
	Date time.Time
	// HelloUnanswered reports that there is no response because nothing came back
	// after the first message of a TLS handshake, which was larger than one packet;
	// see ClientConfig.SmallHello.
	HelloUnanswered bool
	// Untrusted reports that there is no response because the certificate of the
	// API, or of an https proxy, is not trusted.
	Untrusted bool
	// Lockout is, for AccountRejected, for how long the API rejects everything.
	Lockout time.Duration
}

// kind is a response that no row of the error table decided.
type kind uint8

const (
	found kind = iota
	notEnded
	noRecord
	wrongCallID
	badBody
	unknownCode
	network
	timeout
	cancelled
	noSignature
	http3xx
	http401
	http403
	http404
	http408
	http425
	http429
	http4xx
	http5xx
	httpOther
)

// kinds has one row for each kind, in the order of their values.
var kinds = [...]ResponseLabel{
	found:       {Found, "0", "code 0 and the record of a call that has ended"},
	notEnded:    {NotYet, "not_ended", "code 0 and a record without an end time"},
	noRecord:    {Retry, "no_record", "code 0 without a record"},
	wrongCallID: {Retry, "wrong_call_id", "code 0 and the record of another call"},
	badBody:     {Retry, "bad_body", "a body that is not JSON in UTF-8, cannot be decoded, is cut short or exceeds 1 MiB"},
	unknownCode: {Unknown, "other", "a code that is not in the table of codes"},
	network:     {Retry, "network", "no response: name resolution, connection, TLS or sending failed, or the connection was lost"},
	timeout:     {Retry, "timeout", "no complete response within the timeout of a request"},
	cancelled:   {Retry, "cancelled", "the request was cancelled, because the instance shuts down"},
	noSignature: {AccountRejected, "no_signature", "no request was sent, because no UserSig could be signed"},
	http3xx:     {AccountRejected, "http_3xx", "a redirect, which is not followed: the new request could expose the UserSig"},
	http401:     {AccountRejected, "http_401", "a proxy or gateway in front of the API denies access"},
	http403:     {AccountRejected, "http_403", "a proxy or gateway in front of the API denies access"},
	http404:     {AccountRejected, "http_404", "the API is not at this URL"},
	http408:     {Retry, "http_408", "the server timed out waiting for the request"},
	http425:     {Retry, "http_425", "the server refuses a request that might be replayed"},
	http429:     {Throttled, "http_429", "too many requests"},
	http4xx:     {Unknown, "http_4xx", "no meaning of these is documented for the API"},
	http5xx:     {Retry, "http_5xx", "the server, or a gateway in front of it, failed"},
	httpOther:   {Retry, "http_other", "not a valid status of a response"},
}

// ResponseLabel is one pair of values of the labels verdict and code of the
// metric enricher_api_responses_total, and what the responses have in common.
type ResponseLabel struct {
	Verdict Verdict
	Code    string
	Meaning string
}

// ResponseLabels returns every pair of verdict and label that a Response can
// have, so that all series of the metric exist from the start: first the
// responses that no row of the error table decided, then those that one did,
// whose label is the code.
func ResponseLabels() []ResponseLabel {
	all := append([]ResponseLabel(nil), kinds[:]...)
	for i := range codes {
		row := &codes[i]
		all = append(all, ResponseLabel{row.Verdict, row.label(), row.Meaning})
		if row.Resign {
			all = append(all, ResponseLabel{Retry, row.label(), row.Meaning})
		}
	}
	return all
}

// response returns a response of this kind.
func (k kind) response(message string) Response {
	return Response{Verdict: kinds[k].Verdict, Label: kinds[k].Code, Message: message}
}
