package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/consumer/session"
)

// BlockReason says why a partition is not consumed while others are.
type BlockReason string

// The reasons. A blocked partition is not fetched, is tried again from time to
// time, and is named in readiness and in a metric.
const (
	IncompatibleMetadata BlockReason = "incompatible_metadata" // a newer version wrote its offset metadata
	OffsetUnavailable    BlockReason = "offset_unavailable"    // the broker does not return where to start
	NoCommittedOffset    BlockReason = "no_committed_offset"   // there is none, and Config.AutoOffsetReset is None
	UnreadableBatch      BlockReason = "unreadable_batch"      // a batch is damaged or too large to unpack
	FetchFailed          BlockReason = "fetch_failed"          // the broker refuses to return records
	TopicUnavailable     BlockReason = "topic_unavailable"     // the topic is deleted or forbidden
	Stalled              BlockReason = "stalled"               // nothing comes, though there is more and no error
	OpenTransaction      BlockReason = "open_transaction"      // another program's; what lies behind cannot be read
	UnreadableEvents     BlockReason = "unreadable_events"     // too many malformed events in a row; the next ones are only read ahead
	OutputRefused        BlockReason = "output_refused"        // a topic does not accept an output; only this event waits
)

// BlockReasons returns all reasons.
func BlockReasons() []BlockReason {
	return []BlockReason{IncompatibleMetadata, OffsetUnavailable, NoCommittedOffset, UnreadableBatch, FetchFailed, TopicUnavailable,
		Stalled, OpenTransaction, UnreadableEvents, OutputRefused}
}

// Pauses between two tries of what is blocked: a broker's restart takes seconds, a
// repair minutes. A try of a damaged batch costs one repeated fetch per broker.
const (
	minBlockRetry = time.Second
	maxBlockRetry = time.Minute
	// fetchGrace is for how long a partition that is fetched again still counts as
	// blocked, if nothing comes: longer than a fetch takes.
	fetchGrace = 5 * time.Second
)

// block is why a partition, or an event, is not processed now.
type block struct {
	reason  BlockReason
	detail  string
	err     error // of a refused output
	retryAt time.Time
	retry   time.Duration // the next pause
}

// again returns the block for another failure: old is the last one, nil at first.
func (old *block) again(reason BlockReason, detail string, now time.Time) *block {
	b := &block{reason: reason, detail: detail, retry: minBlockRetry}
	if old != nil && old.reason == reason {
		b.retry = min(2*old.retry, maxBlockRetry)
	}
	b.retryAt = now.Add(b.retry)
	return b
}

// block stops consuming a partition. It is called in the same turn as the error was
// polled: the client would repeat the fetch thousands of times a second.
func (c *conductor) block(p *partition, reason BlockReason, detail string, now time.Time) {
	if reason != UnreadableEvents {
		c.session.Pause(p.topic, p.partition)
	}
	if p.blocked == nil && (p.lastBlock == nil || p.lastBlock.reason != reason || p.lastBlock.detail != detail) {
		c.log.Error("partition blocked", zap.Stringer("partition", p.topicPartition),
			zap.String("reason", string(reason)), zap.String("detail", detail), zap.Int64("offset", p.tracker.head))
	}
	p.blocked = p.lastBlock.again(reason, detail, now)
	p.lastBlock = p.blocked
	c.account(p)
}

// retryWaiting tries what is blocked, refused or had no room, when its time has come.
func (c *conductor) retryWaiting(now time.Time) {
	c.resumeOverShare(now)
	resolve := make(map[string][]int32)
	seek := make(map[string]map[int32]int64)
	var resumed []*partition
	for p := range c.waiting {
		c.retryRefused(p, now)
		c.retryNoRoom(p, now)
		if p.blocked == nil || now.Before(p.blocked.retryAt) {
			continue
		}
		switch {
		case p.blocked.reason == IncompatibleMetadata: // until it is assigned again
		case p.blocked.reason == UnreadableEvents && p.unreadable.parsable < p.tracker.head: // until one can be parsed
		case p.unresolved:
			p.blocked.retryAt = now.Add(maxBlockRetry) // the result comes earlier
			resolve[p.topic] = append(resolve[p.topic], p.partition)
		default:
			if seek[p.topic] == nil {
				seek[p.topic] = make(map[int32]int64)
			}
			seek[p.topic][p.partition] = p.tracker.head
			resumed = append(resumed, p)
		}
	}
	if len(resolve) > 0 {
		c.session.Resolve(resolve)
	}
	if len(seek) > 0 {
		c.session.Seek(seek)
	}
	for _, p := range resumed {
		p.blocked = nil
		c.account(p)
		c.resume(p)
	}
}

