package lookup

import (
	"time"

	"enricher/schemas"
)

// Event is an event that needs the record of its call. Its owner fills it
// before Add; nobody writes to it afterwards.
type Event struct {
	CallID string
	Time   time.Time // the event's own; the windows of its retries begin here
	// Assignment groups events that Drop forgets together.
	Assignment uint64
	// Source is the caller's own, returned untouched with the outcome.
	Source any
}

// Source says where the record of an outcome came from.
type Source uint8

const (
	Requested Source = iota // a request was made for this event
	CacheHit                // the cache had it
	Coalesced               // a request that was made for another event of the call
)

var sourceNames = [...]string{"miss", "hit", "coalesced"}

// String returns the value of the header enricher.cache and of the label
// result of enricher_cache_results_total.
func (s Source) String() string { return sourceNames[s] }

// Outcome is what became of an event: an enriched value, or the failure that
// makes it a dead letter.
type Outcome struct {
	Event     *Event
	Value     []byte // the encoded enriched record; shared with the cache, read-only
	Source    Source
	RequestID string           // the API's id of the request that found the record
	Failure   *schemas.Failure // nil: enriched
	Completed time.Time
}
