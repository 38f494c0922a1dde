package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"enricher/consumer/audit"
	"enricher/test/harness"
)

// spares reports whether a fault does not hit an event.
type spares func(audit.Source, audit.Expect) bool

// latencies are those of the events that a kind of fault spared, and how often it
// was injected for them.
type latencies struct {
	faults int
	events []time.Duration
}

// shortRandom keeps what a fault chooses in its lower part, so that a freeze is
// shorter than the session timeout.
const shortRandom = 0.4

// caughtUp is what an event takes at most when nothing is wrong: the lookup delay of
// 300 ms, a request, a transaction, and the time until awaitOutcomes looks again.
const caughtUp = 1500 * time.Millisecond

// caughtUpTimeout is for the events that a fault has held up, and for the broker to
// end a frozen transaction.
const caughtUpTimeout = 40 * time.Second

// injectAlone injects each kind of fault that has a bound once, one after another.
// No event that is spared may wait longer than the bound, and after each fault all
// instances must be ready again.
func (j *injector) injectAlone(ctx context.Context, o *outputs) error {
	j.api.SetMisbehave() // what fails at random would be asked again seconds later
	defer j.api.SetMisbehave(misbehaviour...)
	for n := range kinds {
		k := &kinds[n]
		if k.bound == 0 {
			continue
		}
		for _, i := range j.instances[:initialInstances] {
			if err := i.awaitReady(ctx); err != nil {
				return err
			}
		}
		if err := j.awaitCaughtUp(ctx, o); err != nil {
			return fmt.Errorf("before %s: %w", k.name, err)
		}
		f := &fault{kind: k, point: &anyPoint[j.rng.IntN(len(anyPoint))], random: shortRandom * j.rng.Float64()}
		if f.on = j.reserveWorking(ctx); f.on == nil {
			return fmt.Errorf("before %s: no instance commits transactions", k.name)
		}
		from := time.Now()
		err := j.inject(ctx, f)
		j.release(f.on)
		if err == nil {
			err = j.awaitOutcomes(ctx, o, time.Now())
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", k.name, f.on.name, err)
		}
		j.measure(o, f, from, time.Now())
	}
	return nil
}

// awaitCaughtUp waits until events have their outcomes soon after they were fed. A
// new broker is slow at first, and what piled up then would count as the fault's.
func (j *injector) awaitCaughtUp(ctx context.Context, o *outputs) error {
	for end := time.Now().Add(caughtUpTimeout); ; {
		before := time.Now()
		if err := j.awaitOutcomes(ctx, o, before); err != nil {
			return err
		}
		took := time.Since(before)
		switch {
		case took < caughtUp:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("events still wait %v for their outcomes after %v", took, caughtUpTimeout)
		}
	}
}

// awaitOutcomes waits for the outcomes of all events that were fed before a time.
func (j *injector) awaitOutcomes(ctx context.Context, o *outputs, before time.Time) error {
	for end := time.Now().Add(caughtUpTimeout); ; {
		missing := 0
		var first string
		seen := o.bySource()
		for source, e := range j.ledger.Events() {
			if _, ok := seen[source]; !ok && e.Enriched != nil && e.Produced.Before(before) {
				missing++
				first = source.String() + " " + e.CallID
			}
		}
		switch {
		case missing == 0:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%d events without an outcome after %v, such as %s", missing, caughtUpTimeout, first)
		}
		if err := errors.Join(j.unexpectedExit(), sleep(ctx, 200*time.Millisecond)); err != nil {
			return err
		}
	}
}

// measure adds the latencies of the events that a fault spared.
func (j *injector) measure(o *outputs, f *fault, from, to time.Time) {
	l := j.alone[f.kind]
	if l == nil {
		l = &latencies{}
		j.alone[f.kind] = l
	}
	l.faults++
	seen := o.bySource()
	for source, e := range j.ledger.Events() {
		if e.Enriched == nil || e.Produced.Before(from) || !e.Produced.Before(to) || !f.spares(source, e) {
			continue
		}
		if s, ok := seen[source]; ok { // awaitOutcomes and the audit demand the others
			at := s.at
			if f.kind.hidesOutputs {
				at = s.written
			}
			l.events = append(l.events, at.Sub(e.Produced))
		}
	}
}

// reportAlone prints what injectAlone measured. It is an error if an event waited
// longer than the bound.
func (j *injector) reportAlone() error {
	var problems []error
	for n := range kinds {
		k := &kinds[n]
		l := j.alone[k]
		if l == nil || len(l.events) == 0 {
			if k.bound > 0 {
				problems = append(problems, fmt.Errorf("%s: no event that it spares", k.name))
			}
			continue
		}
		slices.Sort(l.events)
		p99, most := l.events[len(l.events)*99/100], l.events[len(l.events)-1]
		fmt.Printf("%-24s %4d alone, %5d events spared, latency p99 %v, at most %v (bound %v)\n",
			k.name, l.faults, len(l.events), p99.Round(time.Millisecond), most.Round(time.Millisecond), k.bound)
		if most > k.bound {
			problems = append(problems, fmt.Errorf("%s: an event that it spares took %v, want at most %v", k.name, most, k.bound))
		}
	}
	return errors.Join(problems...)
}

// reportOverlapping prints the latencies of the events fed since the faults overlap.
// It is an error if one waited longer than the bound.
func (j *injector) reportOverlapping(o *outputs, since time.Time) error {
	var all []time.Duration
	seen := o.bySource()
	for source, e := range j.ledger.Events() {
		if s, ok := seen[source]; ok && e.Enriched != nil && !e.Produced.Before(since) {
			all = append(all, s.at.Sub(e.Produced))
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	most := all[len(all)-1]
	fmt.Printf("while faults overlap: %d events enriched, latency p50 %v, p99 %v, at most %v (bound %v)\n", len(all),
		all[len(all)/2].Round(time.Millisecond), all[len(all)*99/100].Round(time.Millisecond), most.Round(time.Millisecond), harness.MaxLatencyOverlapping)
	if most > harness.MaxLatencyOverlapping {
		return fmt.Errorf("while faults overlap: an event took %v, want at most %v", most, harness.MaxLatencyOverlapping)
	}
	return nil
}

// outsideOf returns what a fault of an instance spares: the events of partitions
// that other members have.
func outsideOf(ctx context.Context, i *instance) (spares, error) {
	members, err := i.members(ctx)
	if err != nil {
		return nil, err
	}
	held := make(map[int32]bool)
	for _, m := range members {
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range a.Topics {
				for _, p := range t.Partitions {
					held[p] = true
				}
			}
		}
	}
	return func(s audit.Source, _ audit.Expect) bool { return !held[s.Partition] }, nil
}
