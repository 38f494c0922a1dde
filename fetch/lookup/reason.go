package lookup

// Reason is why no progress is made, as far as lookups are concerned.
type Reason uint8

// The reasons. Lookups are paused for the first two only.
const (
	AccountRejected Reason = iota // the API rejects the account, key or app
	APIDown                       // the API fails for all calls
	NothingFound                  // dead letters are withheld: too many in a row, and no record found
	Throttled                     // the API throttles every request
	reasons
)

var reasonNames = [reasons]string{"account_rejected", "api_down", "nothing_found", "throttled"}

// String returns the name used in logs, readiness and metric labels.
func (r Reason) String() string { return reasonNames[r] }

// Reasons returns all reasons.
func Reasons() []Reason { return []Reason{AccountRejected, APIDown, NothingFound, Throttled} }

// PauseReasons returns the reasons for which lookups are paused.
func PauseReasons() []Reason { return []Reason{AccountRejected, APIDown} }

// Condition is a reason that holds, with the facts in words.
type Condition struct {
	Reason Reason
	Detail string
}
