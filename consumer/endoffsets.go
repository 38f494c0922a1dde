package consumer

import (
	"context"
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
// start and end, and at once after each join.
func (c *conductor) refreshEndOffsets(ctx context.Context, s *session.Session) {
	timer := time.NewTimer(endOffsetInterval)
	defer timer.Stop()
	for {
		asked := time.Now()
		request, cancel := context.WithTimeout(ctx, endOffsetTimeout)
		ranges, err := s.LogRanges(request)
		cancel()
		if ctx.Err() == nil {
			c.listing.Store(&listing{asked, ranges, err})
		}
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

// listing is what the broker reported about the logs of the input topics.
type listing struct {
	asked  time.Time
	ranges map[string]map[int32]session.LogRange
	err    error // why some are missing
}
