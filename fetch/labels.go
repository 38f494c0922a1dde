package fetch

// Labels of answers that no row of the error table decided. The label of one
// that a row did decide is its number.
const (
	labelFound       = "0"
	labelNotEnded    = "not_ended"     // a record without an end time
	labelNoRecord    = "no_record"     // code 0, but no record
	labelWrongCallID = "wrong_call_id" // a record of another call
	labelBadBody     = "bad_body"      // no JSON object, cut short, too large
	labelOther       = "other"         // a code that is not in the table
	labelNetwork     = "network"       // no answer, or it broke off
	labelTimeout     = "timeout"
	labelCancelled   = "cancelled" // the caller gave up
	labelNoSignature = "no_signature"
	labelHTTP3xx     = "http_3xx"
	labelHTTP401     = "http_401"
	labelHTTP403     = "http_403"
	labelHTTP404     = "http_404"
	labelHTTP429     = "http_429"
	labelHTTP4xx     = "http_4xx"
	labelHTTP5xx     = "http_5xx"
	labelHTTPOther   = "http_other"
)

// ResponseLabel is one pair of label values of the metric enricher_lookups_total.
type ResponseLabel struct {
	Verdict Verdict
	Code    string
}

// ResponseLabels lists every pair of verdict and label that an Response can have, so
// that all series of the metric exist from the start.
func ResponseLabels() []ResponseLabel {
	labels := []ResponseLabel{
		{Found, labelFound},
		{NotYet, labelNotEnded},
		{Retry, labelNoRecord},
		{Retry, labelWrongCallID},
		{Retry, labelBadBody},
		{Retry, labelNetwork},
		{Retry, labelTimeout},
		{Retry, labelCancelled},
		{AccountRejected, labelNoSignature},
		{Unknown, labelOther},
		{AccountRejected, labelHTTP3xx},
		{AccountRejected, labelHTTP401},
		{AccountRejected, labelHTTP403},
		{AccountRejected, labelHTTP404},
		{Throttled, labelHTTP429},
		{Retry, labelHTTP4xx},
		{Unknown, labelHTTP4xx},
		{Retry, labelHTTP5xx},
		{Retry, labelHTTPOther},
	}
	for i := range codes {
		labels = append(labels, ResponseLabel{codes[i].Verdict, codes[i].label()})
		if codes[i].Resign {
			labels = append(labels, ResponseLabel{Retry, codes[i].label()})
		}
	}
	return labels
}
