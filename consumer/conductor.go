package consumer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/producer"
)

// Waits of the conductor. A poll ends earlier when there is something to do.
const (
	pollWait  = time.Second
	drainWait = 20 * time.Millisecond
	tickEvery = time.Second
)

// conductor drives one session: it owns the session and all trackers, and runs
// on one goroutine. What others hand over (finished results, births, ends of
// the log) it takes in at its own pace.
type conductor struct {
	*Consumer
	session *producer.Session
	joining *joining

	parts map[topicPartition]*partition
	live  map[uint64]*partition // the same, by incarnation
	asks  []*event              // of the batch being admitted

	readySince time.Time // since when the oldest ready result waits; zero: none did since the last transaction
	full       bool      // fetching is paused for want of room
	draining   bool
	aborts     int // transactions in a row that did not commit
	atMost     int // results in a transaction, since a topic refused a batch for its size; 0: any number
	nextTick   time.Time
}

// run works until the drain is complete (nil), or the session is of no more
// use (an error).
func (c *conductor) run(ctx context.Context) error {
	defer c.dropAll()
	for {
		if ctx.Err() != nil && !c.draining {
			c.draining = true
			c.lookups.stopStarting()
			c.log.Info("draining: waiting for the requests on the wire")
		}
		drained := c.draining && isClosed(c.lookups.drained())

		c.session.AllowRebalance()
		fetches := c.poll(ctx)
		if err := c.reconcile(); err != nil {
			return err
		}
		now := time.Now()
		if err := c.take(fetches, now); err != nil {
			return err
		}
		c.takeResults()
		c.tick(now)
		if drained && c.readyCount() == 0 {
			return nil
		}
		if (c.due(now) || drained) && !c.joining.now() {
			if err := c.commit(); err != nil {
				return err
			}
			if drained && (c.aborts == 0 || c.readyCount() == 0) {
				return nil
			}
		}
	}
}

// poll fetches events, as many as there is room for, until results are due.
// With no room or in a drain it fetches none, but holds rebalances back like
// any other poll.
func (c *conductor) poll(ctx context.Context) kgo.Fetches {
	room := c.room(0)
	if c.draining {
		room = 0
	}
	due := c.due(time.Now()) && !c.joining.now()
	// With hysteresis: what is buffered of a paused partition is dropped and
	// fetched again. A transaction that is due will make room.
	switch {
	case room <= 0 && !c.full && (!due || c.draining):
		c.session.PauseAll()
		c.full = true
	case c.full && room > c.cfg.MaxInFlight/4:
		c.session.ResumeAll()
		c.full = false
	}

	if c.draining {
		ctx = context.Background()
	}
	ctx, wake := context.WithCancel(ctx)
	defer wake()
	defer c.inbox.wakeWith(wake)()
	defer c.joining.wakeWith(wake)()
	wait := pollWait
	if due {
		// Not in the past: such a poll would return nothing, time and again.
		wait = time.Millisecond
	} else if c.readyCount() > 0 && !c.joining.now() {
		wait = max(time.Until(c.readySince.Add(c.cfg.CommitInterval)), time.Millisecond)
	}
	if c.draining {
		wait = min(wait, drainWait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return c.session.Poll(ctx, max(room, 1))
}

// admitMore takes in events that the client has fetched already, while the
// broker works on a transaction with so many others. They have no part in it.
func (c *conductor) admitMore(inTransaction int) error {
	room := c.room(inTransaction)
	if room <= 0 || c.full || c.draining {
		return nil
	}
	fetches := c.session.PollFetched(room)
	if err := c.reconcile(); err != nil {
		return err
	}
	return c.take(fetches, time.Now())
}

// room is how many more events may be admitted, beyond those of an open
// transaction.
func (c *conductor) room(inTransaction int) int {
	events, bytes := -inTransaction, int64(0)
	for _, p := range c.parts {
		events += len(p.tracker.pending)
		bytes += p.tracker.bytes
	}
	if bytes >= c.cfg.MaxInFlightBytes {
		return 0
	}
	return c.cfg.MaxInFlight - events
}

func (c *conductor) readyCount() int {
	n := 0
	for _, p := range c.parts {
		n += len(p.ready)
	}
	return n
}

// due says whether it is time for a transaction.
func (c *conductor) due(now time.Time) bool {
	n := c.readyCount()
	return n > 0 && (n >= c.cfg.MaxInFlight/2 || now.Sub(c.readySince) >= c.cfg.CommitInterval)
}

// take admits what was polled.
func (c *conductor) take(fetches kgo.Fetches, now time.Time) error {
	var failed error
	fetches.EachError(func(topic string, p int32, err error) {
		if err := c.pollError(topicPartition{topic, p}, err); err != nil {
			failed = err
		}
	})
	if failed != nil {
		return failed
	}
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if failed == nil && len(f.Records) > 0 {
			failed = c.admit(&f, now)
		}
	})
	return failed
}

