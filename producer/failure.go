package producer

import (
	"time"

	"enricher/schemas"
)

// Failure says why an event becomes a dead letter; it fills the letter's headers.
type Failure struct {
	Reason    schemas.Reason
	Code      int    // the API's code or the HTTP status of the last answer; 0: none
	Message   string // the last error in words, without any secret
	RequestID string // the API's id of the last request; "" when it sent none
	Attempts  int    // requests that were started and answered, see DESIGN "Attempt"
	First     time.Time
	Last      time.Time // zero when nothing was ever asked
}
