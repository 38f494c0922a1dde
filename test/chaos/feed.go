package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
	"enricher/schemas"
)

// feeder produces events and keeps the ledger.
type feeder struct {
	stage  *stage
	rng    *rand.Rand // nil: every event is a call of its own
	n      int
	failed chan error // capacity 1
}

func (s *stage) newFeeder(rng *rand.Rand) *feeder {
	return &feeder{stage: s, rng: rng, failed: make(chan error, 1)}
}

// run produces so many events a second, evenly, until ctx ends.
func (f *feeder) run(ctx context.Context, rate int) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return f.flush()
		case <-tick.C:
			f.send()
		}
	}
}

func (f *feeder) flush() error {
	if err := f.stage.client.Flush(context.Background()); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	select {
	case err := <-f.failed:
		return fmt.Errorf("feed: %w", err)
	default:
		return nil
	}
}

func (f *feeder) send() {
	r, e := f.next()
	f.n++
	f.stage.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err != nil {
			select {
			case f.failed <- err:
			default:
			}
			return
		}
		f.stage.ledger.Add(audit.Source{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}, e)
	})
}

// next is the next event, and what must come of it.
func (f *feeder) next() (*kgo.Record, audit.Expect) {
	id := "call-" + strconv.Itoa(f.n)
	r := &kgo.Record{Topic: inTopic}
	var e audit.Expect
	kind := 100
	if f.rng != nil {
		kind = f.rng.IntN(100)
	}
	switch {
	case kind < 2:
		r.Value, e.Reasons = []byte("junk"), []schemas.Reason{schemas.Malformed}
	case kind < 4:
		r.Value = []byte(`{"CallbackCommand":"Call.CallbackAfterStartCall"}`)
	case kind < 6:
		f.stage.api.Never(id)
		r.Value, e.Reasons = fmt.Appendf(nil, `{"CallId":%q}`, id), []schemas.Reason{schemas.NotFound}
		id = "key-of-" + id
	default:
		if kind < 20 && f.n > 0 { // repeated
			id = "again-" + strconv.Itoa(f.rng.IntN(1+f.n/10))
		}
		record := f.stage.api.RecordFor(id)
		e.CallID, e.Enriched = id, schemas.Enrich(&record).Encode()
		r.Value = fmt.Appendf(nil, `{"CallId":%q}`, id)
	}
	r.Key = []byte(id)
	e.Key, e.Value, e.Produced = r.Key, r.Value, time.Now()
	return r, e
}
