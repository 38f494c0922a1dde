package replay

import (
	"context"
	"errors"
	"iter"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/schemas"
)

// Census counts the dead letters of a topic. It reads each record of the topic and
// of its journal once, however often it is brought up to date. It keeps reason and
// time of every dead letter in memory, about 100 bytes each.
type Census struct {
	topics Topics
	s      *Snapshot       // nil before the first Update, and after the topic was re-created
	read   map[int32]int64 // by partition: offsets below this have been read
	all    map[Position]counted
}

// counted is a dead letter in any state.
type counted struct {
	reason schemas.Reason
	event  time.Time // see Record.EventTime
}

// NewCensus returns a census that has nothing before its first Update.
func NewCensus(topics Topics) *Census { return &Census{topics: topics} }

// Close closes the Kafka client.
func (c *Census) Close() {
	if c.s != nil {
		c.s.Close()
		c.s = nil
	}
}

// Update reads what was written since the last one. After an error the census has
// what it had before, and some of what was written since; nothing, if the topic is
// gone or was re-created.
func (c *Census) Update(ctx context.Context) error {
	if c.s == nil {
		s, err := openSnapshot(ctx, c.topics)
		if err != nil {
			return err
		}
		c.s, c.read, c.all = s, make(map[int32]int64), make(map[Position]counted)
	}
	err := c.update(ctx)
	if errors.Is(err, ErrRecreated) || errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		c.Close()
		clear(c.all)
	}
	return err
}

func (c *Census) update(ctx context.Context) error {
	s := c.s
	if err := s.deadLetters.refresh(ctx); err != nil {
		return err
	}
	var err error
	if s.ranges, s.unavailable, err = s.deadLetters.ranges(ctx, kadm.NewClient(s.cl).ListCommittedOffsets); err != nil {
		return err
	}
	for p, offsets := range s.ranges {
		if err := c.readPartition(ctx, p, offsets); err != nil {
			return err
		}
	}
	maps.DeleteFunc(c.all, func(pos Position, _ counted) bool {
		offsets, ok := s.ranges[pos.Partition]
		return ok && pos.Offset < offsets.from // deleted by retention
	})
	// Read after the dead letters, so that one that was just replayed is not open.
	if err := c.readJournal(ctx); err != nil {
		return err
	}
	return s.missing(&Filter{})
}

func (c *Census) readPartition(ctx context.Context, p int32, offsets offsetRange) error {
	offsets.from = max(offsets.from, c.read[p])
	for raw, err := range c.s.deadLetters.read(ctx, p, offsets) {
		if err != nil {
			return err
		}
		if r := newRecord(raw, &c.s.markers); r.DeadLetter != nil {
			c.all[r.Position] = counted{r.DeadLetter.Reason, r.EventTime}
		}
		c.read[p] = raw.Offset + 1
	}
	c.read[p] = max(offsets.from, offsets.to)
	return nil
}

// readJournal reads what was added to the journal, which appears with the first
// replay.
func (c *Census) readJournal(ctx context.Context) (err error) {
	s := c.s
	if s.journal == nil {
		s.journal, err = findTopic(ctx, s.cl, c.topics.JournalTopic)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			s.journal = nil
			return nil
		}
		if err != nil {
			s.journal = nil
			return err
		}
	} else if err := s.journal.refresh(ctx); err != nil {
		return err
	}
	return s.readJournal(ctx, kadm.NewClient(s.cl).ListCommittedOffsets)
}

// Open yields the reason of every open dead letter, and the time of its event.
func (c *Census) Open() iter.Seq2[schemas.Reason, time.Time] {
	return func(yield func(schemas.Reason, time.Time) bool) {
		if c.s == nil {
			return
		}
		for pos, l := range c.all {
			if c.s.markers.state(pos) == Open && !yield(l.reason, l.event) {
				return
			}
		}
	}
}
