package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/test/harness"
)

// The limits are those that docs/guarantees.md states.
const (
	maxPause             = harness.MaxPauseInRestart // in the outcomes of one partition
	maxRequestsPerCallID = harness.MaxRequestsPerCallRestart
	maxAborted           = harness.MaxAbortedByRestart // transactions

	maxBetweenRestarts = 2 * time.Second // each wait between two restarts is random
	warmUp             = 5 * time.Second // until all instances look calls up at full speed
)

func rollingConfig(nodes int) envConfig {
	return envConfig{
		nodes: nodes, instances: initialInstances,
		api:   fetchtest.Config{Rate: apiRate, Latency: func(string) time.Duration { return 50 * time.Millisecond }},
		flags: []string{"--lookup-delay", "300ms"},
	}
}

// rollingRestart restarts each of the initial instances in turn.
func (e *env) rollingRestart(ctx context.Context, rng *rand.Rand) error {
	for _, i := range e.instances[:initialInstances] {
		if err := i.restart(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, time.Duration(rng.Int64N(int64(maxBetweenRestarts)))); err != nil {
			return err
		}
	}
	return nil
}

// measureRollingRestarts is the mode rolling: what a rolling restart costs under
// load.
func measureRollingRestarts(ctx context.Context, e *env, rng *rand.Rand, rate, rounds int) error {
	for _, i := range e.instances {
		if err := i.start(); err != nil {
			return err
		}
	}
	for _, i := range e.instances {
		if err := i.awaitReady(ctx); err != nil {
			return err
		}
	}
	o, err := e.readOutputs()
	if err != nil {
		return err
	}
	defer o.stop()
	feeding, stopFeeding := context.WithCancel(ctx)
	fed := make(chan error, 1)
	go func() { fed <- e.newFeeder(oneGroup.in, 0, audittest.Mix{}).run(feeding, rate) }()

	var problems []error
	err = sleep(ctx, warmUp)
	for round := 1; err == nil && round <= rounds; round++ {
		from, before := time.Now(), e.cost()
		if err = errors.Join(e.rollingRestart(ctx, rng), e.unexpectedExit()); err == nil {
			problems = append(problems, e.checkRollingRestart(o, round, from, e.cost().since(before)))
		}
	}
	stopFeeding()
	err = errors.Join(err, <-fed)
	if err == nil {
		err = e.reconcile(ctx, o)
	}
	return errors.Join(append(problems, err)...)
}

// cost is what all instances together have spent so far.
type cost struct {
	committed, aborted int // transactions
	requests, callIDs  int // to the API, and for how many CallIds
}

func (e *env) cost() cost {
	c := cost{requests: e.api.Requests(), callIDs: e.api.UniqueCallIDs()}
	for _, i := range e.instances {
		ends := i.proxy.Ends()
		c.committed += ends.Committed
		c.aborted += ends.Aborted
	}
	return c
}

func (c cost) since(b cost) cost {
	return cost{
		committed: c.committed - b.committed, aborted: c.aborted - b.aborted,
		requests: c.requests - b.requests, callIDs: c.callIDs - b.callIDs,
	}
}

// checkRollingRestart prints what a rolling restart cost, and returns an error if
// it was too much.
func (e *env) checkRollingRestart(o *outputs, round int, from time.Time, spent cost) error {
	to := time.Now()
	whole := o.longestPause(from, to, func(audit.Source) bool { return true })
	var longest time.Duration
	var where int32
	for p := range int32(partitions) {
		if d := o.longestPause(from, to, func(s audit.Source) bool { return s.Partition == p }); d > longest {
			longest, where = d, p
		}
	}
	perCallID := float64(spent.requests) / float64(spent.callIDs)
	fmt.Printf("rolling restart %d: %.1f s, %d transactions committed, %d aborted; %.4f requests per CallId; longest pause in the outcomes %v, of one partition %v (%d)\n",
		round, to.Sub(from).Seconds(), spent.committed, spent.aborted, perCallID, whole.Round(time.Millisecond), longest.Round(time.Millisecond), where)
	var problems []error
	if longest > maxPause {
		problems = append(problems, fmt.Errorf("rolling restart %d: no outcome of partition %d for %v, want at most %v", round, where, longest, maxPause))
	}
	if perCallID > maxRequestsPerCallID {
		problems = append(problems, fmt.Errorf("rolling restart %d: %.4f requests per CallId, want at most %v", round, perCallID, maxRequestsPerCallID))
	}
	if spent.aborted > maxAborted {
		problems = append(problems, fmt.Errorf("rolling restart %d: %d transactions aborted, want at most %d", round, spent.aborted, maxAborted))
	}
	return errors.Join(problems...)
}
