package fetch

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	maxMessage   = 1024 // bytes of Response.Message
	maxRequestID = 128  // bytes of Response.RequestID

	// maxRetryAfter caps the pause that a response can ask for: a typing error at
	// the other end must not stop the pipeline for a day.
	maxRetryAfter = time.Minute
)

// judgeStatus returns the response for an HTTP status outside 200–299. The
// status wins over the body: something in front of the API wrote it, because
// the API itself returns 200 for everything.
func judgeStatus(status int) Response {
	k := statusKind(status)
	message := fmt.Sprintf("HTTP %d", status)
	if text := http.StatusText(status); text != "" { // not the server's own phrase, which could hold anything
		message += " " + text
	}
	if k == http3xx {
		message += ": the API redirects, which is not followed; check the region or base URL"
	}
	r := k.response(message)
	r.Code = status
	return r
}

// statusKind returns what an HTTP status outside 200–299 means.
//
// 4xx statuses that concern neither access nor time are Unknown, not Rejected:
// no document says that the API uses them. One call that draws such a status
// ends as unknown_code after the retry window; if all calls do, lookups are paused
// and none becomes a dead letter.
func statusKind(status int) kind {
	switch status {
	case http.StatusUnauthorized:
		return http401
	case http.StatusForbidden:
		return http403
	case http.StatusNotFound:
		return http404
	case http.StatusRequestTimeout:
		return http408
	case http.StatusTooEarly:
		return http425
	case http.StatusTooManyRequests:
		return http429
	}
	switch status / 100 {
	case 3:
		return http3xx
	case 4:
		return http4xx
	case 5:
		return http5xx
	}
	return httpOther
}

// judgeBody returns the response for a body that came with a 2xx status.
func judgeBody(header http.Header, body []byte, callID string) Response {
	if err := checkEncoding(header, body); err != nil {
		return badBody.response(err.Error())
	}
	e, err := decodeEnvelope(body)
	if err != nil {
		return badBody.response(err.Error())
	}
	r := judgeEnvelope(&e, callID)
	r.Code, r.RequestID = e.code, e.requestID
	return r
}

func judgeEnvelope(e *envelope, callID string) Response {
	switch {
	case e.code != 0:
		return judgeCode(e.code, e.info)
	case e.record == nil:
		return noRecord.response("the API returned code 0 but no record")
	case e.record.CallID != callID:
		return wrongCallID.response("the API returned the record of another CallId")
	case e.record.End <= 0:
		r := notEnded.response("the call's record has no end time yet")
		r.NotEnded = true
		return r
	}
	r := found.response("")
	r.Record = e.record
	return r
}

// judgeCode returns what the error table says about a code. Client.applyToSigner
// has the last word on the codes that depend on what happened before (Resign).
func judgeCode(code int, info string) Response {
	r := unknownCode.response(fmt.Sprintf("%d is not in the error table", code))
	if row, known := codeByNumber[code]; known {
		r = Response{
			Verdict: row.Verdict,
			Label:   row.label(),
			Message: fmt.Sprintf("%d %s: %s", row.Code, row.Name, row.Meaning),
			Lockout: row.Lockout,
		}
	}
	if info != "" {
		r.Message += "; the API says: " + info
	}
	return r
}

// retryAfter returns the value of the header Retry-After: whole seconds or an
// HTTP date (RFC 9110, 10.2.3). 0 if it is absent, past or unreadable; at most
// maxRetryAfter.
func retryAfter(header http.Header, now time.Time) time.Duration {
	v := header.Get("Retry-After")
	if v == "" {
		return 0
	}
	if s, err := strconv.ParseUint(v, 10, 64); err == nil {
		return time.Duration(min(s, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
