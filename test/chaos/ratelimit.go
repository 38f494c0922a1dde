package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/test/harness"
)

const (
	// shareDelay is how long after a change every instance has its final share of the
	// rate, and its limiter has seen how fast the API is: shares grow at most six
	// seconds after the group is stable again.
	shareDelay = 12 * time.Second
	// minRateUsed is the part of the rate that must be used in the steady phase.
	// Rounding and the limiter's reserve for bunching requests cost about 1.5 %.
	minRateUsed = harness.MinRateUsedPercent / 100.0
	// changesTime is more than what all phases but the steady one take.
	changesTime = 2 * time.Minute
	// backlogFactor leaves a rest on every partition, though some are read faster
	// than others.
	backlogFactor = 1.5
)

func rateLimitConfig(nodes int) envConfig {
	return envConfig{
		nodes: nodes, instances: initialInstances + 1,
		// The API throttles nothing here: that would slow the instances down and hide
		// by how much they exceed the rate.
		api:   fetchtest.Config{Latency: func(string) time.Duration { return 40 * time.Millisecond }},
		flags: []string{"--lookup-delay", "0s"},
	}
}

// phase is a part of the run that is measured by itself.
type phase struct {
	name     string
	do       func() error
	from, to time.Time // when it ran
}

// measureRateLimit is the mode rate-limit: a backlog on all partitions, a steady
// phase, and then instances that join and leave in every way.
func measureRateLimit(ctx context.Context, e *env, rng *rand.Rand, steady time.Duration) error {
	f := e.newFeeder(oneGroup.in, 0, audittest.Mix{})
	for range int(backlogFactor * apiRate * (steady + changesTime).Seconds()) {
		f.send()
	}
	if err := f.Flush(ctx); err != nil {
		return err
	}
	phases := e.rateLimitPhases(ctx, rng, steady)
	for n := range phases {
		p := &phases[n]
		p.from = time.Now()
		if err := p.do(); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := errors.Join(e.unexpectedExit(), sleep(ctx, shareDelay)); err != nil {
			return err
		}
		p.to = time.Now()
	}
	return e.checkRateLimit(ctx, phases)
}

func (e *env) rateLimitPhases(ctx context.Context, rng *rand.Rand, steady time.Duration) []phase {
	first, second, third, extra := e.instances[0], e.instances[1], e.instances[2], e.instances[3]
	start := func(i *instance) error {
		if err := i.start(); err != nil {
			return err
		}
		return i.awaitReady(ctx)
	}
	freeze := func(i *instance, d time.Duration) error {
		p := i.proc.cmd.Process
		return errors.Join(p.Signal(syscall.SIGSTOP), sleep(ctx, d), p.Signal(syscall.SIGCONT))
	}
	return []phase{
		{name: "start", do: func() error { return errors.Join(start(first), start(second), start(third)) }},
		{name: "steady", do: func() error { return sleep(ctx, steady) }},
		{name: "join", do: func() error { return start(extra) }},
		{name: "leave", do: func() error {
			if err := extra.terminate(); err != nil {
				return err
			}
			return extra.awaitDrain()
		}},
		{name: "rolling restart", do: func() error { return e.rollingRestart(ctx, rng) }},
		{name: "kill -9", do: func() error {
			first.kill()
			return start(first)
		}},
		{name: "freeze", do: func() error { return freeze(second, freezeTime) }},
		{name: "short freeze", do: func() error { return freeze(first, time.Second) }},
		{name: "blackhole", do: func() error {
			third.proxy.SetBlackhole(true)
			defer third.proxy.SetBlackhole(false)
			return sleep(ctx, freezeTime)
		}},
	}
}

// checkRateLimit prints which requests the API received, and returns what is wrong
// with them.
func (e *env) checkRateLimit(ctx context.Context, phases []phase) error {
	var problems []error
	for _, p := range phases {
		requests := e.requests.between(p.from, p.to)
		perSecond := float64(len(requests)) / p.to.Sub(p.from).Seconds()
		most, from := busiestSecond(requests)
		fmt.Printf("%-16s %5.1f s, %6d requests, %5.1f per second, at most %d in any second\n",
			p.name, p.to.Sub(p.from).Seconds(), len(requests), perSecond, most)
		if used := perSecond / apiRate; p.name == "steady" && used < minRateUsed {
			problems = append(problems, fmt.Errorf("%.1f %% of the rate was used, want at least %.0f %%", 100*used, 100*minRateUsed))
		}
		if most > apiRate {
			fmt.Print(byInstance(requests, from))
		}
	}
	// A second can begin in one phase and end in the next, so the API's count decides.
	e.printRequests()
	if most := e.api.MaxInAnyWindow(time.Second); most > apiRate {
		problems = append(problems, fmt.Errorf("%d requests in one second, want at most %d", most, apiRate))
	}
	return errors.Join(append(problems, e.checkBacklog(ctx))...)
}

// checkBacklog returns an error if a partition has no events left: its owner may
// have been slow for lack of events.
func (e *env) checkBacklog(ctx context.Context) error {
	lag, err := e.admin.Lag(ctx, oneGroup.group)
	if err != nil {
		return err
	}
	if err := lag.Error(); err != nil {
		return err
	}
	for _, l := range lag[oneGroup.group].Lag.Sorted() {
		if l.Lag <= 0 {
			return fmt.Errorf("partition %d has no events left: this run shows nothing", l.Partition)
		}
	}
	return nil
}

// busiestSecond returns the largest number of requests within a second, and when it
// began. Times are those just before the API counted the requests, which differ from
// the API's by microseconds.
func busiestSecond(requests []request) (most int, from time.Time) {
	first := 0
	for last := range requests {
		for requests[last].at.Sub(requests[first].at) >= time.Second {
			first++
		}
		if n := last - first + 1; n > most {
			most, from = n, requests[first].at
		}
	}
	return most, from
}

// byInstance lists how many requests each instance made in each tenth of a second.
func byInstance(requests []request, from time.Time) string {
	byTenth := make(map[string]*[10]int)
	for _, r := range requests {
		if d := r.at.Sub(from); d >= 0 && d < time.Second {
			if byTenth[r.instance] == nil {
				byTenth[r.instance] = &[10]int{}
			}
			byTenth[r.instance][d/(time.Second/10)]++
		}
	}
	var lines []string
	for instance, tenths := range byTenth {
		sum := 0
		for _, n := range tenths {
			sum += n
		}
		lines = append(lines, fmt.Sprintf("    %s: %3d, in tenths of the second from %s: %v\n", instance, sum, from.Format("15:04:05.000"), *tenths))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
