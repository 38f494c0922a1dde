package consumer

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
)

// event is a polled record with a CallId, from admission to commit. The
// conductor fills it before it hands it on; nobody writes to it afterwards.
type event struct {
	rec    *kgo.Record
	inc    uint64 // incarnation of the tracker that admitted it
	callID string
	time   time.Time // event time, never after the moment of admission
}

// result is the outcome of one event: an enriched value, the failure that makes
// it a dead letter, or nothing at all for a callback of another kind.
type result struct {
	event     *event
	value     []byte            // encoded enriched record; shared with the cache, read-only
	hit       bool              // true: no request was made for this event
	requestID string            // API's id of the request that found the record
	failure   *producer.Failure // nil: enriched or skipped
	skipped   bool
	oversize  bool // the broker refused the record made of it for its size
}
