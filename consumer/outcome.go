package consumer

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/fetch/lookup"
	"enricher/schemas"
)

// outcome is what becomes of one event: an enriched value, the failure that
// makes it a dead letter, or nothing at all for a callback of another type.
type outcome struct {
	rec       *kgo.Record // the event
	callID    string
	value     []byte // encoded enriched record; shared with the cache, read-only
	source    lookup.Source
	requestID string           // the API's id of the request that found the record
	failure   *schemas.Failure // nil: enriched or skipped
	skipped   bool
	tooLarge  bool // the broker refused the record that was made of it for its size
}
