package consumer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/consumer/progress"
	"enricher/consumer/session"
	"enricher/producer"
	"enricher/schemas"
)

const (
	// maxAborts is how many transactions in a row may abort before a new session is
	// tried. Rebalances abort one or two; with the pauses between them, ten take
	// longer than a broker's restart.
	maxAborts = 10
	// maxCommitBytes bounds the offsets of one transaction, as the broker stores them:
	// in a batch of at most 1,048,588 bytes (its message.max.bytes).
	maxCommitBytes = 512 << 10
	// metadataWait is how long completed events whose metadata does not fit wait
	// until it is tried again: older events have to complete first.
	metadataWait = time.Second
)

// partitionCommit is the part of a transaction that concerns one partition.
type partitionCommit struct {
	part     *partition
	outcomes []outcome // taken out of part.completed, by offset
	rest     []outcome // of part.completed
	offsets  []int64   // of outcomes
	progress progress.Progress
	offset   session.Offset
	noRoom   bool // more could be committed, if its metadata fitted
}

// transaction is the conductor's side of a transaction that is being committed.
type transaction struct {
	*conductor
	commits []*partitionCommit
	events  int
	failed  error // of WhileFlushing
}

// WhileFlushing admits events for the next transactions.
func (t *transaction) WhileFlushing() { t.failed = t.admitFetched(t.events) }

// Offsets returns what to commit, unless a partition was lost meanwhile.
func (t *transaction) Offsets() ([]session.Offset, error) {
	if t.failed != nil || t.anyLost(t.commits) {
		return nil, session.ErrRevoked
	}
	offsets := make([]session.Offset, len(t.commits))
	for i, q := range t.commits {
		offsets[i] = q.offset
	}
	return offsets, nil
}

// commit puts the completed outcomes and the offsets that go with them into one
// transaction. An error means that the session is of no more use.
func (c *conductor) commit() error {
	c.dropLost(time.Now())
	txn := &transaction{conductor: c, commits: c.buildCommits()}
	if len(txn.commits) == 0 {
		return nil
	}
	var records []*kgo.Record
	source := make(map[*kgo.Record]*outcome)
	for _, q := range txn.commits {
		txn.events += len(q.outcomes)
		for i := range q.outcomes {
			if r := c.buildOutput(&q.outcomes[i]); r != nil {
				records = append(records, r)
				source[r] = &q.outcomes[i]
			}
		}
	}
	result, err := c.session.Commit(records, txn)
	c.metrics.Transactions.WithLabelValues(result.String()).Inc()
	switch {
	case result == session.Committed:
		c.onCommitted(txn.commits)
		return nil
	case txn.failed != nil:
		return txn.failed
	case result == session.Aborted:
		return c.onAborted(txn.commits, source, err)
	}
	return fmt.Errorf("transaction result unknown: %w", err)
}

// buildCommits chooses what goes into the next transaction: everything that is
// completed, as far as it fits and the topics accept it. The queue sees to it that
// no partition is left out for ever.
func (c *conductor) buildCommits() []*partitionCommit {
	var commits []*partitionCommit
	var used []*partition
	now := time.Now()
	suspect, most := c.chooseSuspects()
	total, left, full := 0, most, false
	queue := c.queue
	c.queue = nil
	for _, p := range queue {
		p.queued = false
		if full || most > 0 && left == 0 || c.lost(p) {
			c.account(p) // which puts it back, unless it is lost
			continue
		}
		q := c.buildCommit(p, suspect, left)
		if full = total+c.commitBytes(q) > maxCommitBytes; full {
			c.account(p)
			continue
		}
		used = append(used, p)
		p.completed = q.rest
		if q.noRoom {
			p.noRoomUntil = now.Add(metadataWait)
		}
		if len(q.outcomes) > 0 || p.commitProgress {
			p.committing = len(q.outcomes)
			total += c.commitBytes(q)
			left -= len(q.outcomes)
			commits = append(commits, q)
		}
	}
	for _, p := range used {
		c.account(p)
	}
	switch {
	case c.totals.completed == 0:
		c.completedSince = time.Time{}
	case full: // the rest goes at once
		c.completedSince = now.Add(-c.cfg.CommitInterval)
	default: // it has its turn next
		c.completedSince = now
	}
	return commits
}

