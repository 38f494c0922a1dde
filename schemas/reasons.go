package schemas

// Reason is why an event became a dead letter. Readers must accept others.
type Reason string

const (
	Malformed    Reason = "malformed"     // the event cannot be parsed or has no CallId
	NotFound     Reason = "not_found"     // the API had no record until the not-found window ended
	NotEnded     Reason = "not_ended"     // the record had no end time until the not-found window ended
	Expired      Reason = "expired"       // not found, and older than the records that the API keeps
	LookupFailed Reason = "lookup_failed" // this lookup kept failing while others succeeded
	Rejected     Reason = "rejected"      // the API calls the request malformed
	UnknownCode  Reason = "unknown_code"  // the API returned a code that is not in the error table
	Internal     Reason = "internal"      // a bug in enricher; the stack trace is in the log
	Skipped      Reason = "skipped"       // an operator skipped it; the message has the note
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{Malformed, NotFound, NotEnded, Expired, LookupFailed, Rejected, UnknownCode, Internal, Skipped}
}

// Headers of enriched records and dead letters. Numbers are decimal digits.
const (
	HeaderSourceTopic       = "enricher.source_topic"
	HeaderSourcePartition   = "enricher.source_partition"
	HeaderSourceOffset      = "enricher.source_offset"
	HeaderCache             = "enricher.cache"         // hit, coalesced (served by another event's request) or miss; absent if the event's own record was used
	HeaderRecordSource      = "enricher.record_source" // a RecordSource
	HeaderValueSchemaID     = "__value_schema_id"      // the GUID of the value's schema, by which deserializers of schema registries find it; binary
	HeaderRequestID         = "enricher.request_id"
	HeaderSDKAppID          = "enricher.sdk_app_id"
	HeaderOriginalTimestamp = "enricher.original_timestamp" // when the event was first produced, ms since 1970

	HeaderReason       = "enricher.reason"
	HeaderCode         = "enricher.code"
	HeaderMessage      = "enricher.message"
	HeaderAttempts     = "enricher.attempts"
	HeaderFirstAttempt = "enricher.first_attempt" // ms since 1970
	HeaderLastAttempt  = "enricher.last_attempt"  // ms since 1970
	HeaderReplays      = "enricher.replays"
	HeaderOmittedBytes = "enricher.omitted_bytes" // size of an event that was too large to copy; absent otherwise
	// HeaderUnreadableOffsets is the number of offsets, from that of the dead letter
	// on, whose events could not be read; absent otherwise.
	HeaderUnreadableOffsets = "enricher.unreadable_offsets"

	// The names of Kafka Connect, which existing tools for dead letters read.
	HeaderConnectTopic     = "__connect.errors.topic"
	HeaderConnectPartition = "__connect.errors.partition"
	HeaderConnectOffset    = "__connect.errors.offset"
	HeaderConnectMessage   = "__connect.errors.exception.message"

	// The names that brokers write to the dead letters of share groups since Kafka
	// 4.4 (KIP-1191): UTF-8 text and decimal digits, like the others. Dead letters of
	// earlier versions of enricher lack them, so nothing here reads them.
	HeaderDLQTopic     = "__dlq.errors.topic"
	HeaderDLQPartition = "__dlq.errors.partition"
	HeaderDLQOffset    = "__dlq.errors.offset"
	HeaderDLQGroup     = "__dlq.errors.group"
	// HeaderDLQDeliveryCount is how often the event was delivered: once, and once for
	// each replay.
	HeaderDLQDeliveryCount = "__dlq.errors.delivery.count"
	HeaderDLQMessage       = "__dlq.errors.message"
)
