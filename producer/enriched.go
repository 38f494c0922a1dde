package producer

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/schemas"
)

// RecordBuilder makes the output records.
type RecordBuilder struct {
	EnrichedTopic   string
	DeadLetterTopic string
	SDKAppID        string
	// MaxRecordBytes is the size of the largest record that is tried; 0 means
	// DefaultMaxRecordBytes.
	MaxRecordBytes int
}

// Enriched returns the record for an event whose call was found. value is the
// encoded enriched record and is not copied; cache is the value of
// schemas.HeaderCache.
func (b *RecordBuilder) Enriched(event *kgo.Record, callID string, value []byte, cache, requestID string) *kgo.Record {
	h := make([]kgo.RecordHeader, 0, 7)
	h = append(h,
		header(schemas.HeaderSourceTopic, event.Topic),
		number(schemas.HeaderSourcePartition, int64(event.Partition)),
		number(schemas.HeaderSourceOffset, event.Offset),
		header(schemas.HeaderCache, cache),
		header(schemas.HeaderSDKAppID, b.SDKAppID),
		number(schemas.HeaderOriginalTimestamp, OriginalTimestamp(event)),
	)
	if requestID != "" {
		h = append(h, header(schemas.HeaderRequestID, requestID))
	}
	return &kgo.Record{Topic: b.EnrichedTopic, Key: []byte(callID), Value: value, Headers: h}
}

// Fits reports whether a record can be produced in a batch of its own.
func (b *RecordBuilder) Fits(r *kgo.Record) bool {
	limit := b.MaxRecordBytes
	if limit == 0 {
		limit = DefaultMaxRecordBytes
	}
	return recordSize(r) <= limit
}

// recordSize returns an upper bound of a record's size in a batch of its own.
func recordSize(r *kgo.Record) int {
	const batchOverhead, recordOverhead, headerOverhead = 61, 40, 10
	n := batchOverhead + recordOverhead + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += headerOverhead + len(h.Key) + len(h.Value)
	}
	return n
}

func header(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

func number(key string, v int64) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: strconv.AppendInt(nil, v, 10)}
}

// OriginalTimestamp returns when the event was first produced, in ms since 1970:
// what a replay handed on, else the record's own time.
func OriginalTimestamp(event *kgo.Record) int64 {
	if ms, ok := lastNumber(event.Headers, schemas.HeaderOriginalTimestamp); ok {
		return ms
	}
	return event.Timestamp.UnixMilli()
}

// lastNumber returns the last header of that name, if it is a number from 0 on.
func lastNumber(hs []kgo.RecordHeader, key string) (int64, bool) {
	for i := len(hs) - 1; i >= 0; i-- {
		if hs[i].Key == key {
			n, err := strconv.ParseInt(string(hs[i].Value), 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}