// commitBytes returns what a commit takes of the broker's limit for one
// transaction: its record in the offsets topic has the group, the topic, the
// metadata and less than 80 bytes besides.
func (c *conductor) commitBytes(q *partitionCommit) int {
	return len(c.cfg.Group) + len(q.part.topic) + len(q.offset.Metadata) + 80
}

// chooseSuspects decides whether the next transaction is one of suspects, and how
// many outcomes it may hold (0: any number).
func (c *conductor) chooseSuspects() (suspect bool, most int) {
	healthy, suspects := 0, 0
	for _, p := range c.queue {
		if c.lost(p) {
			continue
		}
		n := 0
		for i := range p.completed {
			if p.completed[i].suspect {
				n++
			}
		}
		suspects += n
		healthy += len(p.completed) - n
	}
	if !c.suspects.turn(healthy, suspects) {
		return false, c.maxPerTxn
	}
	return true, c.suspects.max
}

// buildCommit returns the largest commit of a partition whose metadata fits, of
// at most so many outcomes (not above 0: any number) that are suspects or that
// are not. It may have none.
func (c *conductor) buildCommit(p *partition, suspect bool, most int) *partitionCommit {
	slices.SortFunc(p.completed, func(a, b outcome) int { return cmp.Compare(a.rec.Offset, b.rec.Offset) })
	chosen, offsets := make([]outcome, 0, len(p.completed)), make([]int64, 0, len(p.completed))
	var rest []outcome
	for _, o := range p.completed {
		if o.suspect == suspect && (most <= 0 || len(chosen) < most) {
			chosen, offsets = append(chosen, o), append(offsets, o.rec.Offset)
		} else {
			rest = append(rest, o)
		}
	}
	n, done, metadata := fitMetadata(p.tracker, c.session.TopicID(p.topic), offsets, c.metadataLimit)
	q := &partitionCommit{part: p, outcomes: chosen[:n:n], rest: append(rest, chosen[n:]...), offsets: offsets[:n], noRoom: n < len(chosen)}
	if n == 0 {
		if !p.commitProgress {
			return q
		}
		done = p.tracker.after(nil)
		metadata = progress.Encode(c.session.TopicID(p.topic), done)
	}
	q.progress = done
	q.offset = session.Offset{Topic: p.topic, Partition: p.partition, Offset: done.Base, Epoch: p.epoch, Metadata: metadata}
	return q
}

// retryNoRoom tries to commit what had no room, when its time has come.
func (c *conductor) retryNoRoom(p *partition, now time.Time) {
	if p.noRoomUntil.IsZero() || now.Before(p.noRoomUntil) {
		return
	}
	p.noRoomUntil = time.Time{}
	if c.completedSince.IsZero() {
		c.completedSince = now
	}
	c.account(p)
}

// fitMetadata finds how many of the completed offsets can be committed within
// limit bytes of metadata. What does not fit are the highest, above the widest gaps.
func fitMetadata(t *tracker, topic [16]byte, completed []int64, limit int) (n int, p progress.Progress, metadata string) {
	try := len(completed) // nearly always all of them fit
	for low, high := 0, len(completed)+1; high-low > 1; try = (low + high) / 2 {
		after := t.after(completed[:try])
		if m := progress.Encode(topic, after); len(m) <= limit {
			n, p, metadata = try, after, m
			low = try
		} else {
			high = try
		}
	}
	return n, p, metadata
}

// buildOutput makes the output record of an outcome, again for every try; nil: it
// has none.
func (c *conductor) buildOutput(o *outcome) *kgo.Record {
	switch {
	case o.skipped:
		return nil
	case o.failure != nil && o.withoutPayload:
		return c.records.DeadLetterWithoutPayload(o.rec, o.failure)
	case o.failure != nil:
		return c.records.DeadLetter(o.rec, o.failure)
	}
	rec := c.records.Enriched(o.rec, producer.Enrichment{
		CallID: o.callID, Encoded: o.Encoded, RecordSource: o.source.Record(), Cache: o.source.String(), RequestID: o.RequestID,
	})
	if o.withoutPayload || !c.records.Fits(rec) {
		o.failure = &schemas.Failure{
			Reason:  schemas.Internal,
			Message: fmt.Sprintf("the enriched record of %d bytes is larger than topic %q accepts", len(rec.Value), rec.Topic),
		}
		o.withoutPayload = false
		return c.records.DeadLetter(o.rec, o.failure)
	}
	return rec
}

