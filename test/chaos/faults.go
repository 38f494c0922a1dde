package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/fetch/fetchtest"
	"enricher/test/proxy"
)

const (
	usual = 3 // instances at the start
	least = 2 // that stay at work when another one leaves
	spare = 2 // names for more

	frozen    = 13 * time.Second // past the session time-out of 10 s
	aimFor    = 3 * time.Second  // how long to wait for the moment aimed at
	workFor   = 20 * time.Second // how long to wait for somebody who works
	overtime  = 90 * time.Second // for kinds that have hit no transaction yet
	aimedAt   = 0.7              // of the faults; the others come whenever
	twinLimit = time.Minute      // in which the older of two twins must give way
)

func faultsSetup(seed uint64, nodes int) setup {
	return setup{
		nodes: nodes, instances: usual + spare,
		api: fetchtest.Config{
			Rate: apiRate, Seed: seed,
			Latency: func(string) time.Duration { return 20 * time.Millisecond },
			Misbehave: []fetchtest.Chance{
				{Percent: 3, Fault: fetchtest.BadGateway()}, {Percent: 2, Fault: fetchtest.NotJSON()}, {Percent: 2, Fault: fetchtest.CutBody()},
				{Percent: 1, Fault: fetchtest.Reset()}, {Percent: 1, Fault: fetchtest.WrongCallID()},
			},
		},
		flags: []string{"--settle-delay", "300ms", "--not-found-window", "5s"},
	}
}

// chaos injects faults into a stage.
type chaos struct {
	*stage
	verbose bool
	rng     *rand.Rand // only the one that chooses
	deck    []*kind
	faults  sync.WaitGroup
	failed  chan error // with room for many

	brokers sync.Mutex // held while one is away on purpose
	gone    int        // the broker that was killed for good; −1: none

	mu     sync.Mutex
	busy   map[*instance]bool // a fault is at it
	counts map[*kind]*count
}

// count is how often a kind of fault was injected, how often while the instance
// had a transaction open, and how often between its end and the answer.
type count struct{ injected, open, ending int }

// kind is one kind of fault.
type kind struct {
	name  string
	cards int           // in the deck, for how often it comes
	must  bool          // be aimed: it needs a message
	at    []proxy.Point // that it may be aimed at; nil: moments
	// strike happens while the message aimed at is held, mend afterwards; either
	// may be nil. errMissed: nothing was injected.
	strike, mend func(context.Context, *chaos, *fault) error
}

var errMissed = errors.New("nothing to strike at")

// fault is one that was chosen.
type fault struct {
	kind  *kind
	on    *instance
	aim   *proxy.Point // nil: whenever
	dice  float64      // from 0 to 1, for choices of its own
	held  *proxy.Held  // nil: nothing
	older *process     // of twins
}

