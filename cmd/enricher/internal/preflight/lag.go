package preflight

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"enricher/consumer"
	"enricher/consumer/progress"
	"enricher/consumer/session"
)

// progress compares what is committed with where the logs begin and end.
func (l *look) progress(ctx context.Context, committed []session.Offset) {
	inputs := l.inputs()
	if len(inputs) == 0 {
		l.skip(checkOffsets, l.cfg.Group, "no input topic can be seen")
		l.skip(checkLag, l.cfg.Group, "no input topic can be seen")
		return
	}
	at := map[string]map[int32]session.Offset{}
	for _, o := range committed {
		if at[o.Topic] == nil {
			at[o.Topic] = map[int32]session.Offset{}
		}
		at[o.Topic][o.Partition] = o
	}
	var sum resumable
	for _, t := range inputs {
		starts, ends, err := l.logs(ctx, t.name)
		if err != nil {
			l.skip(checkLag, t.name, "%v", err)
			continue
		}
		lag := int64(0)
		for p := range int32(t.partitions) {
			o, ok := at[t.name][p]
			if !ok {
				o.Offset = -1
			}
			o.Topic, o.Partition = t.name, p
			lag += ends[p] - sum.take(t.id, o, starts[p], ends[p], l.cfg.Start)
		}
		t.judgeLag(&l.Report, lag, l.cfg.APIRate)
	}
	sum.judge(&l.Report, l.cfg.Group, l.cfg.Start)
}

// logs is where the partitions of a topic begin, and where they end for a
// read_committed reader.
func (l *look) logs(ctx context.Context, topic string) (starts, ends map[int32]int64, err error) {
	err = l.step(ctx, func(ctx context.Context) error {
		adm := kadm.NewClient(l.cl)
		first, err := adm.ListStartOffsets(ctx, topic)
		if err != nil {
			return err
		}
		last, err := adm.ListCommittedOffsets(ctx, topic)
		if err != nil {
			return err
		}
		starts, err = byPartition(first)
		if err == nil {
			ends, err = byPartition(last)
		}
		return err
	})
	return starts, ends, err
}

func byPartition(listed kadm.ListedOffsets) (map[int32]int64, error) {
	m := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { m[o.Partition] = o.Offset })
	return m, listed.Error()
}

// take counts one partition and returns the offset from which the service would
// go on. It is pure.
func (s *resumable) take(id [16]byte, o session.Offset, start, end int64, policy consumer.AutoOffsetReset) int64 {
	s.partitions++
	if o.Offset < 0 {
		s.missing++
		if policy == consumer.Latest {
			return end
		}
		return start
	}
	s.committed++
	if progress.CommittedForOldTopic(id, o.Metadata) {
		s.obsolete++
		return start
	}
	if _, err := progress.Decode(id, o.Offset, o.Metadata); err != nil {
		s.refused = append(s.refused, fmt.Sprintf("%s[%d]: %v", o.Topic, o.Partition, err))
	}
	if o.Offset > end {
		s.beyond++
		return start
	}
	if o.Offset < start {
		s.lost += start - o.Offset
		return start
	}
	return o.Offset
}

// judgeLag says how long the service needs for what waits in a topic. It is pure.
func (t *topic) judgeLag(r *Report, lag int64, rate float64) {
	found := count(lag, "event") + " to read"
	if lag == 0 || rate == 0 {
		r.ok(checkLag, t.name, "%s", found)
		return
	}
	drain := time.Duration(math.Min(float64(lag)/rate, math.MaxInt64/1e9/2) * float64(time.Second))
	// A call that was seen before costs no request, so it is not more than this.
	found += fmt.Sprintf(", %s at most at %v calls a second", span(drain), rate)
	kept, limited := t.retention()
	switch {
	case limited && drain > kept:
		r.add(checkLag, t.name, Warning, found+fmt.Sprintf(": the last of them may be deleted before it is read, after %s", span(kept)),
			t.alter("retention.ms", "-1")+" until they are read, and a higher quota if there is one")
	case drain > apiRetention:
		r.add(checkLag, t.name, Warning, found+": the API keeps a call for about 7 days, so the last ones will not be found",
			"a higher quota, if there is one")
	default:
		r.ok(checkLag, t.name, "%s", found)
	}
}
