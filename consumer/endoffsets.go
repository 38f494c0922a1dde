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
)

// refreshEndOffsets asks the broker from time to time where the input partitions
// end, and at once after each join.
func (c *conductor) refreshEndOffsets(ctx context.Context, s *session.Session) {
	timer := time.NewTimer(endOffsetInterval)
	defer timer.Stop()
	for {
		request, cancel := context.WithTimeout(ctx, endOffsetTimeout)
		ends, err := s.EndOffsets(request)
		cancel()
		c.endOffsets.set(ends)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("failed to list some end offsets; backlog may be too low", zap.Error(err))
		}
		timer.Reset(endOffsetInterval)
		select {
		case <-ctx.Done():
			return
		case <-c.membership.assigned:
		case <-timer.C:
		}
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
