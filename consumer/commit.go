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

	"enricher/producer"
	"enricher/schemas"
)

// maxAborts is how many transactions in a row may fail to commit before a new
// session is tried.
const maxAborts = 10

// portion is what one transaction says about one partition.
type portion struct {
	part     *partition
	results  []result // taken out of part.ready, by offset
	offsets  []int64  // of results
	progress progress // when they are done
	commit   Offset
}

// commit puts the ready results and the offsets that go with them into one
// transaction. An error means that the session is of no more use.
func (c *conductor) commit() error {
	c.readySince = time.Time{}
	plan := c.plan()
	if len(plan) == 0 {
		return nil
	}
	var records []*kgo.Record
	source := make(map[*kgo.Record]*result)
	results := 0
	for _, q := range plan {
		results += len(q.results)
		for i := range q.results {
			if r := c.record(&q.results[i]); r != nil {
				records = append(records, r)
				source[r] = &q.results[i]
			}
		}
	}
	var failed error
	end, err := c.session.Commit(records, func() { failed = c.admitMore(results) }, func() ([]Offset, error) {
		if failed != nil || c.stale(plan) {
			return nil, producer.ErrStale
		}
		offsets := make([]Offset, len(plan))
		for i, q := range plan {
			offsets[i] = q.commit
		}
		return offsets, nil
	})
	switch {
	case end == producer.Committed:
		c.committed(plan)
		return nil
	case failed != nil:
		c.metrics.Transactions.WithLabelValues("aborted").Inc()
		return failed
	case end == producer.NotCommitted:
		return c.notCommitted(plan, source, err)
	}
	c.metrics.Transactions.WithLabelValues("unknown").Inc()
	return fmt.Errorf("result of a transaction unknown: %w", err)
}

// plan chooses what goes into the next transaction: everything that is ready,
// as far as the metadata fits, and a topic takes it.
func (c *conductor) plan() []*portion {
	var plan []*portion
	total, left := 0, c.atMost
	for _, p := range c.parts { // in random order, so that none is left out for ever
		if len(p.ready) == 0 || total >= maxTxnMetadata || c.atMost > 0 && left == 0 {
			continue
		}
		q := c.portion(p, left)
		if q == nil || total+len(q.commit.Metadata) > maxTxnMetadata {
			continue
		}
		total += len(q.commit.Metadata)
		p.ready = slices.Clone(p.ready[len(q.results):])
		left -= len(q.results)
		plan = append(plan, q)
	}
	switch {
	case c.readyCount() == 0:
	case c.atMost > 0:
		c.readySince = time.Now()
	default:
		c.waitForRoom()
	}
	return plan
}

// portion is the largest one of a partition whose metadata fits, of at most so
// many results (0: any number), or nil.
func (c *conductor) portion(p *partition, most int) *portion {
	slices.SortFunc(p.ready, func(a, b result) int { return cmp.Compare(a.event.rec.Offset, b.event.rec.Offset) })
	offsets := make([]int64, len(p.ready))
	if most > 0 {
		offsets = offsets[:min(most, len(offsets))]
	}
	for i := range offsets {
		offsets[i] = p.ready[i].event.rec.Offset
	}
	id := c.session.TopicID(p.topic)
	n, progress, metadata := fit(p.tracker, id, offsets, c.metadataLimit)
	if n == 0 {
		return nil
	}
	return &portion{
		part: p, results: p.ready[:n:n], offsets: offsets[:n], progress: progress,
		commit: Offset{Topic: p.topic, Partition: p.partition, Offset: progress.base, Metadata: metadata},
	}
}

// fit finds how many of the finished offsets can be committed within limit
// bytes of metadata. What does not fit are the highest, above the widest gaps.
func fit(t *tracker, topic [16]byte, finished []int64, limit int) (n int, p progress, metadata string) {
	try := len(finished) // nearly always all of them fit
	for low, high := 0, len(finished)+1; high-low > 1; try = (low + high) / 2 {
		after := t.after(finished[:try])
		if m := encodeMetadata(topic, after); len(m) <= limit {
			n, p, metadata = try, after, m
			low = try
		} else {
			high = try
		}
	}
	return n, p, metadata
}

// waitForRoom keeps results whose metadata fits nowhere from being due at once.
func (c *conductor) waitForRoom() {
	c.readySince = time.Now().Add(metadataWait)
}

const metadataWait = time.Second