// shownBlock returns why a partition is blocked, for operators; nil: it is not. When
// one is fetched again, only the response shows whether it still is.
func (p *partition) shownBlock(now time.Time) *block {
	b := p.lastBlock
	if p.blocked == nil && b != nil && (b.reason == UnreadableBatch || b.reason == FetchFailed) && now.Before(b.retryAt.Add(fetchGrace)) {
		return b
	}
	return p.blocked
}

// resume resumes fetching of a partition unless it is paused for another reason.
func (c *conductor) resume(p *partition) {
	if p.isFetched() {
		c.session.Resume(p.topic, p.partition)
	}
}

// isFetched reports whether nothing of the partition's own keeps it from being
// fetched.
func (p *partition) isFetched() bool {
	return (p.blocked == nil || p.blocked.reason == UnreadableEvents) && !p.fetchPaused && !p.overShare
}

// pollError handles an error that was polled. It ends the session only if it
// concerns no partition.
func (c *conductor) pollError(tp topicPartition, err error, now time.Time) error {
	var group *kgo.ErrGroupSession
	var loss *kgo.ErrDataLoss
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), session.IsBudget(err):
		return nil
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return fmt.Errorf("poll: %w", err) // the client would join again for ever
	case errors.As(err, &loss), errors.As(err, &group), kerr.IsRetriable(err) && !isUnknownTopic(err):
		c.pollWarning.Do(func() { c.log.Warn("Kafka client error (retrying)", zap.Stringer("partition", tp), zap.Error(err)) })
		return nil
	case tp.topic == "":
		return fmt.Errorf("poll: %w", err)
	}
	reason := FetchFailed
	var refused *kerr.Error
	if !errors.As(err, &refused) || errors.Is(err, kerr.CorruptMessage) {
		reason = UnreadableBatch // the client could not read what the broker returned
	}
	for _, p := range c.parts {
		if p.topic == tp.topic && (p.partition == tp.partition || tp.partition < 0) {
			c.block(p, reason, err.Error(), now)
		}
	}
	return nil
}

func isUnknownTopic(err error) bool {
	return errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

// onTopicChange follows the input topics.
func (c *conductor) onTopicChange(t session.TopicChange) {
	if t.Err == nil {
		delete(c.unavailable, t.Topic)
		c.log.Info("input topic available again", zap.String("topic", t.Topic))
		c.session.Resubscribe(t.Topic, t.ID)
		return
	}
	c.unavailable[t.Topic] = t.Err
	c.log.Error("input topic unavailable", zap.String("topic", t.Topic), zap.Error(t.Err))
	if isUnknownTopic(t.Err) {
		c.session.Unsubscribe(t.Topic)
	}
}

// blockedConditions returns what is blocked, sorted, and counts partitions by reason.
func (c *conductor) blockedConditions(now time.Time) ([]Condition, map[BlockReason]int) {
	var all []Condition
	counts := make(map[BlockReason]int)
	for topic, err := range c.unavailable {
		counts[TopicUnavailable]++
		all = append(all, Condition{Reason: string(TopicUnavailable), Detail: fmt.Sprintf("%s: %v", topic, err)})
	}
	for tp, p := range c.parts {
		if b := p.shownBlock(now); b != nil {
			counts[b.reason]++
			all = append(all, Condition{Reason: string(b.reason), Detail: fmt.Sprintf("%v at offset %d: %s", tp, p.tracker.head, b.detail)})
		}
		for _, s := range p.stallConditions(now) {
			counts[BlockReason(s.Reason)]++
			all = append(all, s)
		}
		if refused := p.refusedOutcomes(); len(refused) > 0 {
			counts[OutputRefused]++
			first := refused[0]
			all = append(all, Condition{string(OutputRefused), fmt.Sprintf("%v: %d events wait, the first at offset %d: %s",
				tp, len(refused), first.rec.Offset, first.refused.detail), first.refused.err})
		}
	}
	slices.SortFunc(all, func(a, b Condition) int { return strings.Compare(a.Reason+a.Detail, b.Reason+b.Detail) })
	return all, counts
}
