package replay

import (
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/schemas"
)

// headerPrefix is what all headers begin with that this program adds to an event.
const headerPrefix = "enricher."

// Event is the event of a letter as it goes back: key, value and headers as it
// came, without any header of ours but two: when it first came, and how often
// it was replayed, this time included. It carries the time of its replay.
func (e *Record) Event(to string) *kgo.Record {
	l := e.DeadLetter
	if to == "" {
		to = l.Topic
	}
	r := &kgo.Record{Topic: to, Key: l.Key, Value: l.Value}
	for _, h := range l.Headers {
		if !strings.HasPrefix(h.Key, headerPrefix) {
			r.Headers = append(r.Headers, h)
		}
	}
	r.Headers = append(r.Headers,
		kgo.RecordHeader{Key: schemas.HeaderOriginalTimestamp, Value: strconv.AppendInt(nil, l.OriginalTimestamp, 10)},
		kgo.RecordHeader{Key: schemas.HeaderReplays, Value: strconv.AppendInt(nil, int64(l.Replays)+1, 10)})
	return r
}

// SkipReason is why a letter is left open though the filter picks it. The set is
// closed.
type SkipReason string

const (
	TooOld            SkipReason = "too old for the API"          // Retention
	MaxReplaysReached SkipReason = "replayed too often"           // MaxReplays
	PayloadOmitted    SkipReason = "too large to have been kept"  // the letter has its event's coordinates only
	NoOriginTopic     SkipReason = "came from a topic of replays" // the dead-letter topic or the journal; To helps
	ForeignRecord     SkipReason = "not written by enricher"
	TooLarge          SkipReason = "too large for the topic" // as its broker said
)

// SkipReasons lists all obstacles.
func SkipReasons() []SkipReason {
	return []SkipReason{TooOld, MaxReplaysReached, PayloadOmitted, NoOriginTopic, ForeignRecord, TooLarge}
}

// skipReason is "" for a letter that can be acted on.
func (j *Job) skipReason(e *Record, now time.Time) SkipReason {
	switch {
	case e.DeadLetter == nil:
		return ForeignRecord
	case j.Action == Discarded:
		return ""
	case e.DeadLetter.OmittedBytes > 0:
		return PayloadOmitted
	case j.To == "" && (e.DeadLetter.Topic == j.DeadLetterTopic || e.DeadLetter.Topic == j.JournalTopic):
		return NoOriginTopic
	case e.DeadLetter.Replays >= j.MaxReplays:
		return MaxReplaysReached
	case j.Retention > 0 && now.Sub(e.EventTime) > j.Retention:
		return TooOld
	}
	return ""
}
