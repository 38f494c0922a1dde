package consumer

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/producer"
	"enricher/schemas"
)

// admit takes in what was polled of one partition: every event that is neither
// pending nor done becomes a result at once or goes to the lookups.
func (c *conductor) admit(f *kgo.FetchTopicPartition, now time.Time) error {
	tp := topicPartition{f.Topic, f.Partition}
	p := c.parts[tp]
	switch {
	case p == nil:
		return fmt.Errorf("polled events of %v, whose committed offset was never heard", tp)
	case p.refused != nil:
		return nil //nolint:nilerr // told already; nothing of the partition is consumed
	}
	p.seen = true
	p.end = max(p.end, f.LastStableOffset)
	p = c.checkLog(p, f)
	for _, rec := range f.Records {
		p.epoch = max(p.epoch, rec.LeaderEpoch)
		if !p.tracker.admit(rec.Offset, rec.Timestamp.UnixMilli(), int64(producer.EventSize(rec))) {
			continue
		}
		ev := &event{rec: rec, inc: p.inc}
		if r, done := c.decode(ev, now); done {
			c.finish(p, r, now)
			continue
		}
		// The record is a window into a batch of up to megabytes, and may have
		// to wait for minutes.
		ev.rec = clone(rec)
		c.asks = append(c.asks, ev)
	}
	if len(c.asks) > 0 {
		c.lookups.add(c.asks)
		c.asks = nil
	}
	return nil
}

// checkLog compares the first polled offset with what the tracker expects.
func (c *conductor) checkLog(p *partition, f *kgo.FetchTopicPartition) *partition {
	if len(f.Records) == 0 || p.tracker.base < 0 {
		return p
	}
	if f.Records[0].Offset < p.tracker.base {
		// Below the tracker alone it is only the rewind after an abort.
		from, anew := p.newLog(f.Records)
		if held, ok := c.session.Held()[p.topic][p.partition]; ok && anew && from < held.Offset {
			return c.rebase(p, from)
		}
		return p
	}
	if gone := p.tracker.unhandled(f.LogStartOffset); gone > 0 {
		c.metrics.EventsLost.Add(float64(gone))
		c.log.Error("retention deleted events that were never handled",
			zap.Stringer("partition", p.topicPartition), zap.Int64("from", p.tracker.head),
			zap.Int64("to", f.LogStartOffset), zap.Int64("at_most", gone))
	}
	return p
}

// decode fills in an event; done: its result is known without a lookup. A
// panic is that event's own.
func (c *conductor) decode(ev *event, now time.Time) (r result, done bool) {
	r.event = ev
	defer func() {
		if v := recover(); v != nil {
			c.log.Error("panic while handling an event", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()),
				zap.String("topic", ev.rec.Topic), zap.Int32("partition", ev.rec.Partition), zap.Int64("offset", ev.rec.Offset))
			r.failure = &producer.Failure{Reason: schemas.Internal, Message: fmt.Sprintf("panic: %v", v)}
			done = true
		}
	}()
	parsed, err := schemas.ParseEvent(ev.rec.Value)
	switch {
	case err != nil:
		r.failure = &producer.Failure{Reason: schemas.Malformed, Message: err.Error()}
		return r, true
	case parsed.Skip():
		r.skipped = true
		return r, true
	}
	ev.callID = parsed.CallID
	ev.time = eventTime(ev.rec, parsed.Time, now)
	if e, ok := c.cache.Get(now, ev.callID); ok {
		c.cacheHits.Inc()
		r.value, r.requestID, r.hit = e.Value, e.RequestID, true
		return r, true
	}
	return r, false
}

// eventTime is the callback's own time, else what a replay handed on, else the
// record's; never in the future.
func eventTime(rec *kgo.Record, ms int64, now time.Time) time.Time {
	if ms <= 0 {
		ms = producer.OriginalTimestamp(rec)
	}
	if t := time.UnixMilli(ms); t.Before(now) {
		return t
	}
	return now
}

// clone copies what an outcome needs of a polled record.
func clone(r *kgo.Record) *kgo.Record {
	size := producer.EventSize(r)
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
