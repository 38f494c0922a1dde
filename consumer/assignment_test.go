package consumer

import (
	"testing"

	"enricher/consumer/progress"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The records polled below the committed offset show whether the log is another one.
func TestDetectReplacedLog(t *testing.T) {
	records := func(epochs ...int32) []*kgo.Record { // from offset 2 on
		var rs []*kgo.Record
		for i, e := range epochs {
			rs = append(rs, &kgo.Record{Offset: int64(2 + i), LeaderEpoch: e})
		}
		return rs
	}
	for name, c := range map[string]struct {
		epoch   int32
		records []*kgo.Record
		from    int64 // −1: the same log
	}{
		"nothing polled before":           {-1, records(0, 0), 2},
		"a broker that reports no epoch":  {-1, records(-1), 2},
		"delivered again":                 {7, records(7, 7), -1},
		"written before, by another":      {7, records(5, 6, 7), -1},
		"a new leader's records":          {7, records(8, 8), 2},
		"old records, then new":           {7, records(6, 7, 8), 4},
		"new records only above the base": {7, records(7, 7, 7, 8), -1},
		"a later leader's, from base":     {7, records(7, 7, 7, 9), -1},
	} {
		p := partition{tracker: newTracker(progress.Progress{Base: 5}), epoch: c.epoch}
		from, found := p.firstReplacedOffset(c.records)
		if !found {
			from = -1
		}
		if from != c.from {
			t.Errorf("%s: from %d, want %d", name, from, c.from)
		}
	}
}
