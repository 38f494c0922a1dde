package consumer

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/session"
	"enricher/fetch/lookup"
	"enricher/fetch/mailbox"
)

const (
	// pollWait is how long a poll lasts at most. It ends earlier when there is
	// something to do, so this is only how often the gauges are looked at.
	pollWait = time.Second
	// drainWait is the same while draining, all partitions or some.
	drainWait = 20 * time.Millisecond
	// shortestWait keeps a poll from returning without a look at what was fetched.
	shortestWait = time.Millisecond

	gaugeInterval = time.Second
)

// conductor drives one session on one goroutine: it owns the session and all
// trackers. What others hand over (outcomes, assignments, end offsets) it takes
// in at its own pace.
type conductor struct {
	*Consumer
	session    *session.Session
	membership *membership

	parts        map[topicPartition]*partition
	byAssignment map[uint64]*partition // the same partitions
	// account derives these from the partitions.
	totals  totals
	queue   []*partition            // with something to commit, the first to have it first; lost ones included
	waiting map[*partition]struct{} // for a time at which there is something to do

	reserved    load            // for each partition, of what may be in flight
	reservedFor int             // so many partitions
	toLookUp    []*lookup.Event // of the batch being admitted

	completedSince time.Time // since when the oldest completed event waits for its transaction; zero: none does
	fetchPaused    bool      // for lack of room
	handover       handover
	draining       bool
	drained        bool // nothing will be completed any more
	abortsInARow   int
	maxPerTxn      int // events in a transaction, since a topic refused a batch for its size; 0: any number
	suspects       suspects
	unavailable    map[string]error // input topics that cannot be consumed
	topicChanges   *mailbox.Mailbox[session.TopicChange]
	listing        atomic.Pointer[listing] // the last one; nil before the first
	nextGauges     time.Time
	full           time.Time // when there was no room for events, at last
	nextShare      time.Time // when resumeOverShare is due
	nextLossCheck  time.Time // when dropLost is due
}

// afterTurn is called by the conductor at every turn. Only tests set it.
var afterTurn func(*conductor)

// run works until the drain is complete (nil), or the session is of no more use
// (an error).
func (c *conductor) run(ctx context.Context) error {
	defer c.dropAll()
	for {
		c.turn()
		if afterTurn != nil {
			afterTurn(c)
		}
		if ctx.Err() != nil && !c.draining {
			c.draining = true
			c.scheduler.Drain()
			c.log.Info("draining: waiting for in-flight requests")
		}
		drained := c.draining && isClosed(c.scheduler.Drained())
		if drained && !c.drained {
			c.drained = true
			for p := range c.waiting { // the last time
				c.retryNoRoom(p, p.noRoomUntil)
			}
		}

		if !c.handingOver(time.Now()) {
			c.session.AllowRebalance()
		}
		c.collectOutcomes() // they may be due before anything is fetched
		fetches := c.poll(ctx)
		c.syncAssignments()
		for _, t := range c.topicChanges.Take() {
			c.onTopicChange(t)
		}
		now := time.Now()
		if err := c.admitFetches(fetches, now); err != nil {
			return err
		}
		c.collectOutcomes()
		c.retryWaiting(now)
		c.updateGauges(now)
		if drained && c.totals.completed == 0 {
			return nil
		}
		if (c.due(now) || drained) && !c.membership.joining() {
			if err := c.commit(); err != nil {
				return err
			}
		}
	}
}

// poll fetches events, as many as there is room for, until a transaction is
// due. Without room or while draining it fetches none, but blocks rebalances
// like any other poll.
func (c *conductor) poll(ctx context.Context) kgo.Fetches {
	room := c.room(0)
	if c.draining {
		room = 0
		ctx = context.Background()
	}
	due := c.due(time.Now()) && !c.membership.joining()
	c.throttleFetch(room, due)

	ctx, wake := context.WithTimeout(ctx, c.pollDuration(due))
	var waker sync.WaitGroup
	defer waker.Wait() // so that it takes no signal that is meant for the next poll
	defer wake()
	waker.Go(func() { c.wakePoll(ctx, wake) })
	return c.session.Poll(ctx, c.pollLimit(room))
}

// pollDuration returns how long the next poll may last.
func (c *conductor) pollDuration(due bool) time.Duration {
	wait := pollWait
	if due {
		wait = shortestWait
	} else if c.totals.completed > 0 && !c.membership.joining() {
		wait = max(time.Until(c.completedSince.Add(c.cfg.CommitInterval)), shortestWait)
	}
	if c.draining || c.handover.parts != nil {
		wait = min(wait, drainWait)
	}
	return wait
}

