package schemas

import (
	"time"
)

// Failure says why an event becomes a dead letter. It fills the headers of the
// dead-letter record.
type Failure struct {
	Reason    Reason
	Code      int       // the API's code or the HTTP status of the last response; 0: none
	Message   string    // the last error in words, without any secret
	RequestID string    // the API's id of the last request; "" when it sent none
	Attempts  int       // responses that count as an attempt, see fetch.Verdict.CountsAsAttempt
	First     time.Time // start of the first and of the last attempt;
	Last      time.Time // zero when there was none
}
