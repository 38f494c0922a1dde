package replay

import (
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/schemas"
)

// ourHeaders is what all headers begin with that this program adds to an event.
const ourHeaders = "enricher."

// Event is the event of a letter as it goes back: key, value and headers as it
// came, without any header of ours but two: when it first came, and how often
// it was replayed, this time included. It carries the time of its replay.
func (e *Entry) Event(to string) *kgo.Record {
	l := e.Letter
	if to == "" {
		to = l.Topic
	}
	r := &kgo.Record{Topic: to, Key: l.Key, Value: l.Value}
	for _, h := range l.Headers {
		if !strings.HasPrefix(h.Key, ourHeaders) {
			r.Headers = append(r.Headers, h)
		}
	}
	r.Headers = append(r.Headers,
		kgo.RecordHeader{Key: schemas.HeaderOriginalTimestamp, Value: strconv.AppendInt(nil, l.OriginalTimestamp, 10)},
		kgo.RecordHeader{Key: schemas.HeaderReplays, Value: strconv.AppendInt(nil, int64(l.Replays)+1, 10)})
	return r
}

// Obstacle is why a letter is left open though the filter picks it. The set is
// closed.
type Obstacle string

const (
	TooOld     Obstacle = "too old for the API"          // Retention
	TooOften   Obstacle = "replayed too often"           // MaxReplays
	NotWhole   Obstacle = "too large to have been kept"  // the letter has its event's coordinates only
	NoWayBack  Obstacle = "came from a topic of replays" // the dead-letter topic or the journal; To helps
	NotALetter Obstacle = "not written by enricher"
	DoesNotFit Obstacle = "too large for the topic" // as its broker said
)

// Obstacles lists all obstacles.
func Obstacles() []Obstacle {
	return []Obstacle{TooOld, TooOften, NotWhole, NoWayBack, NotALetter, DoesNotFit}
}

// obstacle is "" for a letter that can be acted on.
func (j *Job) obstacle(e *Entry, now time.Time) Obstacle {
	switch {
	case e.Letter == nil:
		return NotALetter
	case j.Action == Discarded:
		return ""
	case e.Letter.OmittedBytes > 0:
		return NotWhole
	case j.To == "" && (e.Letter.Topic == j.DeadLetterTopic || e.Letter.Topic == j.JournalTopic):
		return NoWayBack
	case e.Letter.Replays >= j.MaxReplays:
		return TooOften
	case j.Retention > 0 && now.Sub(e.EventTime) > j.Retention:
		return TooOld
	}
	return ""
}
