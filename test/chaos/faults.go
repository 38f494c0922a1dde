package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/test/kafkaproxy"
)

const (
	initialInstances = 3
	spareInstances   = 2 // that can join later
	minHealthy       = 2 // instances without a fault, when another one leaves

	freezeTime       = 13 * time.Second // longer than the session timeout of 10 s
	minFreezeTime    = 4 * time.Second
	maxFreezeTime    = 15 * time.Second
	pointTimeout     = 3 * time.Second  // for an instance that works to reach a point of a transaction
	workingTimeout   = 20 * time.Second // for the group to work again: twice the session timeout
	duplicateTimeout = time.Minute      // for the older of two processes with one name to exit
	overtime         = 4 * time.Minute  // for the kinds of faults that have not hit a transaction yet

	shareAtPoint   = 0.7 // of the faults are injected at a point of a transaction, the others at any time
	skipBrokerDown = 0.7 // of the faults are left out while the only broker is down: all of them would look the same
)

// faultsMix has enough repeated events that many wait for another one's request.
var faultsMix = audittest.Mix{Malformed: 2, OtherCallback: 2, NeverFound: 2, Repeated: 14, Bare: 10}

// misbehaviour is that of the API while faults overlap.
var misbehaviour = []fetchtest.Chance{
	{Percent: 3, Fault: fetchtest.BadGateway()}, {Percent: 2, Fault: fetchtest.NotJSON()}, {Percent: 2, Fault: fetchtest.CutBody()},
	{Percent: 1, Fault: fetchtest.Reset()}, {Percent: 1, Fault: fetchtest.WrongCallID()},
}

func faultsConfig(seed uint64, nodes int) envConfig {
	return envConfig{
		nodes: nodes, instances: initialInstances + spareInstances,
		api: fetchtest.Config{
			Rate: apiRate, Seed: seed,
			Latency:   func(string) time.Duration { return 20 * time.Millisecond },
			Misbehave: misbehaviour,
		},
		flags: []string{"--lookup-delay", "300ms", "--not-found-window", "5s"},
	}
}

// injector injects faults into an env.
type injector struct {
	*env
	verbose bool
	rng     *rand.Rand     // used by one goroutine, which chooses
	queue   []*kind        // the next kinds; used by the same goroutine
	faults  sync.WaitGroup // that are being injected
	failed  chan error

	brokers    sync.Mutex // held while a fault has a broker down
	lostBroker int        // the broker that was killed for good; −1: none

	mu       sync.Mutex
	reserved map[*instance]bool // a fault is being injected
	counts   map[*kind]*count
	alone    map[*kind]*latencies
}

// count is how often a kind of fault was injected, how often of these while the
// instance had a transaction open, and how often between its end and the response.
type count struct{ injected, open, ending int }

// kind is one kind of fault.
type kind struct {
	name         string
	weight       int                // how often it comes
	needsMessage bool               // can be injected only while a message is held
	points       []kafkaproxy.Point // at which it can be injected; nil: anyPoint
	// inject is called while the message is held, recover afterwards; either may be
	// nil. errNotInjected: the fault was not possible.
	inject, recover func(context.Context, *injector, *fault) error
	// bound is for the latency of the events that it spares when no other fault lasts;
	// 0: it spares none.
	bound time.Duration
	// hidesOutputs: read_committed readers may wait for it, so what counts is when an
	// output was written.
	hidesOutputs bool
}

var errNotInjected = errors.New("the fault is not possible now")

// fault is a fault that was chosen.
type fault struct {
	kind   *kind
	on     *instance
	point  *kafkaproxy.Point // nil: at any time
	random float64           // from 0 to 1, for choices of its own
	held   *kafkaproxy.Held  // nil: no message is held
	hits   bool              // the instance has a transaction open, or one whose end it does not know
	older  *process          // of two with one name
	end    func()            // ends it; nil: not needed
	spares spares            // nil: none
}