// record makes the output of a result, anew for every try; nil: it has none.
func (c *conductor) record(r *result) *kgo.Record {
	switch {
	case r.skipped:
		return nil
	case r.failure != nil && r.oversize:
		return c.outputs.Coordinates(r.event.rec, r.failure)
	case r.failure != nil:
		return c.outputs.DeadLetter(r.event.rec, r.failure)
	}
	rec := c.outputs.Enriched(r.event.rec, r.event.callID, r.value, r.hit, r.requestID)
	if r.oversize || !c.outputs.Fits(rec) {
		r.failure = &producer.Failure{
			Reason:  schemas.Internal,
			Message: fmt.Sprintf("the enriched record of %d bytes is larger than topic %q takes", len(rec.Value), rec.Topic),
		}
		r.oversize = false
		return c.outputs.DeadLetter(r.event.rec, r.failure)
	}
	return rec
}

// committed marks a transaction's results as done.
func (c *conductor) committed(plan []*portion) {
	c.aborts = 0
	if c.atMost > 0 {
		if c.atMost += 1 + c.atMost/8; c.atMost >= c.cfg.MaxInFlight {
			c.atMost = 0
		}
	}
	c.metrics.Transactions.WithLabelValues("committed").Inc()
	widest := 0
	for _, q := range plan {
		p := q.part
		for _, r := range q.results {
			c.count(r)
		}
		p.tracker.commit(q.offsets, q.progress)
		p.proposed = q.commit
		widest = max(widest, len(q.commit.Metadata))
		c.backPressure(p, len(q.commit.Metadata))
	}
	c.metrics.MetadataBytes.Set(float64(widest))
}

// backPressure stops fetching of a partition whose metadata nears the limit,
// and resumes it with hysteresis.
func (c *conductor) backPressure(p *partition, metadata int) {
	switch {
	case !p.paused && metadata > c.metadataLimit*3/4:
		p.paused = true
		c.session.Pause(p.topic, p.partition)
	case p.paused && metadata < c.metadataLimit/2:
		p.paused = false
		c.session.Resume(p.topic, p.partition)
	}
}

// count is called once for each event, when its outcome is known to be committed.
func (c *conductor) count(r result) {
	switch {
	case r.skipped:
		c.skipped.Inc()
	case r.failure != nil:
		c.metrics.Events.WithLabelValues(outcomeDeadLetter, string(r.failure.Reason)).Inc()
	default:
		c.enriched.Inc()
	}
	c.metrics.EventSeconds.Observe(time.Since(r.event.rec.Timestamp).Seconds())
}

// notCommitted deals with an end that did not say committed. The client may
// mask an unknown result so, hence the broker is asked before the next try.
func (c *conductor) notCommitted(plan []*portion, source map[*kgo.Record]*result, err error) error {
	c.metrics.Transactions.WithLabelValues("aborted").Inc()
	c.aborts++
	var tooLarge *producer.TooLargeError
	switch {
	case producer.IsFenced(err):
		return err
	case errors.As(err, &tooLarge):
		c.tooLarge(tooLarge, source)
	case errors.Is(err, kerr.OffsetMetadataTooLarge):
		c.metadataLimit = c.metadataLimit * 3 / 4
		c.log.Warn("the broker takes less offset metadata than usual; set offset.metadata.max.bytes to 4096",
			zap.Int("trying_bytes", c.metadataLimit))
	}
	if c.aborts >= maxAborts {
		return fmt.Errorf("%d transactions in a row did not commit, the last one: %w", c.aborts, cmp.Or(err, errAborted))
	}
	c.log.Info("transaction not committed; asking the broker what is", zap.Int("in_a_row", c.aborts), zap.Error(err))
	for _, q := range plan {
		q.part.proposed = q.commit
		q.part.ready = append(q.results, q.part.ready...)
	}
	c.session.AllowRebalance()
	if err := c.readBack(plan); err != nil {
		return err
	}
	if c.readyCount() > 0 {
		c.readySince = time.Now()
	}
	return nil
}

// tooLarge deals with records that a topic refused for their size. It refuses
// whole batches, and the client does not split them: what one record is to blame
// for shows when it stands alone.
func (c *conductor) tooLarge(err *producer.TooLargeError, source map[*kgo.Record]*result) {
	if len(source) == 1 {
		for _, r := range err.Records {
			source[r].oversize = true
		}
		return
	}
	c.aborts = 0 // there is an advance, if slow
	c.atMost = max(1, len(source)/4)
	c.sometimes.Do(func() {
		c.log.Warn("a topic takes smaller batches than usual, which slows everything down; set its max.message.bytes to 1048588 or more",
			zap.String("topic", err.Records[0].Topic), zap.Int("records_refused", len(err.Records)), zap.Int("records_in_the_next_transaction", c.atMost))
	})
}

var errAborted = errors.New("aborted by a rebalance")
