package consumer

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/schemas"
)

// maxUnprovenMalformed is how many malformed events in a row an assignment of a
// partition may dead-letter before its first event that can be parsed. So an
// instance that is restarted again and again does not write the whole limit each
// time. The dead-letter guard of the lookups has the same number.
const maxUnprovenMalformed = 20

// unreadableGuard limits the malformed events in a row of a partition that become
// dead letters. More of them mean that their producer has changed how it
// serialises: all that follow are malformed, too, and their calls are real.
//
// Only events for the end of a call count. Callbacks of other types neither
// continue a row nor end it: a producer may have broken just those that matter.
//
// It is pure: no clock, no client.
type unreadableGuard struct {
	limit int // 0: off
	max   int // of row: less than limit before the first event that can be parsed
	row   int // malformed events in a row
	// parsable is the last offset that is known to have an event that can be parsed.
	// It may have been read ahead: then the malformed events below are no row without
	// an end, and become dead letters.
	parsable int64
}

func newUnreadableGuard(limit int) unreadableGuard {
	return unreadableGuard{limit: limit, max: min(limit, maxUnprovenMalformed), parsable: -1}
}

// parsed notes that the event at an offset was parsed.
func (g *unreadableGuard) parsed(offset int64) {
	g.row, g.max = 0, g.limit
	g.seen(offset)
}

// seen notes that the event at an offset, which was read ahead, can be parsed.
func (g *unreadableGuard) seen(offset int64) { g.parsable = max(g.parsable, offset) }

// allow reports whether the malformed event at an offset may become a dead letter,
// and counts it if so.
func (g *unreadableGuard) allow(offset int64) bool {
	if g.limit <= 0 || offset < g.parsable {
		return true
	}
	if g.row >= g.max {
		return false
	}
	g.row++
	return true
}

// admit reports whether an event may have the outcome that decode has found.
func (g *unreadableGuard) admit(o *outcome) bool {
	switch {
	case o.failure == nil && !o.skipped:
		g.parsed(o.rec.Offset)
	case o.failure != nil && o.failure.Reason == schemas.Malformed:
		return g.allow(o.rec.Offset)
	}
	return true
}

// withhold takes back a malformed event that was added last, because there are too
// many in a row. Unless one of the records behind it can be parsed, the partition
// is blocked at this event. It is then fetched nevertheless: nothing of what comes
// is kept, only the first event that can be parsed is looked for.
func (c *conductor) withhold(p *partition, o *outcome, behind []*kgo.Record, now time.Time) (withheld bool) {
	if c.readAhead(p, behind); p.unreadable.allow(o.rec.Offset) {
		return false
	}
	p.tracker.withdraw(o.rec.Offset)
	c.block(p, UnreadableEvents, fmt.Sprintf("%d malformed events in a row before it, and %s", p.unreadable.row, o.failure.Message), now)
	return true
}

// readAhead looks for the first event that can be parsed.
func (c *conductor) readAhead(p *partition, records []*kgo.Record) {
	if p.unreadable.parsable >= p.tracker.head {
		return
	}
	for _, rec := range records {
		if rec.Offset >= p.tracker.head && isParsable(rec.Value) {
			p.unreadable.seen(rec.Offset)
			if p.blocked != nil {
				c.log.Info("malformed events released, one behind them can be parsed", zap.Stringer("partition", p.topicPartition),
					zap.Int64("from", p.tracker.head), zap.Int64("found", rec.Offset))
			}
			return
		}
	}
}

// isParsable reports whether a value is the event of a call. A panic is left to
// decode.
func isParsable(value []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	event, err := schemas.ParseEvent(value)
	return err == nil && !event.IsOtherCallback()
}
