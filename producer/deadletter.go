package producer

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/schemas"
)

// maxMessage is the maximum length of a dead letter's message in bytes. That of a
// fetch.Response is no longer.
const maxMessage = 1024

// DeadLetter returns the dead letter for an event: its key, value and headers
// unchanged, followed by enricher's own headers, as one block that begins with the
// reason. If that does not fit, it returns DeadLetterWithoutPayload.
func (b *RecordBuilder) DeadLetter(event *kgo.Record, f *schemas.Failure) *kgo.Record {
	r := &kgo.Record{Topic: b.DeadLetterTopic, Key: event.Key, Value: event.Value}
	ours := b.deadLetterHeaders(event, f)
	r.Headers = append(append(make([]kgo.RecordHeader, 0, len(event.Headers)+len(ours)), event.Headers...), ours...)
	if b.Fits(r) {
		return r
	}
	return b.DeadLetterWithoutPayload(event, f)
}

// DeadLetterWithoutPayload returns a dead letter with only the position and the
// size of its event. Its key is the position, because a compacted topic refuses
// records without a key, and its value is empty instead of null, which would be a
// tombstone there.
func (b *RecordBuilder) DeadLetterWithoutPayload(event *kgo.Record, f *schemas.Failure) *kgo.Record {
	r := &kgo.Record{
		Topic: b.DeadLetterTopic, Key: fmt.Appendf(nil, "%s[%d]@%d", event.Topic, event.Partition, event.Offset), Value: []byte{},
		Headers: b.deadLetterHeaders(event, f),
	}
	r.Headers = append(r.Headers, number(schemas.HeaderOmittedBytes, int64(PayloadSize(event))))
	return r
}

// UnreadableRange returns the dead letter of events that cannot be read: those of
// so many offsets, from that of first on. first has only a position and a time.
func (b *RecordBuilder) UnreadableRange(first *kgo.Record, offsets int64, f *schemas.Failure) *kgo.Record {
	r := &kgo.Record{Topic: b.DeadLetterTopic, Headers: b.deadLetterHeaders(first, f)}
	r.Headers = append(r.Headers, number(schemas.HeaderUnreadableOffsets, offsets))
	return r
}

// PayloadSize returns the size of an event's key, value and headers in bytes.
func PayloadSize(event *kgo.Record) int {
	n := len(event.Key) + len(event.Value)
	for _, h := range event.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

func (b *RecordBuilder) deadLetterHeaders(event *kgo.Record, f *schemas.Failure) []kgo.RecordHeader {
	message := truncate(f.Message, maxMessage)
	_, original, replays := SplitReplayHeaders(event)
	h := make([]kgo.RecordHeader, 0, 20)
	h = append(h,
		header(schemas.HeaderReason, string(f.Reason)),
		number(schemas.HeaderCode, int64(f.Code)),
		header(schemas.HeaderMessage, message),
		number(schemas.HeaderAttempts, int64(f.Attempts)),
		number(schemas.HeaderReplays, int64(replays)),
		number(schemas.HeaderOriginalTimestamp, original),
	)
	if f.RequestID != "" {
		h = append(h, header(schemas.HeaderRequestID, f.RequestID))
	}
	if !f.First.IsZero() {
		h = append(h,
			number(schemas.HeaderFirstAttempt, f.First.UnixMilli()),
			number(schemas.HeaderLastAttempt, f.Last.UnixMilli()))
	}
	return append(h,
		header(schemas.HeaderConnectTopic, event.Topic),
		number(schemas.HeaderConnectPartition, int64(event.Partition)),
		number(schemas.HeaderConnectOffset, event.Offset),
		header(schemas.HeaderConnectMessage, message),
		header(schemas.HeaderDLQTopic, event.Topic),
		number(schemas.HeaderDLQPartition, int64(event.Partition)),
		number(schemas.HeaderDLQOffset, event.Offset),
		header(schemas.HeaderDLQGroup, b.Group),
		number(schemas.HeaderDLQDeliveryCount, int64(replays)+1),
		header(schemas.HeaderDLQMessage, message),
	)
}

// truncate shortens s to at most n bytes of valid UTF-8.
func truncate(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// DeadLetter is a parsed dead letter.
type DeadLetter struct {
	schemas.Failure
	// Topic, Partition and Offset are the position of the event.
	Topic     string
	Partition int32
	Offset    int64
	// OriginalTimestamp is when the event was first produced, in ms since 1970.
	OriginalTimestamp int64
	Replays           int // how often it was replayed before
	// OmittedBytes is the size of an event that was too large to copy; 0: Key, Value
	// and Headers are there.
	OmittedBytes int64
	// UnreadableOffsets is the number of offsets, from Offset on, whose events could
	// not be read; 0: this is the dead letter of one event.
	UnreadableOffsets int64
	// Key, Value and Headers are those of the event, byte for byte.
	Key, Value []byte
	Headers    []kgo.RecordHeader
}

// ParseDeadLetter parses a record of the dead-letter topic; false means that
// enricher did not write it.
func ParseDeadLetter(r *kgo.Record) (*DeadLetter, bool) {
	at := -1
	for i, h := range r.Headers { // the event may be a copy of a dead letter, so the last block counts
		if h.Key == schemas.HeaderReason {
			at = i
		}
	}
	if at < 0 {
		return nil, false
	}
	ours := r.Headers[at:]
	text := func(key string) string {
		for _, h := range ours {
			if h.Key == key {
				return string(h.Value)
			}
		}
		return ""
	}
	num := func(key string) int64 {
		n, _ := strconv.ParseInt(text(key), 10, 64)
		return n
	}
	when := func(key string) time.Time {
		if text(key) == "" {
			return time.Time{}
		}
		return time.UnixMilli(num(key))
	}
	topic := text(schemas.HeaderConnectTopic)
	if topic == "" || text(schemas.HeaderConnectOffset) == "" {
		return nil, false
	}
	return &DeadLetter{
		Failure: schemas.Failure{
			Reason:    schemas.Reason(text(schemas.HeaderReason)),
			Code:      int(num(schemas.HeaderCode)),
			Message:   text(schemas.HeaderMessage),
			RequestID: text(schemas.HeaderRequestID),
			Attempts:  int(num(schemas.HeaderAttempts)),
			First:     when(schemas.HeaderFirstAttempt),
			Last:      when(schemas.HeaderLastAttempt),
		},
		Topic:             topic,
		Partition:         int32(num(schemas.HeaderConnectPartition)),
		Offset:            num(schemas.HeaderConnectOffset),
		OriginalTimestamp: num(schemas.HeaderOriginalTimestamp),
		Replays:           int(num(schemas.HeaderReplays)),
		OmittedBytes:      num(schemas.HeaderOmittedBytes),
		UnreadableOffsets: num(schemas.HeaderUnreadableOffsets),
		Key:               r.Key,
		Value:             r.Value,
		Headers:           r.Headers[:at:at],
	}, true
}
