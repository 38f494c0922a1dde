package consumer

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/fetch/lookup"
	"enricher/producer"
	"enricher/schemas"
)

// admitPartition takes in what was polled of one partition: every event that is
// neither pending nor completed gets its outcome at once or goes to the scheduler. It
// returns the partition; nil: the records are not wanted.
func (c *conductor) admitPartition(f *kgo.FetchTopicPartition, now time.Time) (*partition, error) {
	tp := topicPartition{f.Topic, f.Partition}
	p := c.parts[tp]
	switch {
	case p == nil:
		return nil, fmt.Errorf("received records of %v before its committed offset", tp)
	case p.blocked != nil && p.blocked.reason != UnreadableEvents:
		return nil, nil // fetched before it was paused
	}
	p.held = true
	p = c.checkLog(p, f)
	if p.blocked != nil {
		c.readAhead(p, f.Records)
		p.onFetched(f, true)
		return nil, nil
	}
	p.lastBlock = nil
	head := p.tracker.head
	for i, rec := range f.Records {
		p.epoch = max(p.epoch, rec.LeaderEpoch)
		if rec.Attrs.IsControl() { // the end of a transaction
			p.tracker.pass(rec.Offset)
			continue
		}
		if !p.tracker.add(rec.Offset, int64(producer.PayloadSize(rec))) {
			continue
		}
		o, ev := c.decode(p, rec, now)
		if !p.unreadable.admit(&o) && c.withhold(p, &o, f.Records[i+1:], now) {
			break
		}
		p.tracker.setTime(o.at.UnixMilli())
		if ev == nil {
			c.complete(p, o, now)
		} else {
			c.toLookUp = append(c.toLookUp, ev)
		}
	}
	p.onFetched(f, p.tracker.head > head)
	if len(c.toLookUp) > 0 {
		c.scheduler.Add(c.toLookUp)
		c.toLookUp = nil
	}
	c.account(p)
	return p, nil
}

// checkLog compares the first polled offset with what the tracker expects.
func (c *conductor) checkLog(p *partition, f *kgo.FetchTopicPartition) *partition {
	if len(f.Records) == 0 || p.tracker.base < 0 {
		return p
	}
	if f.Records[0].Offset < p.tracker.base {
		// Below the base alone it is only the rewind after an abort.
		from, replaced := p.firstReplacedOffset(f.Records)
		if held, ok := c.session.HeldPartitions()[p.topic][p.partition]; ok && replaced && from < held.Offset {
			return c.resetTo(p, from)
		}
		return p
	}
	if gone := p.tracker.unread(0, f.LogStartOffset); gone > 0 {
		c.metrics.DeletedByRetention.Add(float64(gone))
		c.log.Error("events deleted by retention before they were read",
			zap.Stringer("partition", p.topicPartition), zap.Int64("from", p.tracker.head),
			zap.Int64("to", f.LogStartOffset), zap.Int64("at_most", gone))
		p.tracker.pass(f.LogStartOffset - 1)
	}
	return p
}

// decode returns the outcome of an event that needs no lookup, or the event to
// look up. A panic is that event's own.
func (c *conductor) decode(p *partition, rec *kgo.Record, now time.Time) (o outcome, ev *lookup.Event) {
	o.rec = rec
	recorded := lookup.EventTime(now, producer.OriginalTimestamp(rec), rec.Timestamp.UnixMilli())
	o.at = recorded
	defer func() {
		if v := recover(); v != nil {
			c.log.Error("panic while handling an event", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()),
				zap.Stringer("partition", p.topicPartition), zap.Int64("offset", rec.Offset))
			o.failure = &schemas.Failure{Reason: schemas.Internal, Message: fmt.Sprintf("panic: %v", v)}
			ev = nil
		}
	}()
	parsed, err := schemas.ParseEvent(rec.Value)
	switch {
	case err != nil:
		o.failure = &schemas.Failure{Reason: schemas.Malformed, Message: err.Error()}
		return o, nil
	case parsed.IsOtherCallback():
		o.skipped = true
		return o, nil
	}
	o.callID = parsed.CallID
	o.at = lookup.EventTime(now, parsed.Time, recorded.UnixMilli())
	if e, ok := c.cache.Get(now, parsed.CallID); ok {
		c.cacheHits.Inc()
		o.Entry, o.source = e, lookup.CacheHit
		return o, nil
	}
	if c.cfg.EventRecord == UseFirst {
		if r := c.ownRecord(&parsed); r != nil {
			o.Encoded, o.source = c.cfg.Encode(r), lookup.OwnRecord
			if schemas.Sampled(parsed.CallID, c.cfg.VerifySample) {
				c.scheduler.Verify(r)
			}
			return o, nil
		}
	}
	// The record is a window into a batch of up to megabytes, and may have to wait for
	// minutes.
	rec = clone(rec)
	ev = &lookup.Event{CallID: parsed.CallID, Assignment: p.assignment, Time: o.at, Recorded: recorded, Source: rec}
	if c.cfg.EventRecord == UseFallback {
		// Once, because it is asked for again while dead letters are withheld.
		ev.Record = sync.OnceValue(func() *schemas.CallRecord {
			parsed, err := schemas.ParseEvent(rec.Value)
			if err != nil {
				return nil // cannot happen: it was parsed before
			}
			return c.ownRecord(&parsed)
		})
	}
	return o, ev
}

// ownRecord returns the record that an event carries, or nil if it is not complete.
func (c *Consumer) ownRecord(e *schemas.Event) *schemas.CallRecord {
	r, state := e.OwnRecord()
	c.metrics.EventRecords.WithLabelValues(string(state)).Inc()
	return r
}

// clone copies what an outcome needs of a polled record.
func clone(r *kgo.Record) *kgo.Record {
	size := producer.PayloadSize(r)
	buf := make([]byte, 0, size)
	keep := func(b []byte) []byte {
		if b == nil { // null and empty differ
			return nil
		}
		start := len(buf)
		buf = append(buf, b...)
		return buf[start:len(buf):len(buf)]
	}
	n := &kgo.Record{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp,
		Key: keep(r.Key), Value: keep(r.Value),
	}
	if len(r.Headers) > 0 {
		n.Headers = make([]kgo.RecordHeader, len(r.Headers))
		for i, h := range r.Headers {
			n.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: keep(h.Value)}
		}
	}
	return n
}
