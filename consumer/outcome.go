package consumer

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/fetch/lookup"
	"enricher/schemas"
)

// outcome is what becomes of one event: an enriched value, the failure that
// makes it a dead letter, or nothing at all for a callback of another type.
type outcome struct {
	rec    *kgo.Record // the event
	at     time.Time   // the event's own time, see lookup.EventTime
	callID string
	lookup.Entry
	source  lookup.Source
	failure *schemas.Failure // nil: enriched or skipped
	skipped bool
	// withoutPayload: the record that was made of it was refused for its size or its
	// content; the next try is smaller.
	withoutPayload bool
	suspect        bool   // it was in a batch that was refused
	refused        *block // it was refused alone, in every form that might be accepted
}
