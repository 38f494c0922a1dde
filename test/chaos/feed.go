package main

import (
	"context"
	"math/rand/v2"
	"time"

	"enricher/consumer/audit/audittest"
)

// feeder produces generated events.
type feeder struct {
	audittest.Feeder
	events audittest.Generator
}

// newFeeder returns a feeder that produces a mix of events to a topic. With an empty mix every event is
// the first of a call that is found.
func (e *env) newFeeder(topic string, seed uint64, mix audittest.Mix) *feeder {
	return &feeder{
		Feeder: audittest.Feeder{Client: e.client, Topic: topic, Ledger: &e.ledger},
		events: audittest.Generator{API: e.api, Rand: rand.New(rand.NewPCG(seed, 1)), Mix: mix},
	}
}

func (f *feeder) send() { f.Send(context.Background(), audittest.AnyPartition, f.events.Next()) }

// run produces rate events per second, evenly, until ctx ends.
func (f *feeder) run(ctx context.Context, rate int) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return f.Flush(context.Background())
		case <-tick.C:
			f.send()
		}
	}
}
