package lookup

import (
	"time"

	"go.uber.org/zap"

	"enricher/fetch"
	"enricher/schemas"
)

const (
	// verifyDelay is how long after its event a record is verified: the API has
	// nearly every record within seconds.
	verifyDelay = time.Minute
	// maxVerifications bounds those that wait. They have no precedence over anything,
	// so while the whole rate is in use none is made.
	maxVerifications = 1000
)

// verification is a record that an event carried, to be compared with the API's.
type verification struct {
	record *schemas.CallRecord
	due    time.Time
}

// The results of a verification, as the metric
// enricher_event_record_verifications_total labels them.
const (
	verifiedEqual     = "equal"
	verifiedDifferent = "different"
	verifiedNotFound  = "not_found" // the API had no record by then
	verifiedFailed    = "failed"    // the request failed
	verifiedDropped   = "dropped"   // too many were waiting
)

func verificationResults() []string {
	return []string{verifiedEqual, verifiedDifferent, verifiedNotFound, verifiedFailed, verifiedDropped}
}

// Verify compares a record that an event carried with the API's, one request later.
// Nothing waits for the result, which goes to metrics and log.
func (s *Scheduler) Verify(r *schemas.CallRecord) { s.inbox.Put(message{verify: r}) }

func (s *Scheduler) enqueueVerification(r *schemas.CallRecord, now time.Time) {
	if len(s.verifications) >= maxVerifications {
		s.Metrics.Verifications.WithLabelValues(verifiedDropped).Inc()
		return
	}
	s.verifications = append(s.verifications, verification{r, now.Add(verifyDelay)})
}

// nextVerification returns how long it is until a verification is due.
func (s *Scheduler) nextVerification(now time.Time) time.Duration {
	if len(s.verifications) == 0 {
		return idleWait
	}
	return max(0, s.verifications[0].due.Sub(now))
}

// onVerified compares a record with the API's. The API's goes into the cache, where
// further events of the call find it.
func (s *Scheduler) onVerified(r *response, now time.Time) {
	if r.withheld || r.panic != "" {
		s.Metrics.Verifications.WithLabelValues(verifiedFailed).Inc()
		return
	}
	s.breaker.Observe(now, r.started, &r.Response, true)
	result := verifiedFailed
	switch r.Verdict {
	case fetch.Found:
		s.release(now)
		s.Cache.Put(now, r.callID, Entry{r.encoded, r.RequestID})
		result = verifiedEqual
		if fields := schemas.Differences(r.verify, r.Record); len(fields) > 0 {
			result = verifiedDifferent
			for _, f := range fields {
				s.Metrics.RecordDifferences.WithLabelValues(f).Inc()
			}
			s.differenceWarning.Do(func() {
				s.Log.Warn("an event's record differs from the API's", zap.String("call_id", r.callID), zap.Strings("fields", fields))
			})
		}
	case fetch.NotYet:
		result = verifiedNotFound
	}
	s.Metrics.Verifications.WithLabelValues(result).Inc()
}
