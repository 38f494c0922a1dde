package consumer

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"enricher/consumer/session"
)

const (
	// endOffsetInterval is how old the backlog metric may be.
	endOffsetInterval = 10 * time.Second
	endOffsetTimeout  = 5 * time.Second
	// endOffsetRetry is short: the share of the rate limit may wait for it.
	endOffsetRetry = time.Second
)

// refreshEndOffsets asks the broker from time to time where the input partitions
// end, and at once how many there are when this instance's share may grow.
func (c *Consumer) refreshEndOffsets(ctx context.Context, s *session.Session) {
	timer := time.NewTimer(endOffsetInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.membership.grew:
		case <-timer.C:
		}
		next := endOffsetInterval
		request, cancel := context.WithTimeout(ctx, endOffsetTimeout)
		ends, err := s.EndOffsets(request)
		cancel()
		if err == nil {
			c.endOffsets.set(ends)
			n := 0
			for _, t := range ends {
				n += len(t)
			}
			c.membership.setTotal(n)
		} else if ctx.Err() == nil {
			c.log.Warn("failed to list partitions; rate-limit share not increased", zap.Error(err))
			next = endOffsetRetry
		}
		timer.Reset(next)
	}
}

// endOffsets holds the end offsets of the input partitions, as last reported.
type endOffsets struct {
	mu sync.Mutex
	m  map[string]map[int32]int64
}

func (e *endOffsets) set(m map[string]map[int32]int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.m = m
}

// of returns 0 for a partition that is not known.
func (e *endOffsets) of(tp topicPartition) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.m[tp.topic][tp.partition]
}
