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

// CodeLabel is one pair of label values of the metric enricher_lookups_total.
type CodeLabel struct {
	Verdict Verdict
	Code    string
}

// CodeLabels lists every pair of verdict and label that an Answer can have, so
// that all series of the metric exist from the start.
func CodeLabels() []CodeLabel {
	labels := []CodeLabel{
		{Found, labelFound},
		{NotYet, labelNotEnded},
		{Retry, labelNoRecord},
		{Retry, labelWrongCallID},
		{Retry, labelBadBody},
		{Retry, labelNetwork},
		{Retry, labelTimeout},
		{Retry, labelCancelled},
		{Halt, labelNoSignature},
		{Unknown, labelOther},
		{Halt, labelHTTP3xx},
		{Halt, labelHTTP401},
		{Halt, labelHTTP403},
		{Halt, labelHTTP404},
		{SlowDown, labelHTTP429},
		{Retry, labelHTTP4xx},
		{Unknown, labelHTTP4xx},
		{Retry, labelHTTP5xx},
		{Retry, labelHTTPOther},
	}
	for i := range codes {
		labels = append(labels, CodeLabel{codes[i].Verdict, codes[i].label()})
		if codes[i].Resign {
			labels = append(labels, CodeLabel{Retry, codes[i].label()})
		}
	}
	return labels
}
