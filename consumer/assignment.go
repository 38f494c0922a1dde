package consumer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"enricher/consumer/progress"
	"enricher/consumer/session"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

type topicPartition struct {
	topic     string
	partition int32
}

func (tp topicPartition) String() string { return fmt.Sprintf("%s[%d]", tp.topic, tp.partition) }

// partition is what the conductor keeps of one assignment of a partition, from
// the offset fetched with it until the client no longer holds the partition.
type partition struct {
	topicPartition
	assignment uint64 // id; every event carries it
	tracker    *tracker
	unreadable unreadableGuard
	completed  []outcome // not committed
	refused    []outcome // completed, and waiting because a topic refused the output

	held        bool // the client has held it, so that its absence means something
	fetchPaused bool // its metadata nears the limit
	overShare   bool // nothing is fetched, because it holds more than its share of what may be in flight
	// blocked is why nothing is fetched; nil: it is consumed. lastBlock is the last
	// of them since a record was polled.
	blocked, lastBlock *block
	unresolved         bool // its start is not known, so the tracker means nothing yet
	// commitProgress: its progress is to be committed although no event of it is
	// completed. It is a start, without which a restart would skip events, or a
	// transaction marker was passed.
	commitProgress bool
	// resetBelowCommit: the log was truncated below what is committed. What the
	// broker reports as committed counts only if this tracker committed it.
	resetBelowCommit bool
	epoch            int32          // the last leader epoch of what was polled; −1: nothing was
	lastCommit       session.Offset // of the last transaction that it was in
	// noRoomUntil: metadata of what is completed does not fit, and is tried again
	// then. Older events have to complete first. Zero: everything fits.
	noRoomUntil time.Time
	committing  int    // outcomes in the open transaction, which are not in completed
	queued      bool   // in conductor.queue
	counted     totals // its part of conductor.totals

	assigned time.Time
	log      session.LogRange // as last reported
	stall
}

// syncAssignments makes the trackers those of the partitions that the client
// holds: first its own list, then the assignments that were handed over since,
// because a partition that is gone from the list and assigned again is held again.
func (c *conductor) syncAssignments() {
	now := time.Now()
	if c.session.HasAssignments() || !now.Before(c.nextLossCheck) {
		c.dropLost(now)
	}
	for _, a := range c.session.TakeAssignments() {
		c.onAssigned(a, now)
	}
	c.reserve()
}

// lossInterval is how often the list of partitions is looked at while there is no
// transaction, which looks at it in any case. The client copies it each time.
const lossInterval = 100 * time.Millisecond

// dropLost forgets the partitions that the client no longer holds.
func (c *conductor) dropLost(now time.Time) {
	c.nextLossCheck = now.Add(lossInterval)
	held := c.session.HeldPartitions()
	for tp, p := range c.parts {
		if _, ok := held[tp.topic][tp.partition]; ok {
			p.held = true
		} else if p.held {
			c.onLost(p)
		}
	}
}

// onAssigned starts a tracker for a partition from what the group has committed.
func (c *conductor) onAssigned(a session.Assignment, now time.Time) {
	committed := a.Committed
	tp := topicPartition{committed.Topic, committed.Partition}
	p := c.parts[tp]
	if a.Resolved {
		if p == nil || !p.unresolved {
			return // lost meanwhile
		}
	} else {
		if p != nil {
			c.onLost(p)
		}
		p = c.install(tp, newTracker(progress.Progress{Base: -1}))
	}
	p.lastCommit = committed
	if a.Err != nil {
		p.unresolved = true
		reason := OffsetUnavailable
		if errors.Is(a.Err, session.ErrNoCommittedOffset) {
			reason = NoCommittedOffset
		}
		c.block(p, reason, a.Err.Error(), now)
		return
	}
	done, err := a.Progress(c.session.TopicID(tp.topic))
	if err != nil {
		c.block(p, IncompatibleMetadata, err.Error(), now)
		return
	}
	if a.Start < committed.Offset {
		c.log.Error("partition log truncated or replaced, restarting from current log",
			zap.Stringer("partition", tp), zap.Int64("committed", committed.Offset), zap.Int64("found", a.Start))
		c.metrics.Truncations.Inc()
		p.resetBelowCommit = true
	}
	if committed.Offset >= 0 && progress.Foreign(committed.Metadata) {
		c.log.Warn("committed offset was set by another tool; what was done ahead of it is processed again",
			zap.Stringer("partition", tp), zap.Int64("committed", committed.Offset))
	}
	p.tracker = newTracker(done)
	p.commitProgress = a.StartIsNew && c.cfg.AutoOffsetReset == Latest
	p.unresolved = false
	c.account(p)
	if p.blocked != nil {
		p.blocked.retryAt = now // the client still has a provisional offset; retryWaiting sets it
	} else {
		c.resume(p) // a pause survives re-assignment
	}
}

