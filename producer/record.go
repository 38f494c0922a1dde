package producer

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/schemas"
)

// Outputs makes the records of outcomes.
type Outputs struct {
	EnrichedTopic   string
	DeadLetterTopic string
	SDKAppID        string
	// MaxRecordBytes is the size above which a record is not tried; 0 means
	// the default of Config.MaxRecordBytes.
	MaxRecordBytes int
}

// Enriched is the record for an event whose call was found. value is the
// encoded enriched record and is not copied.
func (o *Outputs) Enriched(event *kgo.Record, callID string, value []byte, hit bool, requestID string) *kgo.Record {
	cache := "miss"
	if hit {
		cache = "hit"
	}
	h := make([]kgo.RecordHeader, 0, 7)
	h = append(h,
		header(schemas.HeaderSourceTopic, event.Topic),
		number(schemas.HeaderSourcePartition, int64(event.Partition)),
		number(schemas.HeaderSourceOffset, event.Offset),
		header(schemas.HeaderCache, cache),
		header(schemas.HeaderSDKAppID, o.SDKAppID),
		number(schemas.HeaderOriginalTimestamp, OriginalTimestamp(event)),
	)
	if requestID != "" {
		h = append(h, header(schemas.HeaderRequestID, requestID))
	}
	return &kgo.Record{Topic: o.EnrichedTopic, Key: []byte(callID), Value: value, Headers: h}
}

// Fits says whether a record can be produced on its own.
func (o *Outputs) Fits(r *kgo.Record) bool {
	limit := o.MaxRecordBytes
	if limit == 0 {
		limit = DefaultMaxRecordBytes
	}
	return recordSize(r) <= limit
}

// recordSize is an upper bound of a record's size in a batch of its own.
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

// OriginalTimestamp is when the event first came, in ms since 1970: what a
// replay handed on, else the record's own time.
func OriginalTimestamp(event *kgo.Record) int64 {
	if ms, ok := lastNumber(event.Headers, schemas.HeaderOriginalTimestamp); ok {
		return ms
	}
	return event.Timestamp.UnixMilli()
}

// lastNumber reads the last header of that name, if it is a number from 0 on.
func lastNumber(hs []kgo.RecordHeader, key string) (int64, bool) {
	for i := len(hs) - 1; i >= 0; i-- {
		if hs[i].Key == key {
			n, err := strconv.ParseInt(string(hs[i].Value), 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}
