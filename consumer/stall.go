package consumer

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

const (
	// stallTimeout is how long a partition may bring nothing although its log has
	// more. A fetch takes half a second, a change of the leader a few seconds.
	stallTimeout = 30 * time.Second
	// openTransactionTimeout is how long an open transaction of another program may
	// hold back a partition before it is named: the default of transaction.timeout.ms
	// (one minute), and the time until the broker enforces it.
	openTransactionTimeout = 90 * time.Second
)

// stall is what shows whether a partition that is consumed makes progress. Not
// everything that goes wrong is an error: the Kafka client skips some damaged data
// without a word, and a partition without a leader just brings nothing.
type stall struct {
	listing *listing // the last one that was taken in

	// Since when, without a break; zero: not at all.
	unlisted time.Time // the broker does not report where the log ends
	heldBack time.Time // an open transaction holds back what lies behind the last stable offset
	quiet    time.Time // nothing comes, though the log has more and nothing is in the way
	stalled  time.Time // the same, for so long that the partition is fetched again
}

// unread returns how many offsets below end are still to be read, as far as is known.
func (p *partition) unread(end int64) int64 {
	if p.tracker.head < 0 {
		return 0
	}
	return p.tracker.unread(p.log.Start, end)
}

// onFetched takes in what a response says about the log. progress: it had
// something new.
func (p *partition) onFetched(f *kgo.FetchTopicPartition, progress bool) {
	if f.LastStableOffset > p.log.Stable {
		p.log.Stable, p.heldBack = f.LastStableOffset, time.Time{}
	}
	p.log.Start = max(p.log.Start, f.LogStartOffset)
	p.log.End = max(p.log.End, f.HighWatermark, p.log.Stable)
	if progress {
		p.unlisted, p.quiet, p.stalled = time.Time{}, time.Time{}, time.Time{}
	}
}

// onListed takes in what the broker reported about the log.
func (p *partition) onListed(l *listing, now time.Time) {
	r, ok := l.ranges[p.topic][p.partition]
	switch {
	case ok:
		p.unlisted = time.Time{}
	case p.unlisted.IsZero():
		p.unlisted = now
		return
	default:
		return
	}
	switch {
	case r.End <= r.Stable:
		p.heldBack = time.Time{}
	case p.heldBack.IsZero() || r.Stable != p.log.Stable:
		p.heldBack = now
	}
	p.log = r
}

// observeLogs takes in the last listing of the logs, and counts what open
// transactions hold back.
func (c *conductor) observeLogs(now time.Time) {
	l := c.listing.Load()
	var events int64
	var longest time.Duration
	for _, p := range c.parts {
		if l != nil && l != p.listing && l.asked.After(p.assigned) {
			p.listing = l
			p.onListed(l, now)
		}
		if !p.heldBack.IsZero() {
			events += p.log.End - p.log.Stable
			longest = max(longest, now.Sub(p.heldBack))
		}
	}
	c.metrics.HeldBack.Set(float64(events))
	c.metrics.OpenTransaction.Set(longest.Seconds())
}

// refetchStalled fetches partitions again that bring nothing although they could.
func (c *conductor) refetchStalled(now time.Time) {
	seek := make(map[string]map[int32]int64)
	for tp, p := range c.parts {
		unread := p.unread(p.log.Stable)
		if unread == 0 {
			p.stalled = time.Time{}
		}
		if unread == 0 || p.blocked != nil || p.fetchPaused || p.overShare || c.fetchPaused || c.draining {
			p.quiet = time.Time{}
			continue
		}
		if p.quiet.IsZero() {
			p.quiet = now
		}
		p.quiet = laterOf(p.quiet, c.full)
		if now.Sub(p.quiet) < stallTimeout {
			continue
		}
		if p.stalled.IsZero() {
			p.stalled = p.quiet
			c.log.Error("partition brings no records though its log has more, fetching it again", zap.Stringer("partition", tp),
				zap.Int64("offset", p.tracker.head), zap.Int64("last_stable_offset", p.log.Stable), zap.Duration("for", now.Sub(p.quiet)))
		}
		c.metrics.Stalls.Inc()
		p.quiet = now
		if seek[tp.topic] == nil {
			seek[tp.topic] = make(map[int32]int64)
		}
		seek[tp.topic][tp.partition] = p.tracker.head
	}
	if len(seek) > 0 {
		c.session.Seek(seek)
	}
}

// stallConditions returns why a partition makes no progress without being blocked.
func (p *partition) stallConditions(now time.Time) []Condition {
	var all []Condition
	add := func(r BlockReason, since time.Time, format string, args ...any) {
		all = append(all, Condition{Reason: string(r), Detail: fmt.Sprintf("%v at offset %d: %s, since %s",
			p.topicPartition, p.tracker.head, fmt.Sprintf(format, args...), since.UTC().Format(time.DateTime))})
	}
	if !p.stalled.IsZero() {
		add(Stalled, p.stalled, "no records come, though the log can be read up to offset %d", p.log.Stable)
	} else if !p.unlisted.IsZero() && now.Sub(p.unlisted) >= stallTimeout {
		detail := "not in the response"
		if p.listing.err != nil {
			detail = p.listing.err.Error()
		}
		add(Stalled, p.unlisted, "the broker does not report where the log ends: %s", detail)
	}
	if !p.heldBack.IsZero() && now.Sub(p.heldBack) >= openTransactionTimeout {
		add(OpenTransaction, p.heldBack, "an open transaction of another program holds back %d records from offset %d on",
			p.log.End-p.log.Stable, p.log.Stable)
	}
	return all
}
