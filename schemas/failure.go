package schemas

import "time"

// Failure is why an event becomes a dead letter. It is written to the headers of
// the dead letter.
type Failure struct {
	Reason    Reason
	Code      int       // the API's code, or the HTTP status, of the last response; 0: none
	Message   string    // the last error in words, without any secret
	RequestID string    // the API's id of the last request; "" when it sent none
	Attempts  int       // responses that count as one, see fetch.Verdict.CountsAsAttempt
	First     time.Time // start of the first attempt; zero if there was none
	Last      time.Time // start of the last attempt; zero if there was none
}