// wakePoll ends a poll when a join is over, or when an outcome has come from the
// scheduler and has waited for Config.CommitInterval.
func (c *conductor) wakePoll(ctx context.Context, wake func()) {
	select {
	case <-ctx.Done():
		return
	case <-c.membership.joined:
	case <-c.scheduler.Outcomes().Ready():
		select {
		case <-ctx.Done():
		case <-time.After(c.cfg.CommitInterval):
		}
	}
	wake()
}

// admitFetched admits events that the client has fetched already, while the
// broker works on a transaction with inTransaction others. They have no part in it.
func (c *conductor) admitFetched(inTransaction int) error {
	room := c.room(inTransaction)
	if room <= 0 || c.fetchPaused || c.draining {
		return nil
	}
	fetches := c.session.PollFetched(c.pollLimit(room))
	c.syncAssignments()
	return c.admitFetches(fetches, time.Now())
}

// due reports whether it is time for a transaction: an event has waited long
// enough, or half of the room is taken by completed events.
func (c *conductor) due(now time.Time) bool {
	if c.totals.progress > 0 {
		return true
	}
	n := c.totals.completed
	return n > 0 && (n >= c.cfg.MaxInFlight/2 || now.Sub(c.completedSince) >= c.cfg.CommitInterval)
}

// admitFetches admits what was polled.
func (c *conductor) admitFetches(fetches kgo.Fetches, now time.Time) error {
	var failed error
	var polled []*partition
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if failed == nil && len(f.Records) > 0 {
			var p *partition
			if p, failed = c.admitPartition(&f, now); p != nil {
				polled = append(polled, p)
			}
		}
	})
	c.pauseOverShare(polled)
	// After the records: those of a partition come before its error.
	fetches.EachError(func(topic string, p int32, err error) {
		if failed == nil {
			failed = c.pollError(topicPartition{topic, p}, err, now)
		}
	})
	return failed
}

// collectOutcomes takes the outcomes of the scheduler. One of a partition that
// was lost meanwhile, or of an event that turned out to be completed, is discarded.
func (c *conductor) collectOutcomes() {
	for _, o := range c.scheduler.Outcomes().Take() {
		rec := o.Event.Source.(*kgo.Record)
		p := c.byAssignment[o.Event.Assignment]
		if p != nil && p.tracker.isPending(rec.Offset) {
			c.complete(p, outcome{
				rec: rec, at: o.Event.Time, callID: o.Event.CallID,
				Entry: o.Entry, source: o.Source, failure: o.Failure,
			}, o.Completed)
		}
	}
}

// complete keeps the outcome of an event, completed at that time, for the next
// transaction.
func (c *conductor) complete(p *partition, o outcome, at time.Time) {
	if c.completedSince.IsZero() {
		c.completedSince = at
	}
	p.completed = append(p.completed, o)
	c.account(p)
}

// updateGauges sets the metrics that are derived from the state.
func (c *conductor) updateGauges(now time.Time) {
	if now.Before(c.nextGauges) {
		return
	}
	c.nextGauges = now.Add(gaugeInterval)
	backlog, completed, oldest := 0, 0, now.UnixMilli()
	unread := make(map[topicPartition]offsetRange)
	c.observeLogs(now)
	c.refetchStalled(now)
	for tp, p := range c.parts {
		completed += len(p.completed)
		backlog += len(p.tracker.pending) - len(p.completed) + int(p.unread(p.log.End))
		if p.blocked == nil && p.tracker.head >= 0 && p.tracker.head < p.log.Stable {
			unread[tp] = offsetRange{p.tracker.head, p.log.Stable}
		}
		p.commitProgress = p.commitProgress || p.tracker.passedAll()
		c.account(p)
		for _, e := range p.tracker.pending {
			oldest = min(oldest, e.at)
		}
	}
	c.scout.set(c.session, unread)
	perSecond := c.limiter.PerSecond(now)
	drain := 0.0
	if backlog > 0 && perSecond == 0 {
		drain = math.Inf(1)
	} else if backlog > 0 {
		drain = float64(backlog) / perSecond
	}
	c.metrics.Backlog.Set(float64(backlog))
	c.metrics.TimeToDrain.Set(drain)
	c.metrics.RateLimit.Set(perSecond)
	c.metrics.OldestEvent.Set(float64(now.UnixMilli()-oldest) / 1000)
	blocked, counts := c.blockedConditions(now)
	for _, r := range BlockReasons() {
		c.metrics.Blocked.WithLabelValues(string(r)).Set(float64(counts[r]))
	}
	c.metrics.Lookup.InFlight.WithLabelValues(lookup.StateCompleted).Set(float64(completed))
	c.setConditions(func(s *conditions) { s.blocked = blocked })
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
