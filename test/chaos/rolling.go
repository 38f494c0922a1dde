package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/test/harness"
)

// between bounds the time between two restarts.
const between = 2 * time.Second

func rollingSetup(nodes int) setup {
	return setup{
		nodes: nodes, instances: usual,
		api:   fetchtest.Config{Rate: apiRate, Latency: func(string) time.Duration { return 50 * time.Millisecond }},
		flags: []string{"--settle-delay", "300ms"},
	}
}

// rollingRestart ends every usual instance in turn and starts it again.
func (s *stage) rollingRestart(ctx context.Context, rng *rand.Rand) error {
	for _, i := range s.instances[:usual] {
		if err := i.restart(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, time.Duration(rng.Int64N(int64(between)))); err != nil {
			return err
		}
	}
	return nil
}

// restartInTurn is mode rolling: what a rolling restart costs under load.
func restartInTurn(ctx context.Context, s *stage, rng *rand.Rand, rate, rounds int) error {
	for _, i := range s.instances {
		if err := i.start(); err != nil {
			return err
		}
	}
	for _, i := range s.instances {
		if err := i.awaitReady(ctx); err != nil {
			return err
		}
	}
	w, err := s.watch()
	if err != nil {
		return err
	}
	defer w.stop()
	feeding, fed := context.WithCancel(ctx)
	feedErr := make(chan error, 1)
	go func() { feedErr <- s.newFeeder(nil).run(feeding, rate) }()
	if err := sleep(ctx, 5*time.Second); err != nil { // until everybody works
		fed()
		return errors.Join(err, <-feedErr)
	}

	var problems []error
	for round := range rounds {
		from, before := time.Now(), s.cost()
		if err = errors.Join(s.rollingRestart(ctx, rng), s.anyDeath()); err != nil {
			break
		}
		problems = append(problems, s.judgeRestart(w, round+1, from, s.cost().since(before)))
	}
	fed()
	err = errors.Join(err, <-feedErr)
	if err == nil {
		err = s.account(ctx, w)
	}
	return errors.Join(append(problems, err)...)
}

// cost is what has been spent so far by all instances together.
type cost struct {
	committed, aborted int // transactions
	requests, calls    int // to the API, and for how many calls
}

func (s *stage) cost() cost {
	c := cost{requests: s.api.Requests(), calls: s.api.UniqueCallIDs()}
	for _, i := range s.instances {
		e := i.proxy.Ends()
		c.committed += e.Committed
		c.aborted += e.Aborted
	}
	return c
}

func (c cost) since(b cost) cost {
	return cost{c.committed - b.committed, c.aborted - b.aborted, c.requests - b.requests, c.calls - b.calls}
}

// judgeRestart prints what a rolling restart cost and says if it was too much.
func (s *stage) judgeRestart(w *watch, round int, from time.Time, spent cost) error {
	to := time.Now()
	whole := w.longestPause(from, to, func(audit.Source) bool { return true })
	var worst time.Duration
	var where int32
	for p := range int32(partitions) {
		if d := w.longestPause(from, to, func(s audit.Source) bool { return s.Partition == p }); d > worst {
			worst, where = d, p
		}
	}
	perCall := float64(spent.requests) / float64(spent.calls)
	fmt.Printf("rolling restart %d: %.1f s, %d transactions committed, %d aborted; %.4f requests per call; longest pause in the outputs %v, of one partition's events %v (%d)\n",
		round, to.Sub(from).Seconds(), spent.committed, spent.aborted, perCall, whole.Round(time.Millisecond), worst.Round(time.Millisecond), where)
	var problems []error
	if worst > harness.MaxPauseInRestart {
		problems = append(problems, fmt.Errorf("rolling restart %d: no outcome of partition %d for %v, want at most %v", round, where, worst, harness.MaxPauseInRestart))
	}
	if perCall > harness.MaxRequestsPerCallRestart {
		problems = append(problems, fmt.Errorf("rolling restart %d: %.4f requests per call, want at most %v", round, perCall, harness.MaxRequestsPerCallRestart))
	}
	if spent.aborted > harness.MaxAbortedByRestart {
		problems = append(problems, fmt.Errorf("rolling restart %d: %d transactions aborted, want at most %d", round, spent.aborted, harness.MaxAbortedByRestart))
	}
	return errors.Join(problems...)
}
