package producer

import (
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/schemas"
)

// RecordBuilder builds the records of outcomes.
type RecordBuilder struct {
	EnrichedTopic   string
	DeadLetterTopic string
	Group           string // of the header __dlq.errors.group
	SDKAppID        string // of the header enricher.sdk_app_id
	// CloudEvents makes enriched records CloudEvents; nil: they are none.
	CloudEvents *CloudEvents
	// CallEndTimestamps gives enriched records the time of the call's end, if it is
	// known, instead of that of production.
	CallEndTimestamps bool
	// MaxRecordBytes is the maximum size of a record; 0 means
	// DefaultMaxRecordBytes.
	MaxRecordBytes int
}

// Enrichment is what an event is enriched with.
type Enrichment struct {
	CallID string
	schemas.Encoded
	RecordSource schemas.RecordSource
	Cache        string // value of schemas.HeaderCache; "": no lookup had this result
	RequestID    string // of the API; "": none
}

// Enriched returns the enriched record for an event. It does not copy the value.
func (b *RecordBuilder) Enriched(event *kgo.Record, e Enrichment) *kgo.Record {
	n, size := 9, 256
	if b.CloudEvents != nil {
		n, size = 17, 512
	}
	h := headers{all: make([]kgo.RecordHeader, 0, n), text: make([]byte, 0, size)}
	h.add(schemas.HeaderSourceTopic, event.Topic)
	h.addNumber(schemas.HeaderSourcePartition, int64(event.Partition))
	h.addNumber(schemas.HeaderSourceOffset, event.Offset)
	h.add(schemas.HeaderRecordSource, string(e.RecordSource))
	h.add(schemas.HeaderSDKAppID, b.SDKAppID)
	h.addNumber(schemas.HeaderOriginalTimestamp, OriginalTimestamp(event))
	if e.Cache != "" {
		h.add(schemas.HeaderCache, e.Cache)
	}
	if e.RequestID != "" {
		h.add(schemas.HeaderRequestID, e.RequestID)
	}
	if e.SchemaID != nil {
		h.all = append(h.all, kgo.RecordHeader{Key: schemas.HeaderValueSchemaID, Value: e.SchemaID})
	}
	if b.CloudEvents != nil {
		b.CloudEvents.add(&h, b.SDKAppID, &e)
	}
	r := &kgo.Record{Topic: b.EnrichedTopic, Key: []byte(e.CallID), Value: e.Value, Headers: h.all}
	if b.CallEndTimestamps && e.End != 0 {
		r.Timestamp = time.Unix(e.End, 0)
	}
	return r
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
	// The header of a batch has 61 bytes. A record has an attribute byte and six
	// varints of together at most 35 bytes, a header two of at most 5 bytes each.
	const batchOverhead, recordOverhead, headerOverhead = 61, 40, 10
	n := batchOverhead + recordOverhead + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += headerOverhead + len(h.Key) + len(h.Value)
	}
	return n
}

// headers are built with their values in one piece of memory.
type headers struct {
	all  []kgo.RecordHeader
	text []byte
}

func (h *headers) add(key, value string) { h.end(key, len(h.text), append(h.text, value...)) }

func (h *headers) addNumber(key string, v int64) {
	h.end(key, len(h.text), strconv.AppendInt(h.text, v, 10))
}

// end adds a header whose value is the end of text.
func (h *headers) end(key string, from int, text []byte) {
	h.all = append(h.all, kgo.RecordHeader{Key: key, Value: text[from:len(text):len(text)]})
	h.text = text
}

func header(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

func number(key string, v int64) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: strconv.AppendInt(nil, v, 10)}
}
