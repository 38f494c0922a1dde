package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"enricher/fetch"
	"enricher/producer/replay"
)

type dlqReplayCmd struct {
	letterFlags
	filterFlags
	Limit          int     `default:"0" help:"At most so many; 0: all."`
	To             string  `placeholder:"TOPIC" help:"Replay to this topic instead of the one each event came from."`
	Rate           float64 `placeholder:"N" help:"Letters a second; by default a tenth of --api-rate, so that live events keep the rest."`
	APIRate        float64 `name:"api-rate" default:"200" help:"Calls a second of enricher run; 0: no limit."`
	MaxReplays     int     `default:"3" help:"Leave out events that were replayed so often already."`
	IncludeExpired bool    `help:"Also replay events so old that the API has no record any more."`
	DryRun         bool    `help:"Only say what would be done."`
}

func (c *dlqReplayCmd) check(in *inputs) {
	c.letterFlags.check(in)
	c.filterFlags.check(in, c.Limit)
	switch c.To {
	case "":
	case c.DeadLetterTopic:
		in.problem("to", "is the dead-letter topic: letters would come out of letters; name another topic")
	case c.JournalTopic:
		in.problem("to", "is the journal, which holds nothing else; name another topic")
	}
	if c.APIRate < 0 {
		in.problem("api-rate", "must not be negative (0: no limit)")
	}
	if c.Rate < 0 {
		in.problem("rate", "must not be negative (0: a tenth of --api-rate)")
	}
	if c.Rate == 0 {
		c.Rate = c.APIRate / 10
	}
	if c.MaxReplays < 1 {
		in.problem("max-replays", "must be at least 1")
	}
}

// Run replays letters.
func (c *dlqReplayCmd) Run(ctx context.Context, k *kong.Kong) error {
	j := replay.Job{
		Topics: c.topics(), Filter: c.filter, Action: replay.Replayed, To: c.To,
		Rate: c.Rate, MaxReplays: c.MaxReplays, Retention: fetch.Retention,
	}
	if c.IncludeExpired {
		j.Retention = 0
	}
	return c.run(ctx, k, j, c.DryRun)
}

type dlqDiscardCmd struct {
	letterFlags
	filterFlags
	Because string `placeholder:"WHY" help:"Why, for the journal; must be given."`
	Limit   int    `default:"0" help:"At most so many; 0: all."`
	DryRun  bool   `help:"Only say what would be done."`
}

func (c *dlqDiscardCmd) check(in *inputs) {
	c.letterFlags.check(in)
	c.filterFlags.check(in, c.Limit)
	in.required("because", c.Because)
}

// Run marks letters as done.
func (c *dlqDiscardCmd) Run(ctx context.Context, k *kong.Kong) error {
	return c.run(ctx, k, replay.Job{Topics: c.topics(), Filter: c.filter, Action: replay.Discarded, Note: c.Because}, c.DryRun)
}

// run does a job or, on a dry run, prints its plan.
func (f *letterFlags) run(ctx context.Context, k *kong.Kong, j replay.Job, dry bool) error {
	if dry {
		v, err := f.look(ctx)
		if err != nil {
			return err
		}
		defer v.Close()
		plan, err := v.Plan(ctx, &j)
		if err != nil {
			return f.explain(err)
		}
		printPlan(k.Stdout, &j, plan, "would be")
		return nil
	}
	view := newDlqView(k.Stdout, &j)
	result, err := replay.Run(ctx, j, view)
	view.clear()
	total := 0
	if result.Plan != nil {
		total = result.Plan.DeadLetters
		_, _ = fmt.Fprintf(k.Stdout, "%s %d of %s in %v\n", j.Action, result.Completed, letterCount(total), view.since())
	}
	if result.Expired > 0 {
		_, _ = fmt.Fprintf(k.Stdout, "deleted by retention before their turn: %s\n", letterCount(result.Expired))
	}
	if n := refused(result); n > 0 {
		_, _ = fmt.Fprintf(k.Stdout, "left open: %s, %s; raise its max.message.bytes, or discard them\n", letterCount(n), replay.TooLarge)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, replay.ErrFenced):
		return fmt.Errorf("stopped after %s: %w; if no other replay is running, this process was suspended for too long: run it again", letterCount(result.Completed), err)
	case errors.Is(err, replay.ErrRecreated):
		return fmt.Errorf("stopped after %s: %w; look at the new letters before you replay them", letterCount(result.Completed), err)
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted after %d of %s; run it again to go on", result.Completed, letterCount(total))
	case result.Plan != nil:
		return fmt.Errorf("stopped after %d of %s; run it again to go on: %w", result.Completed, letterCount(total), withHint(err))
	}
	return f.explain(err)
}

func refused(r replay.Result) int {
	if r.Plan == nil {
		return 0
	}
	return r.Plan.Skipped[replay.TooLarge]
}

// printPlan says what a job does, and how long it takes. be: "would be", "to be".
func printPlan(w io.Writer, j *replay.Job, p *replay.Plan, be string) {
	line(w, "%s %s %s", letterCount(p.DeadLetters), be, j.Action)
	for _, r := range slices.Sorted(maps.Keys(p.Reasons)) {
		line(w, "  %8d  %s", p.Reasons[r], r)
	}
	for _, to := range slices.Sorted(maps.Keys(p.To)) {
		line(w, "  %8d  to topic %s", p.To[to], to)
	}
	for _, o := range replay.SkipReasons() {
		if n := p.Skipped[o]; n > 0 {
			line(w, "left open: %s, %s%s", letterCount(n), o, remedies[o])
		}
	}
	if j.Action == replay.Replayed && j.Rate > 0 && p.DeadLetters > 0 {
		line(w, "about %v at %v letters a second", time.Duration(math.Ceil(float64(p.DeadLetters)/j.Rate))*time.Second, j.Rate)
	}
}

func letterCount(n int) string {
	if n == 1 {
		return "1 letter"
	}
	return fmt.Sprint(n, " letters")
}

// remedies are for letters that a replay leaves open.
var remedies = map[replay.SkipReason]string{
	replay.TooOld:            " (--include-expired takes them along)",
	replay.MaxReplaysReached: " (--max-replays)",
	replay.PayloadOmitted:    " (feed the event again from where it came from, and discard the letter)",
	replay.NoOriginTopic:     " (--to sends them elsewhere)",
}
