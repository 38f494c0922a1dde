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

	"enricher/fetch/fetchtest"
)

const (
	calm    = 12 * time.Second // after a change, until shares have grown and the limiter has seen how fast the API is
	leastOf = 0.98             // of the rate must be used while all is steady
)

func quotaSetup(nodes int) setup {
	return setup{
		nodes: nodes, instances: usual + 1,
		// The API refuses nothing here: a refusal would slow the instances down
		// and hide by how much they overran.
		api:   fetchtest.Config{Latency: func(string) time.Duration { return 40 * time.Millisecond }},
		flags: []string{"--settle-delay", "0s"},
	}
}

// phase is a part of the run that is looked at by itself.
type phase struct {
	name     string
	from, to time.Time
}

// measureQuota is mode quota: a backlog on all partitions, a steady time, and
// then members that come and go in every way.
func measureQuota(ctx context.Context, s *stage, rng *rand.Rand, steady time.Duration) error {
	// What the whole run can look up at most, and half as much again, since no
	// partition may run dry before the others.
	f := s.newFeeder(nil)
	for range int(1.5 * apiRate * (steady + 2*time.Minute).Seconds()) {
		f.send()
	}
	if err := f.flush(); err != nil {
		return err
	}

	var phases []phase
	run := func(name string, do func() error) error {
		p := phase{name: name, from: time.Now()}
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := errors.Join(s.anyDeath(), sleep(ctx, calm)); err != nil {
			return err
		}
		p.to = time.Now()
		phases = append(phases, p)
		return nil
	}
	for _, step := range s.quotaSteps(ctx, rng, steady) {
		if err := run(step.name, step.do); err != nil {
			return err
		}
	}
	return s.judgeQuota(ctx, phases)
}

type step struct {
	name string
	do   func() error
}

func (s *stage) quotaSteps(ctx context.Context, rng *rand.Rand, steady time.Duration) []step {
	first, second, third, extra := s.instances[0], s.instances[1], s.instances[2], s.instances[3]
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
	return []step{
		{"start", func() error { return errors.Join(start(first), start(second), start(third)) }},
		{"steady", func() error { return sleep(ctx, steady) }},
		{"join", func() error { return start(extra) }},
		{"leave", func() error {
			if err := extra.terminate(); err != nil {
				return err
			}
			return extra.awaitDrain()
		}},
		{"rolling restart", func() error { return s.rollingRestart(ctx, rng) }},
		{"kill -9", func() error {
			first.kill()
			return start(first)
		}},
		{"freeze", func() error { return freeze(second, frozen) }},
		{"short freeze", func() error { return freeze(first, time.Second) }},
		{"packet hole", func() error {
			third.proxy.Hole()
			defer third.proxy.Mend()
			return sleep(ctx, frozen)
		}},
	}
}

// judgeQuota prints what the API saw and says what is wrong with it.
func (s *stage) judgeQuota(ctx context.Context, phases []phase) error {
	var problems []error
	for _, p := range phases {
		calls := s.calls.between(p.from, p.to)
		seconds := p.to.Sub(p.from).Seconds()
		most, from := densest(calls)
		fmt.Printf("%-16s %5.1f s, %6d calls, %5.1f a second, at most %d in one second\n",
			p.name, seconds, len(calls), float64(len(calls))/seconds, most)
		if p.name == "steady" {
			if used := float64(len(calls)) / seconds / apiRate; used < leastOf {
				problems = append(problems, fmt.Errorf("%.1f %% of the rate was used, want %.0f %%", 100*used, 100*leastOf))
			}
		}
		if most > apiRate {
			fmt.Print(evidence(calls, from))
		}
	}
	// A window may lie across two phases; the API's own count decides.
	most := s.api.MaxInAnyWindow(time.Second)
	fmt.Printf("API: %d requests, %.4f per call, at most %d in one second\n", s.api.Requests(), s.api.RequestsPerCallID(), most)
	if most > apiRate {
		problems = append(problems, fmt.Errorf("%d calls in one second, %d are allowed", most, apiRate))
	}
	return errors.Join(append(problems, s.checkBacklog(ctx))...)
}

// checkBacklog: a partition that ran dry says nothing about the rate.
func (s *stage) checkBacklog(ctx context.Context) error {
	lag, err := s.admin.Lag(ctx, group)
	if err != nil {
		return err
	}
	if err := lag.Error(); err != nil {
		return err
	}
	for _, l := range lag[group].Lag.Sorted() {
		if l.Lag <= 0 {
			return fmt.Errorf("partition %d ran dry: this run shows nothing", l.Partition)
		}
	}
	return nil
}

// densest is the largest number of calls within a second, and when it began.
// The calls were noted just before the API counted them, which differs by next
// to nothing.
func densest(calls []call) (most int, from time.Time) {
	first := 0
	for last := range calls {
		for calls[last].at.Sub(calls[first].at) >= time.Second {
			first++
		}
		if n := last - first + 1; n > most {
			most, from = n, calls[first].at
		}
	}
	return most, from
}

// evidence tells who made the calls of a second, by tenths.
func evidence(calls []call, from time.Time) string {
	byTenth := make(map[string]*[10]int)
	for _, c := range calls {
		if d := c.at.Sub(from); d >= 0 && d < time.Second {
			if byTenth[c.from] == nil {
				byTenth[c.from] = &[10]int{}
			}
			byTenth[c.from][d/(time.Second/10)]++
		}
	}
	var lines []string
	for name, n := range byTenth {
		sum := 0
		for _, k := range n {
			sum += k
		}
		lines = append(lines, fmt.Sprintf("    %s: %3d, by tenths of the second from %s: %v\n", name, sum, from.Format("15:04:05.000"), *n))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