// injectFaults is the mode faults.
func injectFaults(ctx context.Context, e *env, seed uint64, rate int, pace, duration time.Duration, verbose bool) error {
	j := &injector{
		env: e, verbose: verbose, rng: rand.New(rand.NewPCG(seed, 0)), failed: make(chan error, manyErrors), lostBroker: -1,
		reserved: make(map[*instance]bool), counts: make(map[*kind]*count), alone: make(map[*kind]*latencies),
	}
	for _, i := range e.instances[:initialInstances] {
		if err := i.start(); err != nil {
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
	go func() { fed <- e.newFeeder(oneGroup.in, seed, faultsMix).run(feeding, rate) }()

	// Three brokers leave the instances little of a small machine, so latencies would
	// not show what a fault costs.
	if len(j.kafka.Brokers) == 1 {
		err = j.injectAlone(ctx, o)
	}
	overlapping := time.Now()
	if err == nil {
		err = j.run(ctx, pace, duration)
	}
	j.faults.Wait()
	stopFeeding()
	err = errors.Join(err, <-fed, received(j.failed))
	if err == nil {
		err = e.reconcile(ctx, o)
	}
	if len(j.kafka.Brokers) == 1 {
		err = errors.Join(err, j.reportAlone())
	}
	return errors.Join(err, j.report(), j.reportOverlapping(o, overlapping))
}

// run injects faults whose effects overlap: while one instance is frozen, others
// are killed.
func (j *injector) run(ctx context.Context, pace, duration time.Duration) error {
	begin := time.Now()
	for time.Since(begin) < duration || j.missesTransactions() && time.Since(begin) < duration+overtime {
		if err := sleep(ctx, time.Duration((0.5+j.rng.Float64())*float64(pace))); err != nil {
			return err
		}
		if err := errors.Join(j.unexpectedExit(), received(j.failed)); err != nil {
			return err
		}
		if len(j.kafka.Brokers) > 1 && j.lostBroker < 0 && time.Since(begin) > duration/3 {
			if err := j.loseBroker(ctx); err != nil {
				return err
			}
		}
		if len(j.kafka.Brokers) == 1 && j.brokerDown() && j.rng.Float64() < skipBrokerDown {
			continue
		}
		if f := j.choose(ctx, time.Since(begin) > duration); f != nil {
			j.faults.Go(func() {
				defer j.release(f.on)
				if err := j.inject(ctx, f); err != nil {
					j.failed <- fmt.Errorf("%s %s: %w", f.kind.name, f.on.name, err)
				}
			})
		}
	}
	return nil
}

// missesTransactions reports whether a kind of fault has not hit a transaction yet.
func (j *injector) missesTransactions() bool {
	for i := range kinds {
		if kinds[i].weight > 0 && !j.hasHit(&kinds[i]) {
			return true
		}
	}
	return false
}

func (j *injector) brokerDown() bool {
	if j.brokers.TryLock() {
		j.brokers.Unlock()
		return false
	}
	return true
}

// inject waits for the point of a fault, injects it, and recovers from it.
func (j *injector) inject(ctx context.Context, f *fault) error {
	ending := false
	if f.point != nil {
		held := f.on.proxy.Hold(*f.point)
		defer held.Release()
		wait, cancel := context.WithTimeout(ctx, pointTimeout)
		err := held.Wait(wait)
		cancel()
		if err == nil { // otherwise it is injected now, without a message
			f.held = held
			ending = f.point.Key == kmsg.EndTxn && f.point.Response
		}
	}
	open := f.on.proxy.InTransaction()
	f.hits = open || ending
	err := errNotInjected
	if f.kind.inject != nil {
		err = f.kind.inject(ctx, j, f)
	}
	if f.held != nil {
		f.held.Release()
	}
	if j.verbose {
		fmt.Printf("%s %s: %s %s, in a transaction: %v\n", time.Now().Format("15:04:05.000"), f.on.name, f.kind.name, f.when(), open)
	}
	if errors.Is(err, errNotInjected) {
		return nil
	}
	j.count(f.kind, open, ending)
	if err == nil && f.kind.recover != nil {
		err = f.kind.recover(ctx, j, f)
	}
	return err
}

// when describes when a fault was injected.
func (f *fault) when() string {
	switch {
	case f.point == nil:
		return "at any time"
	case f.held == nil:
		return "at " + f.point.String() + ", which did not come"
	}
	return "at " + f.point.String()
}

func (j *injector) count(k *kind, open, ending bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.counts[k]
	if n == nil {
		n = &count{}
		j.counts[k] = n
	}
	n.injected++
	if open {
		n.open++
	} else if ending {
		n.ending++
	}
}

// report prints what was injected. It is an error if a kind of fault has not hit a
// transaction.
func (j *injector) report() error {
	var problems []error
	total := count{}
	line := "%-24s %4d injected, %4d in an open transaction, %4d between its end and the response\n"
	for i := range kinds {
		k := &kinds[i]
		n := j.counts[k]
		if n == nil {
			n = &count{}
		}
		if k.weight == 0 && len(j.kafka.Brokers) == 1 {
			continue // needs a cluster
		}
		fmt.Printf(line, k.name, n.injected, n.open, n.ending)
		total.injected, total.open, total.ending = total.injected+n.injected, total.open+n.open, total.ending+n.ending
		if n.open+n.ending == 0 {
			problems = append(problems, fmt.Errorf("no fault of kind %q hit a transaction: run longer", k.name))
		}
	}
	fmt.Printf(line, "all", total.injected, total.open, total.ending)
	return errors.Join(problems...)
}
