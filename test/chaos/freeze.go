package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/test/harness"
	"enricher/test/kafkaproxy"
)

const (
	freezeGroups = 8 // work at the same time; one of the two instances of each is frozen at a time

	longFreezes   = 0.1              // of the freezes are up to longestFreeze, the others about as long as a session
	usualFreeze   = 12 * time.Second // the longest of the others
	longestFreeze = time.Minute

	reachPhaseTimeout = 20 * time.Second // for an instance that works to reach a phase of a transaction
	// aliveTimeout is more than any bound, so that a run reports what it took.
	aliveTimeout = 2 * time.Minute
)

// phase of a transaction in which a process is frozen. The message that it begins
// with is forwarded while the process is frozen, or just before.
type freezePhase struct {
	name   string
	point  *kafkaproxy.Point
	before bool // the message is forwarded before the process is frozen
}

var freezePhases = []freezePhase{
	{name: "before the first request", point: &kafkaproxy.Point{Key: kmsg.Produce}},
	{name: "while producing", point: &kafkaproxy.Point{Key: kmsg.Produce, Response: true}},
	{name: "before the offsets", point: &kafkaproxy.Point{Key: kmsg.TxnOffsetCommit}},
	{name: "between offsets and end", point: &kafkaproxy.Point{Key: kmsg.TxnOffsetCommit, Response: true}},
	{name: "end on its way", point: &kafkaproxy.Point{Key: kmsg.EndTxn}},
	{name: "response on its way", point: &kafkaproxy.Point{Key: kmsg.EndTxn, Response: true}},
	{name: "after the end", point: &kafkaproxy.Point{Key: kmsg.EndTxn, Response: true}, before: true},
}

func freezeConfig(nodes int) envConfig {
	cfg := envConfig{
		nodes: nodes, instances: 2,
		api:   fetchtest.Config{Latency: func(string) time.Duration { return 20 * time.Millisecond }},
		flags: []string{"--lookup-delay", "300ms"},
	}
	for n := range freezeGroups {
		s := "-" + strconv.Itoa(n)
		cfg.groups = append(cfg.groups, names{oneGroup.group + s, oneGroup.in + s, oneGroup.out + s, oneGroup.dead + s})
	}
	return cfg
}

// freezer freezes instances and records what that cost.
type freezer struct {
	*env
	verbose bool
	left    atomic.Int64 // freezes

	mu      sync.Mutex
	frozen  map[string]int  // by phase
	removed int             // of the instances frozen, from their group meanwhile
	long    int             // freezes longer than usual
	back    []time.Duration // from SIGCONT until the instance is ready and has committed
}

// measureFreezes is the mode freeze: processes are frozen in each phase of a
// transaction, half of them removed from their group meanwhile.
func measureFreezes(ctx context.Context, e *env, seed uint64, rate, n int, verbose bool) error {
	f := &freezer{env: e, verbose: verbose, frozen: make(map[string]int)}
	f.left.Store(int64(n))
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
	fed := make(chan error, len(e.groups))
	var freezing sync.WaitGroup
	failed := make(chan error, len(e.groups))
	for n, names := range e.groups {
		go func() {
			fed <- e.newFeeder(names.in, seed+uint64(n), audittest.Mix{Malformed: 5, Repeated: 10}).run(feeding, max(1, rate/len(e.groups)))
		}()
		pair, rng := e.instances[2*n:2*n+2], rand.New(rand.NewPCG(seed, uint64(n)))
		freezing.Go(func() {
			for m := n; f.left.Add(-1) >= 0; m++ {
				if err := f.freeze(ctx, pair[m%2], freezePhases[m%len(freezePhases)], rng); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	freezing.Wait()
	stopFeeding()
	for range e.groups {
		err = errors.Join(err, <-fed)
	}
	err = errors.Join(err, received(failed), e.unexpectedExit())
	if err == nil {
		err = e.reconcile(ctx, o)
	}
	return errors.Join(err, f.report(o))
}

// freeze freezes an instance in a phase of a transaction, and waits until it is
// back.
func (f *freezer) freeze(ctx context.Context, i *instance, phase freezePhase, rng *rand.Rand) error {
	held := i.proxy.Hold(*phase.point)
	defer held.Release()
	wait, cancel := context.WithTimeout(ctx, reachPhaseTimeout)
	err := held.Wait(wait)
	cancel()
	if err != nil {
		return fmt.Errorf("%s does not reach the phase %q: %w", i.name, phase.name, err)
	}
	if phase.before {
		held.Release()
	}
	process := i.proc.cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	held.Release()
	length := minFreezeTime + time.Duration(rng.Int64N(int64(usualFreeze-minFreezeTime)))
	long := rng.Float64() < longFreezes
	if long {
		length = minFreezeTime + time.Duration(rng.Int64N(int64(longestFreeze-minFreezeTime)))
	}
	remove := rng.IntN(2) == 0
	at := time.Duration(rng.Int64N(int64(minFreezeTime)))
	err = sleep(ctx, at)
	if remove && err == nil {
		err = i.removeFromGroup(ctx)
	}
	err = errors.Join(err, sleep(ctx, length-at))
	before := i.proxy.Ends().Committed
	continued := time.Now()
	if err := errors.Join(err, process.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	for i.proxy.Ends().Committed <= before {
		if time.Since(continued) > aliveTimeout {
			return fmt.Errorf("%s has not committed anything %v after it was frozen for %v in the phase %q", i.name, aliveTimeout, length, phase.name)
		}
		if err := errors.Join(f.unexpectedExit(), sleep(ctx, 20*time.Millisecond)); err != nil {
			return err
		}
	}
	if err := i.awaitReady(ctx); err != nil {
		return err
	}
	back := time.Since(continued)
	if f.verbose {
		fmt.Printf("%s %s: frozen for %v, %s, removed %v, back after %v\n", time.Now().Format("15:04:05.000"), i.name, length.Round(time.Millisecond), phase.name, remove, back.Round(time.Millisecond))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen[phase.name]++
	f.back = append(f.back, back)
	if remove {
		f.removed++
	}
	if long {
		f.long++
	}
	return nil
}

// report prints what the freezes cost, and returns an error if it was too much.
func (f *freezer) report(o *outputs) error {
	for _, p := range freezePhases {
		fmt.Printf("%-24s %4d frozen\n", p.name, f.frozen[p.name])
	}
	if len(f.back) == 0 {
		return errors.New("no instance was frozen")
	}
	var problems []error
	slices.Sort(f.back)
	median, most := f.back[len(f.back)/2], f.back[len(f.back)-1]
	fmt.Printf("%d frozen, %d of them for up to %v, %d removed from the group meanwhile; back after %v (median), at most %v\n",
		len(f.back), f.long, longestFreeze, f.removed, median.Round(time.Millisecond), most.Round(time.Millisecond))
	if most > harness.MaxBackAfterFreeze {
		problems = append(problems, fmt.Errorf("an instance was back %v after it was frozen, want at most %v", most, harness.MaxBackAfterFreeze))
	}
	var longest time.Duration
	seen := o.bySource()
	for source, e := range f.ledger.Events() {
		if s, ok := seen[source]; ok {
			longest = max(longest, s.at.Sub(e.Produced))
		}
	}
	fmt.Printf("latency of an event, seen by a reader: at most %v\n", longest.Round(time.Millisecond))
	if longest > harness.MaxLatencyFrozenOwner {
		problems = append(problems, fmt.Errorf("an event took %v, want at most %v", longest, harness.MaxLatencyFrozenOwner))
	}
	return errors.Join(problems...)
}