// install gives a partition a tracker and a new assignment id.
func (c *conductor) install(tp topicPartition, t *tracker) *partition {
	c.lastAssignment++
	p := &partition{
		topicPartition: tp, assignment: c.lastAssignment, tracker: t, epoch: -1, assigned: time.Now(),
		unreadable: newUnreadableGuard(c.cfg.MaxConsecutiveDeadLetters),
	}
	c.parts[tp] = p
	c.byAssignment[p.assignment] = p
	return p
}

// onLost forgets a partition: its next owner starts from what is committed.
// Requests in flight still fill the cache.
func (c *conductor) onLost(p *partition) {
	delete(c.parts, p.topicPartition)
	delete(c.byAssignment, p.assignment)
	c.account(p)
	c.scheduler.Drop(p.assignment)
}

// dropAll is for the end of a session.
func (c *conductor) dropAll() {
	c.scout.set(nil, nil)
	ids := slices.Collect(maps.Keys(c.byAssignment))
	clear(c.parts)
	clear(c.byAssignment)
	clear(c.waiting)
	c.queue, c.totals = nil, totals{}
	c.scheduler.Drop(ids...)
}

// firstReplacedOffset finds the first of the records polled below the base that
// is of another log than the one polled so far. A log does not lose its end under
// one leader, and the next leader writes with a higher epoch: records of an epoch
// that is known are the same as before. The client delivers such records again
// when it finds a log shorter than it was.
func (p *partition) firstReplacedOffset(records []*kgo.Record) (from int64, found bool) {
	for _, r := range records {
		if r.Offset >= p.tracker.base {
			break
		}
		if r.LeaderEpoch < 0 || r.LeaderEpoch > p.epoch {
			return r.Offset, true
		}
	}
	return 0, false
}

// resetTo starts a partition again from offset o, because its log was truncated
// or replaced: what it holds now are new events.
func (c *conductor) resetTo(p *partition, o int64) *partition {
	c.log.Error("partition log truncated or replaced, restarting from current log",
		zap.Stringer("partition", p.topicPartition), zap.Int64("committed", p.tracker.base), zap.Int64("found", o))
	c.metrics.Truncations.Inc()
	c.onLost(p)
	n := c.install(p.topicPartition, newTracker(progress.Progress{Base: o}))
	n.held, n.resetBelowCommit = true, true
	return n
}

// anyLost reports whether a partition of the transaction is no longer held as it
// was when its outcomes were made: lost, assigned again, or its log replaced. The
// client's list comes first here too.
func (c *conductor) anyLost(commits []*partitionCommit) bool {
	held := c.session.HeldPartitions()
	for _, q := range commits {
		tp := q.part.topicPartition
		if _, ok := held[tp.topic][tp.partition]; !ok || c.parts[tp] != q.part || c.session.Reassigned(tp.topic, tp.partition) {
			return true
		}
	}
	return false
}

// refetchCommitted asks the broker what is committed and applies it. An error
// means that only a new session helps.
func (c *conductor) refetchCommitted(commits []*partitionCommit) error {
	parts := make(map[string][]int32)
	for _, q := range commits {
		tp := q.part.topicPartition
		parts[tp.topic] = append(parts[tp.topic], tp.partition)
	}
	committed, err := c.session.FetchCommitted(parts)
	if err != nil {
		return fmt.Errorf("fetch the committed offsets: %w", err)
	}
	held := c.session.HeldPartitions()
	for _, o := range committed {
		p := c.parts[topicPartition{o.Topic, o.Partition}]
		if p == nil {
			continue
		}
		if _, ok := held[o.Topic][o.Partition]; !ok || c.session.Reassigned(o.Topic, o.Partition) {
			continue // another instance may have committed this, and counts it
		}
		if err := c.applyCommitted(p, o); err != nil {
			return fmt.Errorf("%v: %w", p.topicPartition, err)
		}
	}
	return nil
}

// applyCommitted applies what the broker reports as committed for a partition.
func (c *conductor) applyCommitted(p *partition, o session.Offset) error {
	id := c.session.TopicID(o.Topic)
	if p.resetBelowCommit && o != p.lastCommit || o.Offset < 0 || progress.CommittedForOldTopic(id, o.Metadata) {
		return nil
	}
	done, err := progress.Decode(id, o.Offset, o.Metadata)
	if err != nil {
		return err
	}
	n, err := p.tracker.applyCommitted(done)
	if err != nil || n == 0 {
		return err
	}
	var left []outcome
	for _, out := range p.completed {
		if p.tracker.isPending(out.rec.Offset) {
			left = append(left, out)
		} else {
			c.count(out)
		}
	}
	p.completed = left
	c.account(p)
	return nil
}
