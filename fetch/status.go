package fetch

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// maxRetryAfter caps the pause an answer can ask for: a typing error at the
// other end must not stop the pipeline for a day.
const maxRetryAfter = time.Minute

// statusVerdict says what an HTTP status outside 200–299 means, and under which
// label it is counted. It wins over the body: something in front of the API
// wrote it, for the API itself says 200 to everything.
//
// 4xx statuses that are neither about access nor about time are Unknown, not
// Rejected: no document says that the API uses them, so one event that draws such
// a status ends as unknown_code after a few tries, and all of them together open
// the circuit instead of ending in dead letters.
func statusVerdict(status int) (Verdict, string) {
	switch {
	case status >= 300 && status < 400:
		return AccountRejected, labelHTTP3xx // refused, not followed: the Referer would carry the UserSig
	case status == http.StatusUnauthorized:
		return AccountRejected, labelHTTP401
	case status == http.StatusForbidden:
		return AccountRejected, labelHTTP403
	case status == http.StatusNotFound:
		return AccountRejected, labelHTTP404
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return Retry, labelHTTP4xx
	case status == http.StatusTooManyRequests:
		return Throttled, labelHTTP429
	case status >= 400 && status < 500:
		return Unknown, labelHTTP4xx
	case status >= 500 && status < 600:
		return Retry, labelHTTP5xx
	default:
		return Retry, labelHTTPOther // 1xx as a final status, or a number that is no status
	}
}

// statusText is a status for people: "HTTP 502 Bad Gateway". The server's own
// phrase is not used, it could hold anything.
func statusText(status int) string {
	if t := http.StatusText(status); t != "" {
		return fmt.Sprintf("HTTP %d %s", status, t)
	}
	return fmt.Sprintf("HTTP %d", status)
}

// retryAfter reads the header Retry-After: whole seconds or an HTTP date
// (RFC 9110, 10.2.3). 0 when it is absent, past or unreadable; at most
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
