package dlqcmd

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

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/hint"
	"enricher/fetch/lookup"
	"enricher/producer/replay"
)

type replayCmd struct {
	topicFlags
	filterFlags    `group:"Selection:"`
	Limit          int     `default:"0" group:"Selection:" help:"Maximum number (0 = all)."`
	MaxReplays     int     `default:"3" group:"Selection:" help:"Skip events that have already been replayed this many times."`
	IncludeExpired bool    `group:"Selection:" help:"Also replay events older than the API's retention."`
	To             string  `placeholder:"TOPIC" group:"Replay:" help:"Replay to this topic instead of the one each event came from."`
	Rate           float64 `placeholder:"N" group:"Replay:" help:"Dead letters per second (default: a tenth of --api-rate)."`
	APIRate        float64 `name:"api-rate" default:"200" group:"Replay:" help:"The --api-rate of enricher run: maximum API requests per second (0 = unlimited)."`
	DryRun         bool    `group:"Replay:" help:"Print what would be done, and do nothing."`
}

// Example returns a command line for the help.
func (*replayCmd) Example() string {
	return "enricher dlq replay --reason lookup_failed --since 1d --dry-run"
}

// Check implements config.Checker.
func (c *replayCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.filterFlags.Check(src, c.Limit)
	switch c.To {
	case "":
	case c.DeadLetterTopic:
		src.Problem("to", "%q is the dead-letter topic: its records would become dead letters of dead letters; use another topic", c.To)
	case c.JournalTopic:
		src.Problem("to", "%q is the journal; use another topic", c.To)
	}
	if c.APIRate < 0 {
		src.Problem("api-rate", "must not be negative (0 = unlimited)")
	}
	if c.Rate < 0 {
		src.Problem("rate", "must not be negative (0 = a tenth of --api-rate)")
	}
	if c.Rate == 0 {
		c.Rate = c.APIRate / 10
	}
	if c.MaxReplays < 1 {
		src.Problem("max-replays", "must be at least 1")
	}
}

// Run sends the dead letters that the flags select back, each once.
func (c *replayCmd) Run(ctx context.Context, k *kong.Kong) error {
	j := replay.Job{
		Topics: c.topics(), Filter: c.filter, Action: replay.Replayed, To: c.To,
		Rate: c.Rate, MaxReplays: c.MaxReplays, Retention: lookup.APIRetention,
	}
	if c.IncludeExpired {
		j.Retention = 0
	}
	return c.run(ctx, k, j, c.DryRun)
}

type discardCmd struct {
	topicFlags
	filterFlags `group:"Selection:"`
	Limit       int    `default:"0" group:"Selection:" help:"Maximum number (0 = all)."`
	Note        string `placeholder:"TEXT" group:"Discard:" help:"Reason recorded in the journal (required)."`
	DryRun      bool   `group:"Discard:" help:"Print what would be done, and do nothing."`
}

// Example returns a command line for the help.
func (*discardCmd) Example() string {
	return "enricher dlq discard --reason malformed --note 'fixed in the producer'"
}

// Check implements config.Checker.
func (c *discardCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.filterFlags.Check(src, c.Limit)
	src.Required("note", c.Note)
}

// Run marks the dead letters that the flags select as done.
func (c *discardCmd) Run(ctx context.Context, k *kong.Kong) error {
	return c.run(ctx, k, replay.Job{Topics: c.topics(), Filter: c.filter, Action: replay.Discarded, Note: c.Note}, c.DryRun)
}

// run runs a job or, on a dry run, prints its plan.
func (f *topicFlags) run(ctx context.Context, k *kong.Kong, j replay.Job, dry bool) error {
	if dry {
		v, err := f.open(ctx)
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
	view := newProgress(k.Stdout, &j)
	result, err := replay.Run(ctx, j, view)
	view.out.Clear()
	total := 0
	if result.Plan != nil {
		total = result.Plan.DeadLetters
		_, _ = fmt.Fprintf(k.Stdout, "%s %d of %s in %v\n", j.Action, result.Completed, count(total), view.elapsed().Round(100*time.Millisecond))
	}
	if result.Expired > 0 {
		_, _ = fmt.Fprintf(k.Stdout, "deleted by retention before they were processed: %s\n", count(result.Expired))
	}
	if n := refused(result); n > 0 {
		_, _ = fmt.Fprintf(k.Stdout, "left open: %s, %s; raise its max.message.bytes, or discard them\n", count(n), replay.TooLarge)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, replay.ErrFenced):
		return hint.With(fmt.Errorf("stopped after %s: %w", count(result.Completed), err),
			"if no other replay is running, this process was suspended for too long; run it again")
	case errors.Is(err, replay.ErrRecreated):
		return hint.With(fmt.Errorf("stopped after %s: %w", count(result.Completed), err), "inspect the topic's records before replaying them")
	case ctx.Err() != nil:
		return hint.With(fmt.Errorf("interrupted after %d of %s", result.Completed, count(total)), "run it again to continue")
	case result.Plan != nil:
		err = fmt.Errorf("stopped after %d of %s: %w", result.Completed, count(total), f.explain(err))
		if hint.For(err) != "" {
			return err
		}
		return hint.With(err, "run it again to continue")
	}
	return f.explain(err)
}

func refused(r replay.Result) int {
	if r.Plan == nil {
		return 0
	}
	return r.Plan.Skipped[replay.TooLarge]
}

// printPlan prints what a job is going to do, and how long it takes. modal is
// "would be" or "to be".
func printPlan(w io.Writer, j *replay.Job, p *replay.Plan, modal string) {
	printRow(w, "%s %s %s", count(p.DeadLetters), modal, j.Action)
	for _, r := range slices.Sorted(maps.Keys(p.Reasons)) {
		printRow(w, "  %8d  %s", p.Reasons[r], r)
	}
	for _, to := range slices.Sorted(maps.Keys(p.To)) {
		printRow(w, "  %8d  to topic %s", p.To[to], to)
	}
	for _, o := range replay.SkipReasons() {
		if n := p.Skipped[o]; n > 0 {
			printRow(w, "left open: %s, %s%s", count(n), o, remedies[o])
		}
	}
	if j.Action == replay.Replayed && j.Rate > 0 && p.DeadLetters > 0 {
		printRow(w, "about %v at %v dead letters per second", time.Duration(math.Ceil(float64(p.DeadLetters)/j.Rate))*time.Second, j.Rate)
	}
}

// remedies are for dead letters that a replay leaves open.
var remedies = map[replay.SkipReason]string{
	replay.TooOld:            " (use --include-expired to replay them)",
	replay.MaxReplaysReached: " (raise --max-replays to replay them)",
	replay.PayloadOmitted:    " (produce the event again from its source, then discard this record)",
	replay.Unreadable:        " (produce the events again from their source, then discard this record)",
	replay.NoOriginTopic:     " (use --to to replay them to another topic)",
}