// injectFaults is mode faults.
func injectFaults(ctx context.Context, s *stage, seed uint64, rate int, pace, duration time.Duration, verbose bool) error {
	c := &chaos{
		stage: s, verbose: verbose, rng: rand.New(rand.NewPCG(seed, 0)), failed: make(chan error, 1000), gone: -1,
		busy: make(map[*instance]bool), counts: make(map[*kind]*count),
	}
	for _, i := range s.instances[:usual] {
		if err := i.start(); err != nil {
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
	go func() { feedErr <- s.newFeeder(rand.New(rand.NewPCG(seed, 1))).run(feeding, rate) }()

	err = c.run(ctx, pace, duration)
	c.faults.Wait()
	fed()
	err = errors.Join(err, <-feedErr, c.anyFailure())
	if err == nil {
		err = s.account(ctx, w)
	}
	return errors.Join(err, c.report())
}

// run chooses faults. Their effects overlap: while one instance is frozen,
// others are killed.
func (c *chaos) run(ctx context.Context, pace, duration time.Duration) error {
	begin := time.Now()
	for time.Since(begin) < duration || c.owes() && time.Since(begin) < duration+overtime {
		if err := sleep(ctx, time.Duration((0.5+c.rng.Float64())*float64(pace))); err != nil {
			return err
		}
		if err := errors.Join(c.anyDeath(), c.anyFailure()); err != nil {
			return err
		}
		if len(c.kafka.Brokers) > 1 && c.gone < 0 && time.Since(begin) > duration/3 {
			if err := c.loseBroker(ctx); err != nil {
				return err
			}
		}
		// While its only broker is away, a cluster mostly shows that it is.
		if len(c.kafka.Brokers) == 1 && c.brokerAway() && c.rng.Float64() < 0.7 {
			continue
		}
		if f := c.choose(ctx, time.Since(begin) > duration); f != nil {
			c.faults.Go(func() {
				defer c.free(f.on)
				if err := c.inject(ctx, f); err != nil {
					c.failed <- fmt.Errorf("%s %s: %w", f.kind.name, f.on.name, err)
				}
			})
		}
	}
	return nil
}

// owes says whether some kind has hit no transaction yet.
func (c *chaos) owes() bool {
	for i := range kinds {
		if kinds[i].cards > 0 && !c.hasHit(&kinds[i]) {
			return true
		}
	}
	return false
}

func (c *chaos) brokerAway() bool {
	if c.brokers.TryLock() {
		c.brokers.Unlock()
		return false
	}
	return true
}

func (c *chaos) anyFailure() error {
	select {
	case err := <-c.failed:
		return err
	default:
		return nil
	}
}

// inject waits for the moment that a fault is aimed at, strikes and mends.
func (c *chaos) inject(ctx context.Context, f *fault) error {
	ending := false
	if f.aim != nil {
		aim, cancel := context.WithTimeout(ctx, aimFor)
		held, err := f.on.proxy.Hold(aim, *f.aim)
		cancel()
		if err == nil { // else it strikes without
			defer held.Release()
			f.held = held
			ending = f.aim.Key == kmsg.EndTxn && f.aim.Answer
		}
	}
	open := f.on.proxy.InTransaction()
	err := errMissed
	if f.kind.strike != nil {
		err = f.kind.strike(ctx, c, f)
	}
	if f.held != nil {
		f.held.Release()
	}
	if c.verbose {
		aim := "whenever"
		if f.aim != nil {
			aim = "at " + f.aim.String()
			if f.held == nil {
				aim += ", which did not come"
			}
		}
		fmt.Printf("%s %s: %s %s, open: %v\n", time.Now().Format("15:04:05.000"), f.on.name, f.kind.name, aim, open)
	}
	if errors.Is(err, errMissed) {
		return nil
	}
	c.mu.Lock()
	n := c.counts[f.kind]
	if n == nil {
		n = &count{}
		c.counts[f.kind] = n
	}
	n.injected++
	if open {
		n.open++
	} else if ending {
		n.ending++
	}
	c.mu.Unlock()
	if err == nil && f.kind.mend != nil {
		err = f.kind.mend(ctx, c, f)
	}
	return err
}

// report prints what was injected; a kind that hit no transaction is an error.
func (c *chaos) report() error {
	var problems []error
	total := count{}
	line := "%-24s %4d injected, %4d in an open transaction, %4d between its end and the answer\n"
	for i := range kinds {
		k := &kinds[i]
		n := c.counts[k]
		if n == nil {
			n = &count{}
		}
		if k.cards == 0 && len(c.kafka.Brokers) == 1 {
			continue // needs a cluster
		}
		fmt.Printf(line, k.name, n.injected, n.open, n.ending)
		total.injected, total.open, total.ending = total.injected+n.injected, total.open+n.open, total.ending+n.ending
		if n.open+n.ending == 0 {
			problems = append(problems, fmt.Errorf("no %q hit a transaction: run longer", k.name))
		}
	}
	fmt.Printf(line, "all", total.injected, total.open, total.ending)
	return errors.Join(problems...)
}
