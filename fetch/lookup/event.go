package lookup

import (
	"time"

	"enricher/schemas"
)

// Event is an event that needs the record of its call. Its owner fills it
// before Add; afterwards it is only read.
type Event struct {
	CallID string
	// Time is the event's own; the window of its retries begins here. See EventTime.
	Time time.Time
	// Recorded is when the event came into its topic. Zero: unknown.
	Recorded time.Time
	// Record returns the record that the event itself carries, if that may replace a
	// dead letter, or nil. Nil: none does. It is called on the scheduler's goroutine.
	Record func() *schemas.CallRecord
	// Assignment groups events that Drop forgets together.
	Assignment uint64
	// Source is the caller's own, returned untouched with the outcome.
	Source any
}

const (
	// earliestEvent is in s since 1970: an earlier time is a default, a counter, or
	// another unit.
	earliestEvent = schemas.EarliestTime
	// firstMilliseconds is where numbers are no longer seconds (of the year 5138)
	// but milliseconds (of 1973).
	firstMilliseconds = 100_000_000_000
)

// EventTime returns the first of the candidates that is a time; now if none is.
// Candidates are in ms since 1970; one in seconds is recognised. A time before
// 2015 counts as not given, and one in the future as now.
func EventTime(now time.Time, candidates ...int64) time.Time {
	for _, ms := range candidates {
		if ms >= earliestEvent && ms < firstMilliseconds {
			ms *= 1000
		}
		if ms < earliestEvent*1000 {
			continue
		}
		if t := time.UnixMilli(ms); t.Before(now) {
			return t
		}
		return now
	}
	return now
}

// Source says where the record of an outcome came from.
type Source uint8

const (
	Requested Source = iota // a request was made for this event
	CacheHit                // the cache had it
	Coalesced               // a request that was made for another event of the call
	OwnRecord               // the event carried it
)

var sourceNames = [...]string{"miss", "hit", "coalesced", ""}

// String returns the value of the header enricher.cache and of the label
// result of enricher_cache_results_total; "" for OwnRecord.
func (s Source) String() string { return sourceNames[s] }

// Record returns whose record it is.
func (s Source) Record() schemas.RecordSource {
	if s == OwnRecord {
		return schemas.FromEvent
	}
	return schemas.FromAPI
}

// Outcome is what became of an event: an enriched value, or the failure that
// makes it a dead letter.
type Outcome struct {
	Event *Event
	Entry
	Source    Source
	Failure   *schemas.Failure // nil: enriched
	Completed time.Time
}
