package consumer

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"enricher/consumer/session"
	"enricher/fetch/lookup"
	"enricher/producer"
	"enricher/schemas"
)

const (
	// scoutTimeout bounds the requests of one scout. The next one comes after a
	// second at the earliest.
	scoutTimeout = 5 * time.Second
	// scoutReads bounds the batches that one scout reads.
	scoutReads = 3
	// scoutMargin is how much longer than Config.Retry.LookupDelay ago the end of a
	// call is whose record should be readable.
	scoutMargin = 5 * time.Second
)

// scout reads events ahead of those in flight, while dead letters are withheld:
// when everything in flight has no record, only an event further ahead can show
// that the API has any. It implements lookup.Scout.
//
// It reads one small piece of a log at a time, through the session's client that is
// no member of the group, and keeps nothing.
type scout struct {
	delay time.Duration // from the end of a call until its record should be readable

	mu      sync.Mutex
	session *session.Session // nil: there is none
	unread  map[topicPartition]offsetRange

	random bool // which event is next; only one Next runs at a time
}

// offsetRange is from inclusive, to exclusive.
type offsetRange struct{ from, to int64 }

// set notes what the conductor has not read yet; nil: there is no session.
func (s *scout) set(from *session.Session, unread map[topicPartition]offsetRange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session, s.unread = from, unread
}

// choose returns a partition, each with the chance of its share of what is unread.
func (s *scout) choose() (from *session.Session, tp topicPartition, unread offsetRange, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := int64(0)
	for _, r := range s.unread {
		total += r.to - r.from
	}
	if total == 0 {
		return nil, tp, unread, false
	}
	at := rand.Int64N(total)
	for tp, unread = range s.unread {
		if at -= unread.to - unread.from; at < 0 {
			break
		}
	}
	return s.session, tp, unread, true
}

// Next implements lookup.Scout. The records of a partition are in the order of
// their timestamps, or nearly.
func (s *scout) Next(ctx context.Context) (callID string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, scoutTimeout)
	defer cancel()
	from, tp, unread, ok := s.choose()
	if !ok {
		return "", false
	}
	readable := time.Now().Add(-s.delay - scoutMargin)
	log, err := from.OpenLog(ctx, tp.topic, tp.partition)
	if err != nil {
		return "", false
	}
	end, err := log.FirstAfter(ctx, readable)
	if err != nil || end <= max(unread.from, log.Start) {
		return "", false
	}
	first := max(unread.from, log.Start)
	at := end - 1
	if s.random {
		at = first + rand.Int64N(end-first)
	}
	s.random = !s.random
	for range scoutReads {
		c, err := log.ReadAt(ctx, at, at+1)
		if err != nil || c.Next == at {
			return "", false
		}
		for _, r := range c.Records {
			event, err := schemas.ParseEvent(r.Value)
			if err != nil || event.IsOtherCallback() {
				continue
			}
			now := time.Now()
			if at := lookup.EventTime(now, event.Time, producer.OriginalTimestamp(r), r.Timestamp.UnixMilli()); at.Before(readable) {
				return event.CallID, true
			}
		}
		at = c.Next
	}
	return "", false
}
