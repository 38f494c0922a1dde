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

// feeder produces events and enters the outcome expected of each into the ledger.
type feeder struct {
	env    *env
	rng    *rand.Rand // nil: every event is of a new call
	n      int
	failed chan error // capacity 1
}

func (e *env) newFeeder(rng *rand.Rand) *feeder {
	return &feeder{env: e, rng: rng, failed: make(chan error, 1)}
}

// run produces rate events per second, evenly, until ctx ends.
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
	if err := f.env.client.Flush(context.Background()); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	if err := received(f.failed); err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	return nil
}

func (f *feeder) send() {
	r, e := f.next()
	f.n++
	f.env.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err != nil {
			select {
			case f.failed <- err:
			default:
			}
			return
		}
		f.env.ledger.Add(audit.Source{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}, e)
	})
}

// next returns the next event, and the outcome expected of it.
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
		f.env.api.Never(id)
		r.Value, e.Reasons = fmt.Appendf(nil, `{"CallId":%q}`, id), []schemas.Reason{schemas.NotFound}
		id = "key-of-" + id
	default:
		if kind < 20 && f.n > 0 { // repeated
			id = "again-" + strconv.Itoa(f.rng.IntN(1+f.n/10))
		}
		record := f.env.api.RecordFor(id)
		e.CallID, e.Enriched = id, schemas.Enrich(&record).Encode()
		r.Value = fmt.Appendf(nil, `{"CallId":%q}`, id)
	}
	r.Key = []byte(id)
	e.Key, e.Value, e.Produced = r.Key, r.Value, time.Now()
	return r, e
}
