package producer

import (
	"time"

	"enricher/schemas"
)

// CloudEvents describes the headers that make an enriched record a CloudEvent in the
// binary mode of the Kafka binding: attributes are UTF-8 headers, and the value stays
// as it is. Events of one call have the same attributes, so the call counts once for
// readers that take source and id for the identity of an event.
type CloudEvents struct {
	Subject CloudEventSubject
	Format  schemas.Format // of the value
}

// CloudEventSubject says what the attribute subject is.
type CloudEventSubject string

// The subjects. Meters take it for the customer.
const (
	SubjectCaller   CloudEventSubject = "caller"
	SubjectSDKAppID CloudEventSubject = "sdk-app-id"
	SubjectNone     CloudEventSubject = "none"
)

// add adds the attributes to the headers of an enriched record.
func (c *CloudEvents) add(h *headers, sdkAppID string, e *Enrichment) {
	h.add(schemas.HeaderCESpecVersion, "1.0")
	h.add(schemas.HeaderCEID, e.CallID)
	h.add(schemas.HeaderCESource, "enricher:sdk-app-id:"+sdkAppID)
	h.add(schemas.HeaderCEType, schemas.CloudEventType)
	h.add(schemas.HeaderCEDataSchema, schemas.EnrichedID)
	h.add(schemas.HeaderContentType, c.Format.ContentType())
	if e.End != 0 {
		h.add(schemas.HeaderCETime, time.Unix(e.End, 0).UTC().Format(time.RFC3339))
	}
	switch {
	case c.Subject == SubjectCaller && e.Caller != "": // an attribute must not be empty
		h.add(schemas.HeaderCESubject, e.Caller)
	case c.Subject == SubjectSDKAppID:
		h.add(schemas.HeaderCESubject, sdkAppID)
	}
}