// pollError says whether an error that was polled ends the session.
func (c *conductor) pollError(tp topicPartition, err error) error {
	var group *kgo.ErrGroupSession
	var loss *kgo.ErrDataLoss
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		// The client joins again for ever.
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
		// Retriable for the client, which asks for the old topic for ever.
	case errors.As(err, &loss), errors.As(err, &group), kerr.IsRetriable(err):
		c.sometimes.Do(func() { c.log.Warn("Kafka client", zap.Stringer("partition", tp), zap.Error(err)) })
		return nil
	}
	return fmt.Errorf("poll %v: %w", tp, err)
}

// takeResults takes what the lookups have finished. A result of a partition
// that was lost meanwhile, or of an event that turned out to be done, is
// nobody's any more.
func (c *conductor) takeResults() {
	results, since := c.inbox.take()
	for _, r := range results {
		p := c.live[r.event.inc]
		if p != nil && p.tracker.isPending(r.event.rec.Offset) {
			c.finish(p, r, since)
		}
	}
}

// finish notes a result that is ready to be committed since then.
func (c *conductor) finish(p *partition, r result, since time.Time) {
	if c.readySince.IsZero() {
		c.readySince = since
	}
	p.ready = append(p.ready, r)
}

// tick sets the gauges that are derived from the state.
func (c *conductor) tick(now time.Time) {
	if now.Before(c.nextTick) {
		return
	}
	c.nextTick = now.Add(tickEvery)
	var backlog, refused int
	oldest := now.UnixMilli()
	for tp, p := range c.parts {
		if p.refused != nil {
			refused++
		}
		p.end = max(p.end, c.ends.of(tp))
		backlog += len(p.tracker.pending) - len(p.ready)
		if p.tracker.head >= 0 {
			backlog += int(max(0, p.end-p.tracker.head))
		}
		for _, e := range p.tracker.pending {
			oldest = min(oldest, e.at)
		}
	}
	rate := c.quota.PerSecond()
	drain := 0.0
	if backlog > 0 && rate == 0 {
		drain = math.Inf(1)
	} else if backlog > 0 {
		drain = float64(backlog) / rate
	}
	c.metrics.Backlog.Set(float64(backlog))
	c.metrics.TimeToDrain.Set(drain)
	c.metrics.QuotaShare.Set(rate)
	c.metrics.OldestEvent.Set(float64(now.UnixMilli()-oldest) / 1000)
	c.metrics.Refused.Set(float64(refused))
	c.metrics.InFlight.WithLabelValues("finished").Set(float64(c.readyCount()))
	c.publishRefused()
}

// publishRefused tells readiness of the partitions that are refused.
func (c *conductor) publishRefused() {
	var refused []string
	for tp, p := range c.parts {
		if p.refused != nil {
			refused = append(refused, fmt.Sprintf("partition %v is refused: %v", tp, p.refused))
		}
	}
	slices.Sort(refused)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = refused
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
