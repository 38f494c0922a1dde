package schemas

// Reason says why an event became a dead letter. The set is closed.
type Reason string

const (
	Malformed    Reason = "malformed"     // the event cannot be read or names no CallId
	NotFound     Reason = "not_found"     // the API still has no record at the end of the window
	NotEnded     Reason = "not_ended"     // the record still has no end time at the end of the window
	Expired      Reason = "expired"       // not found, and older than the API keeps records
	LookupFailed Reason = "lookup_failed" // this one lookup keeps failing while others succeed
	Rejected     Reason = "rejected"      // the API calls the request malformed
	UnknownCode  Reason = "unknown_code"  // the API answers a code that is not in the table
	Internal     Reason = "internal"      // a defect of this program, logged with its stack
)

// Reasons lists all reasons.
func Reasons() []Reason {
	return []Reason{Malformed, NotFound, NotEnded, Expired, LookupFailed, Rejected, UnknownCode, Internal}
}

// Headers of enriched records and dead letters.
const (
	HeaderSourceTopic       = "enricher.source_topic"
	HeaderSourcePartition   = "enricher.source_partition"
	HeaderSourceOffset      = "enricher.source_offset"
	HeaderCache             = "enricher.cache" // "hit" or "miss"
	HeaderRequestID         = "enricher.request_id"
	HeaderSDKAppID          = "enricher.sdk_app_id"
	HeaderOriginalTimestamp = "enricher.original_timestamp" // ms since 1970 of the event

	HeaderReason       = "enricher.reason"
	HeaderCode         = "enricher.code"
	HeaderMessage      = "enricher.message"
	HeaderAttempts     = "enricher.attempts"
	HeaderFirstAttempt = "enricher.first_attempt" // ms since 1970
	HeaderLastAttempt  = "enricher.last_attempt"  // ms since 1970
	HeaderReplays      = "enricher.replays"
	HeaderOmittedBytes = "enricher.omitted_bytes" // size of an event too large to copy; absent otherwise

	// The names that dead-letter tools of Kafka Connect read already.
	HeaderConnectTopic     = "__connect.errors.topic"
	HeaderConnectPartition = "__connect.errors.partition"
	HeaderConnectOffset    = "__connect.errors.offset"
	HeaderConnectMessage   = "__connect.errors.exception.message"
)
