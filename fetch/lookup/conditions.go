package lookup

import (
	"fmt"
	"time"

	"go.uber.org/zap"
)

// Reason is why no progress is made, as far as lookups are concerned, or what an
// operator should know although it is made.
type Reason uint8

// The reasons. Lookups are paused for the first two only, and the last two are
// warnings.
const (
	AccountRejected Reason = iota // the API rejects the account, key or app
	APIDown                       // the API fails for all calls
	NothingFound                  // dead letters are withheld: too many in a row, and no record found
	Throttled                     // the API throttles every request
	ClockWrong                    // this machine's clock differs from the API's
	KeyUnreadable                 // the secret key cannot be read again; the one read before is in use
	reasons
)

var reasonNames = [reasons]string{"account_rejected", "api_down", "nothing_found", "throttled", "clock_wrong", "key_unreadable"}

// String returns the name used in logs, readiness and metric labels.
func (r Reason) String() string { return reasonNames[r] }

// IsWarning reports whether progress is made although the reason holds.
func (r Reason) IsWarning() bool { return r >= ClockWrong }

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{AccountRejected, APIDown, NothingFound, Throttled, ClockWrong, KeyUnreadable}
}

// PauseReasons returns the reasons for which lookups are paused.
func PauseReasons() []Reason { return []Reason{AccountRejected, APIDown} }

// Condition is a reason that holds, with the facts in words.
type Condition struct {
	Reason Reason
	Detail string
}

// minThrottled is for how long every response must have been a throttled one
// before it is reported: until then it is a matter of the pace.
const minThrottled = 10 * time.Second

// maxClockError is the difference from the API's clock that is reported. Windows
// are corrected for any difference, but a UserSig carries this machine's time, and
// so do its log and its records.
const maxClockError = time.Minute

// minClockWrong is for how long every response must have shown the difference: a
// single one may come from something in front of the API.
const minClockWrong = 10 * time.Second

// Conditions returns every reason that holds. Any goroutine may call it.
func (s *Scheduler) Conditions() []Condition {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Condition
	for r, detail := range s.status {
		if detail != "" {
			all = append(all, Condition{Reason(r), detail})
		}
	}
	return all
}

// publish updates the metrics and what Conditions returns, and logs a change.
func (s *Scheduler) publish(now time.Time) {
	s.Metrics.InFlight.WithLabelValues(StateWaiting).Set(float64(s.events - s.lookingUp))
	s.Metrics.InFlight.WithLabelValues(StateLookingUp).Set(float64(s.lookingUp))
	s.Metrics.KeyUnreadable.Set(0)
	if s.keyProblem != nil {
		s.Metrics.KeyUnreadable.Set(1)
	}
	s.Metrics.Withheld.Set(float64(len(s.withheld)))
	s.Metrics.Pace.Set(s.Limiter.Pace(now))

	status := s.describe(now)
	s.mu.Lock()
	before := s.status
	s.status = status
	s.mu.Unlock()
	for _, r := range Reasons() {
		switch began, held := status[r] != "", before[r] != ""; {
		case began && !held:
			s.Log.Warn(begins[r], zap.Stringer("reason", r), zap.String("detail", status[r]))
		case held && !began:
			s.Log.Info(ends[r], zap.Stringer("reason", r))
		}
	}
	for _, r := range PauseReasons() {
		if (status[r] != "") != (before[r] != "") {
			paused := 0.0
			if status[r] != "" {
				paused = 1
			}
			s.Metrics.Paused.WithLabelValues(r.String()).Set(paused)
		}
	}
}

// What the log says when a reason begins and ceases to hold.
var (
	begins = [reasons]string{"lookups paused", "lookups paused", "dead letters withheld", "every request throttled", "clock differs from the API's", "secret key cannot be read again"}
	ends   = [reasons]string{"lookups resumed", "lookups resumed", "dead letters released", "requests no longer throttled", "clock agrees with the API's again", "secret key can be read again"}
)

// describe returns the facts behind the reasons that hold.
func (s *Scheduler) describe(now time.Time) (status [reasons]string) {
	if r, detail, ok := s.breaker.Reason(); ok {
		status[r] = detail
	}
	if s.guard.Withholding() {
		status[NothingFound] = s.guard.Detail()
	}
	if since := s.throttled.since; !since.IsZero() && now.Sub(since) >= minThrottled {
		status[Throttled] = "the API throttles every request: " + s.throttled.detail
	}
	if since := s.clockWrong; !since.IsZero() && now.Sub(since) >= minClockWrong {
		direction := "ahead of"
		if s.clockAhead < 0 {
			direction = "behind"
		}
		status[ClockWrong] = fmt.Sprintf("this machine's clock is %v %s the API's", s.clockAhead.Abs().Round(time.Second), direction)
	}
	if s.keyProblem != nil {
		status[KeyUnreadable] = "the secret key that was read before is still in use: " + s.keyProblem.Error()
	}
	return status
}
