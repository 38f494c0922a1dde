package consumer

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/producer"
)

type topicPartition struct {
	topic     string
	partition int32
}

func (tp topicPartition) String() string { return fmt.Sprintf("%s[%d]", tp.topic, tp.partition) }

// partition is what the conductor knows of one partition, from its birth (the
// offsets fetched at its assignment) until the client no longer holds it.
type partition struct {
	topicPartition
	inc     uint64 // incarnation; every event carries it
	tracker *tracker
	ready   []result // finished, not committed

	seen    bool  // the client has held it, so that its absence means something
	refused error // not nil: its metadata is not understood; nothing is consumed
	paused  bool  // its metadata nears the limit
	// rebased: the log was truncated below what is committed. What the broker
	// says is committed counts only if this tracker did commit it.
	rebased  bool
	end      int64  // of the log, as last heard
	epoch    int32  // the last leader epoch of what was polled; −1: nothing was
	proposed Offset // of the last transaction it was in
}

// Offset is short for the producer's.
type Offset = producer.Offset

// reconcile makes the trackers those of the partitions that the client holds:
// first its own list, then the births that were handed over since, because a
// partition that is gone from the list and born again is held again.
func (c *conductor) reconcile() error {
	held := c.session.Held()
	for _, b := range c.session.Births() {
		if err := c.born(b); err != nil {
			return err
		}
	}
	for tp, p := range c.parts {
		if _, ok := held[tp.topic][tp.partition]; ok {
			p.seen = true
		} else if p.seen {
			c.drop(p)
		}
	}
	return nil
}

// born takes a new tracker for a partition from what the group has committed.
func (c *conductor) born(b Offset) error {
	tp := topicPartition{b.Topic, b.Partition}
	if old := c.parts[tp]; old != nil {
		c.drop(old)
	}
	if b.Offset < 0 && c.cfg.Start == Fail {
		return &fatalError{fmt.Errorf("group %q has no committed offset for %v and start is %q: "+
			"set the group's offsets, or start from earliest or latest", c.cfg.Group, tp, Fail)}
	}
	id := c.session.TopicID(b.Topic)
	ahead, err := decodeMetadata(id, b.Offset, b.Metadata)
	p := c.install(tp, newTracker(progress{base: b.Offset, ahead: ahead}))
	p.end = b.Offset
	p.proposed = b
	if err != nil {
		p.refused = err
		c.session.Pause(tp.topic, tp.partition)
		c.log.Error("partition refused: nothing of it is consumed, because doing so would repeat events; run the version that wrote the metadata",
			zap.Stringer("partition", tp), zap.Int64("offset", b.Offset), zap.Error(err))
	} else {
		c.session.Resume(tp.topic, tp.partition) // a pause survives re-assignment
	}
	return nil
}

// install gives a partition a tracker with a new incarnation.
func (c *conductor) install(tp topicPartition, t *tracker) *partition {
	c.lastInc++
	p := &partition{topicPartition: tp, inc: c.lastInc, tracker: t, epoch: -1}
	c.parts[tp] = p
	c.live[p.inc] = p
	return p
}

// drop forgets a partition: whoever holds it now starts from what is
// committed. Lookups under way finish into the cache.
func (c *conductor) drop(p *partition) {
	delete(c.parts, p.topicPartition)
	delete(c.live, p.inc)
	c.lookups.drop(p.inc)
}

// dropAll is for the end of a session.
func (c *conductor) dropAll() {
	incs := make([]uint64, 0, len(c.live))
	for inc := range c.live {
		incs = append(incs, inc)
	}
	clear(c.parts)
	clear(c.live)
	c.lookups.drop(incs...)
}

// newLog finds the first of the records polled below base that is of another
// log than the one polled so far. A log does not lose its end under one leader,
// and the next leader writes with a higher epoch: records of an epoch that is
// known are the same as before. The client delivers such more than once when it
// finds a log shorter than it was.
func (p *partition) newLog(records []*kgo.Record) (from int64, found bool) {
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

// rebase starts a partition afresh from offset o, because its log was
// truncated or replaced: what stands there now are new events.
func (c *conductor) rebase(p *partition, o int64) *partition {
	c.log.Error("log was truncated or replaced: starting from its present contents",
		zap.Stringer("partition", p.topicPartition), zap.Int64("committed", p.tracker.base), zap.Int64("found", o))
	c.metrics.Truncations.Inc()
	c.drop(p)
	n := c.install(p.topicPartition, newTracker(progress{base: o}))
	n.seen, n.rebased = true, true
	return n
}

// stale says whether a partition of the plan is no longer held as it was when
// its outcomes were made: lost, born again, or its log replaced. The client's
// list comes first here too.
func (c *conductor) stale(plan []*portion) bool {
	held := c.session.Held()
	for _, q := range plan {
		tp := q.part.topicPartition
		if _, ok := held[tp.topic][tp.partition]; !ok || c.parts[tp] != q.part || c.session.Reborn(tp.topic, tp.partition) {
			return true
		}
	}
	return false
}

// readBack asks the broker what is committed and takes it over. It returns an
// error when the broker does not tell in time: then only a new session helps.
func (c *conductor) readBack(plan []*portion) error {
	parts := make(map[string][]int32)
	for _, q := range plan {
		tp := q.part.topicPartition
		parts[tp.topic] = append(parts[tp.topic], tp.partition)
	}
	committed, err := c.session.ReadBack(parts, readBackTimeout)
	if err != nil {
		return fmt.Errorf("read committed offsets back: %w", err)
	}
	for _, o := range committed {
		p := c.parts[topicPartition{o.Topic, o.Partition}]
		if p == nil {
			continue
		}
		if err := c.believe(p, o); err != nil {
			return err
		}
	}
	return nil
}

const readBackTimeout = 8 * time.Second

// believe takes over what is committed for a partition.
func (c *conductor) believe(p *partition, o Offset) error {
	id := c.session.TopicID(o.Topic)
	if p.rebased && o != p.proposed || o.Offset < 0 || Obsolete(id, o) {
		return nil
	}
	ahead, err := decodeMetadata(id, o.Offset, o.Metadata)
	if err != nil {
		return fmt.Errorf("%v: %w", p, err)
	}
	done, err := p.tracker.fold(progress{base: o.Offset, ahead: ahead})
	if err != nil {
		return fmt.Errorf("%v: %w", p, err)
	}
	if done > 0 {
		var undone []result
		for _, r := range p.ready {
			if p.tracker.isPending(r.event.rec.Offset) {
				undone = append(undone, r)
			} else {
				c.count(r)
			}
		}
		p.ready = undone
	}
	return nil
}
