package consumer

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/consumer/session"
)

// suspects finds, by halving, the outputs that a topic refuses. A topic refuses
// whole batches; the outcomes of such a batch are suspects. They go into
// transactions of their own, by turns with all others, half as many after each
// refusal. One that is refused alone is written in another form, or waits.
type suspects struct {
	max  int  // outcomes in the next transaction of suspects; 0: any number
	next bool // it is their turn
}

// turn reports whether the next transaction is one of suspects.
func (s *suspects) turn(healthy, suspect int) bool {
	mine := suspect > 0 && (s.next || healthy == 0)
	s.next = suspect > 0 && !mine
	if suspect == 0 {
		s.max = 0
	}
	return mine
}

// onRefused handles records that a topic refused.
func (c *conductor) onRefused(err *session.RefusedError, source map[*kgo.Record]*outcome, now time.Time) {
	c.abortsInARow = 0 // the next transactions exclude what was refused, so this makes progress
	if err.Unsupported() {
		c.logRefused(source[err.Records[0]], err)
		for _, r := range err.Records {
			source[r].setRefused(err, now)
		}
		return
	}
	if len(source) > 1 {
		if err.TooLarge() && !source[err.Records[0]].suspect {
			c.shrinkTransactions(err, len(source))
		}
		for _, r := range err.Records {
			source[r].suspect = true
		}
		c.suspects.max = max(1, len(err.Records)/2)
		return
	}
	if err.TooLarge() {
		c.maxPerTxn = 0 // it was the record, not the batch
	}
	o := source[err.Records[0]]
	if !o.withoutPayload && (o.failure != nil && err.OfRecord() || err.TooLarge()) {
		o.suspect, o.withoutPayload = true, true // its topic may accept this form, which is smaller and has a key
		return
	}
	c.logRefused(o, err)
	o.setRefused(err, now)
}

// shrinkTransactions makes transactions smaller, since a topic refused a batch for
// its size, or for that of a record in it.
func (c *conductor) shrinkTransactions(err *session.RefusedError, events int) {
	c.maxPerTxn = max(1, events/4)
	c.sizeWarning.Do(func() {
		c.log.Warn("batch too large for topic, using smaller transactions; set max.message.bytes>=1048588",
			zap.String("topic", err.Records[0].Topic), zap.Int("records_rejected", len(err.Records)), zap.Int("next_records", c.maxPerTxn))
	})
}

// logRefused logs the first refusal of an outcome.
func (c *conductor) logRefused(o *outcome, err *session.RefusedError) {
	if o.refused == nil {
		c.log.Error("output refused, the event waits", zap.String("topic", err.Records[0].Topic),
			zap.String("input_topic", o.rec.Topic), zap.Int32("partition", o.rec.Partition), zap.Int64("offset", o.rec.Offset), zap.Error(err.Err))
	}
}

// setRefused makes an outcome wait.
func (o *outcome) setRefused(err *session.RefusedError, now time.Time) {
	o.suspect = true
	o.refused = o.refused.again(OutputRefused, err.Error(), now)
	o.refused.err = err.Err
}

// setRefusedAside takes the outcomes that wait out of those to be committed.
func (p *partition) setRefusedAside(now time.Time) {
	p.completed = slices.DeleteFunc(p.completed, func(o outcome) bool {
		if o.refused == nil || !now.Before(o.refused.retryAt) {
			return false
		}
		o.rec = clone(o.rec) // it may wait for long, and is a window into a batch
		p.refused = append(p.refused, o)
		return true
	})
}

// retryRefused puts the outcomes of a partition whose time has come back to those to
// be committed.
func (c *conductor) retryRefused(p *partition, now time.Time) {
	if len(p.refused) == 0 {
		return
	}
	refused := p.refused
	p.refused = nil
	for _, o := range refused {
		if now.Before(o.refused.retryAt) {
			p.refused = append(p.refused, o)
		} else {
			c.complete(p, o, now)
		}
	}
	c.account(p)
}

// refusedOutcomes returns the outcomes that were refused and are not committed yet,
// whether they wait or are being tried again.
func (p *partition) refusedOutcomes() []outcome {
	refused := slices.Clone(p.refused)
	for _, o := range p.completed {
		if o.refused != nil {
			refused = append(refused, o)
		}
	}
	return refused
}