// onCommitted marks the events of a transaction as completed.
func (c *conductor) onCommitted(commits []*partitionCommit) {
	c.abortsInARow = 0
	if c.maxPerTxn > 0 {
		// Additive and multiplicative increase, an eighth at a time: back to any
		// number within about sixty transactions, after the quarter of shrinkTransactions.
		if c.maxPerTxn += 1 + c.maxPerTxn/8; c.maxPerTxn >= c.cfg.MaxInFlight {
			c.maxPerTxn = 0
		}
	}
	largest := 0
	for _, q := range commits {
		for _, o := range q.outcomes {
			c.count(o)
		}
		q.part.tracker.commit(q.offsets, q.progress)
		q.part.commitProgress = false
		q.part.committing = 0
		q.part.lastCommit = q.offset
		c.account(q.part)
		largest = max(largest, len(q.offset.Metadata))
		c.throttlePartition(q.part, len(q.offset.Metadata))
	}
	c.metrics.MetadataBytes.Set(float64(largest))
}

// throttlePartition pauses fetching of a partition whose metadata passes three
// quarters of the limit, so that what is in flight still fits, and resumes it
// below half.
func (c *conductor) throttlePartition(p *partition, metadataBytes int) {
	switch {
	case !p.fetchPaused && metadataBytes > c.metadataLimit*3/4:
		p.fetchPaused = true
		c.session.Pause(p.topic, p.partition)
	case p.fetchPaused && metadataBytes < c.metadataLimit/2:
		p.fetchPaused = false
		c.resume(p)
	}
}

// count is called once for each event, when its outcome is known to be committed.
func (c *conductor) count(o outcome) {
	switch {
	case o.skipped:
		c.skipped.Inc()
	case o.failure != nil:
		c.metrics.Events.WithLabelValues(outcomeDeadLetter, string(o.failure.Reason)).Inc()
	default:
		c.enriched.Inc()
		c.sources[o.source.Record()].Inc()
	}
	c.metrics.EventSeconds.Observe(time.Since(o.at).Seconds())
}

// onAborted handles a transaction that the client reports as aborted. It may
// report an unknown result so; hence the committed offsets are fetched before
// anything is produced again.
func (c *conductor) onAborted(commits []*partitionCommit, source map[*kgo.Record]*outcome, err error) error {
	c.abortsInARow++
	var refused *session.RefusedError
	switch {
	case producer.IsFenced(err):
		return err
	case errors.As(err, &refused):
		c.onRefused(refused, source, time.Now())
	case errors.Is(err, kerr.OffsetMetadataTooLarge):
		c.metadataLimit = c.metadataLimit * 3 / 4 // the broker does not report its limit
		c.log.Warn("offset metadata rejected as too large; set offset.metadata.max.bytes=4096",
			zap.Int("next_limit_bytes", c.metadataLimit))
	}
	if c.abortsInARow >= maxAborts {
		return fmt.Errorf("%d transactions in a row aborted, the last one: %w", c.abortsInARow, cmp.Or(err, errRebalance))
	}
	c.log.Info("transaction aborted, fetching committed offsets", zap.Int("in_a_row", c.abortsInARow), zap.Error(err))
	for _, q := range commits {
		q.part.lastCommit = q.offset
		q.part.completed = append(q.outcomes, q.part.completed...)
		q.part.setRefusedAside(time.Now())
		q.part.noRoomUntil = time.Time{}
		q.part.committing = 0
		c.account(q.part)
	}
	c.membership.busy.Store(true)
	c.session.AllowRebalance()
	err = c.refetchCommitted(commits)
	c.membership.busy.Store(false)
	if err != nil {
		return err
	}
	if c.totals.completed > 0 {
		c.completedSince = time.Now()
	}
	return nil
}

var errRebalance = errors.New("aborted by a rebalance")
