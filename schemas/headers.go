package schemas

// Headers of enriched records that are CloudEvents, in the binary mode of the Kafka
// binding: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
const (
	HeaderCESpecVersion = "ce_specversion"
	HeaderCEID          = "ce_id"
	HeaderCESource      = "ce_source"
	HeaderCEType        = "ce_type"
	HeaderCETime        = "ce_time" // RFC 3339
	HeaderCESubject     = "ce_subject"
	HeaderCEDataSchema  = "ce_dataschema"
	HeaderContentType   = "content-type"
)

// CloudEventType is the value of HeaderCEType.
const CloudEventType = "enricher.call.ended"

// EnrichedID is the URI of the schema of enriched records: $id in
// enriched.schema.json, and the value of HeaderCEDataSchema in each format. It stays
// the same while versions are compatible.
const EnrichedID = "enricher:enriched:1"
