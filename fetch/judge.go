package fetch

import (
	"fmt"
	"net/http"
	"time"
)

const (
	maxMessage   = 1024 // bytes of Response.Message
	maxRequestID = 128  // bytes of Response.RequestID
)

// judgeStatus answers for a response that its HTTP status alone decides.
func judgeStatus(resp *http.Response, now time.Time) Response {
	verdict, label := statusVerdict(resp.StatusCode)
	a := Response{Verdict: verdict, Code: resp.StatusCode, Label: label, Message: statusText(resp.StatusCode)}
	switch verdict {
	case Throttled:
		a.RetryAfter = retryAfter(resp.Header, now)
	case AccountRejected:
		a.ProbeEvery = accountProbeInterval
		if label == labelHTTP3xx {
			a.Message += ": the API redirects, which is not followed; check the region or base URL"
		}
	}
	return a
}

// judgeBody answers for a body that came with a 2xx status. It is pure: what it
// says depends on its arguments alone.
func judgeBody(body []byte, callID string, header http.Header, now time.Time) Response {
	e, err := decodeEnvelope(body)
	if err != nil {
		return Response{Verdict: Retry, Label: labelBadBody, Message: err.Error()}
	}
	a := Response{Code: e.code, RequestID: e.requestID}
	if a.Code != 0 {
		judgeCode(&a, e.info)
		if a.Verdict == Throttled {
			a.RetryAfter = retryAfter(header, now)
		}
		return a
	}
	record := e.record
	switch {
	case record == nil:
		a.Verdict, a.Label = Retry, labelNoRecord
		a.Message = "the API says ok but sends no record"
	case record.CallID != callID:
		a.Verdict, a.Label = Retry, labelWrongCallID
		a.Message = "the API sent the record of another CallId"
	case record.End <= 0:
		a.Verdict, a.Label, a.NotEnded = NotYet, labelNotEnded, true
		a.Message = "the call's record has no end time yet"
	default:
		a.Verdict, a.Label, a.Record = Found, labelFound, record
	}
	return a
}

// judgeCode fills in what the error table says of a.Code. 70001, the one code
// whose verdict depends on what happened before, is settled in Client.finish.
func judgeCode(a *Response, info string) {
	row, known := codeByNumber[a.Code]
	if !known {
		a.Verdict, a.Label = Unknown, labelOther
		a.Message = fmt.Sprintf("%d is not in the error table", a.Code)
	} else {
		a.Verdict, a.Label = row.Verdict, row.label()
		a.Message = fmt.Sprintf("%d %s: %s", row.Code, row.Name, row.Meaning)
		a.EscalateAfter = row.EscalateAfter
		if row.Verdict == AccountRejected || row.EscalateAfter > 0 {
			a.ProbeEvery = row.probeEvery()
		}
	}
	if info != "" {
		a.Message += "; the API says: " + info
	}
}
