package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/user"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/terminal"
	"enricher/fetch/lookup"
	"enricher/producer"
	"enricher/producer/replay"
)

// jobFlags are common to the commands that change the state of dead letters.
type jobFlags struct {
	By       string `args-only:"" default:"${user}" help:"Who does it, for the journal."`
	Note     string `args-only:"" placeholder:"TEXT" help:"Why, for the journal."`
	TakeOver bool   `args-only:"" help:"End another replay, discard or reopen that is running, instead of leaving it alone."`
	DryRun   bool   `args-only:"" help:"Print what would be done, and do nothing."`

	config.ProducerFlags
}

// allFlag guards commands that must not act on everything by mistake.
type allFlag struct {
	All bool `args-only:"" help:"All of them; required if no other flag selects some."`
}

// Check records a problem unless dead letters are selected, or all of them.
func (f *allFlag) Check(src *config.Sources, filter *filterFlags) {
	switch given := filter.given(); {
	case !given && !f.All:
		src.Problem("all", "must be given to act on all of them; or select some, for example with --reason")
	case given && f.All:
		src.Problem("all", "conflicts with the flags that select some of them")
	}
}

// UserName returns the name of the OS user, the default of --by. It is "" in a
// container whose user has no name.
func UserName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

type replayCmd struct {
	topicFlags
	filterFlags    `group:"Selection:"`
	Limit          int         `args-only:"" default:"0" group:"Selection:" help:"Maximum number (0 = all)."`
	MaxReplays     int         `args-only:"" default:"3" group:"Selection:" help:"Skip events that have already been replayed this many times."`
	IncludeExpired bool        `args-only:"" group:"Selection:" help:"Also replay events older than the API's retention."`
	To             string      `args-only:"" placeholder:"TOPIC" group:"Replay:" help:"Replay to this topic instead of the one each event came from."`
	DropHeader     config.List `args-only:"" placeholder:"NAME" group:"Replay:" help:"Replay the events without their headers of this name. May be given several times."`
	Rate           float64     `args-only:"" placeholder:"N" group:"Replay:" help:"Dead letters per second (default: a tenth of --api-rate)."`
	APIRate        float64     `name:"api-rate" default:"200" group:"Replay:" help:"The --api-rate of enricher run: maximum API requests per second (0 = unlimited)."`
	jobFlags       `group:"Replay:"`
}

// Example returns a command line for the help.
func (*replayCmd) Example() string {
	return "enricher dlq replay --reason lookup_failed --since 1d --dry-run"
}

// Check implements config.Checker.
func (c *replayCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.ProducerFlags.Check(src, &c.KafkaFlags)
	c.filterFlags.Check(src, c.Limit)
	checkTarget(src, &c.topicFlags, c.To)
	for _, name := range c.DropHeader {
		if producer.IsReplayHeader(name) {
			src.Problem("drop-header", "%q is enricher's own: it says when the event was first produced or how often it was replayed, and every replay writes it again", name)
		}
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

// checkTarget records what is wrong with the topic to replay to; "": the one that
// each event came from.
func checkTarget(src *config.Sources, topics *topicFlags, to string) {
	switch to {
	case "":
	case topics.DeadLetterTopic:
		src.Problem("to", "%q is the dead-letter topic: its records would become dead letters of dead letters; use another topic", to)
	case topics.JournalTopic:
		src.Problem("to", "%q is the journal; use another topic", to)
	}
}

// Run sends the dead letters that the flags select back, each once.
func (c *replayCmd) Run(ctx context.Context, k *kong.Kong) error {
	j := replay.Job{
		Topics: c.topics(), Filter: c.filter, Action: replay.Replayed, To: c.To, DropHeaders: c.DropHeader,
		Rate: c.Rate, MaxReplays: c.MaxReplays, Retention: lookup.APIRetention,
	}
	if c.IncludeExpired {
		j.Retention = 0
	}
	_, err := c.run(ctx, k, j, &c.jobFlags)
	return err
}

type discardCmd struct {
	topicFlags
	filterFlags `group:"Selection:"`
	allFlag     `group:"Selection:"`
	Limit       int `args-only:"" default:"0" group:"Selection:" help:"Maximum number (0 = all)."`
	jobFlags    `group:"Discard:"`
}

// Example returns a command line for the help.
func (*discardCmd) Example() string {
	return "enricher dlq discard --reason malformed --note 'fixed in the producer'"
}

// Check implements config.Checker.
func (c *discardCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.ProducerFlags.Check(src, &c.KafkaFlags)
	c.filterFlags.Check(src, c.Limit)
	c.allFlag.Check(src, &c.filterFlags)
	src.Required("note", c.Note)
}

// Run marks the dead letters that the flags select as done.
func (c *discardCmd) Run(ctx context.Context, k *kong.Kong) error {
	_, err := c.run(ctx, k, replay.Job{Topics: c.topics(), Filter: c.filter, Action: replay.Discarded}, &c.jobFlags)
	return err
}

type reopenCmd struct {
	topicFlags
	filterFlags `group:"Selection:"`
	allFlag     `group:"Selection:"`
	Limit       int `args-only:"" default:"0" group:"Selection:" help:"Maximum number (0 = all)."`
	jobFlags    `group:"Reopen:"`
}

// Example returns a command line for the help.
func (*reopenCmd) Example() string { return "enricher dlq reopen --reason malformed --since 1d" }

// Check implements config.Checker.
func (c *reopenCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.ProducerFlags.Check(src, &c.KafkaFlags)
	c.filterFlags.Check(src, c.Limit)
	c.allFlag.Check(src, &c.filterFlags)
}

// Run makes the discarded dead letters that the flags select open again.
func (c *reopenCmd) Run(ctx context.Context, k *kong.Kong) error {
	_, err := c.run(ctx, k, replay.Job{Topics: c.topics(), Filter: c.filter, Action: replay.Open}, &c.jobFlags)
	return err
}

// run runs a job or, on a dry run, prints its plan. It returns how many dead letters
// are, or would be, completed.
func (f *topicFlags) run(ctx context.Context, k *kong.Kong, j replay.Job, flags *jobFlags) (int, error) {
	j.By, j.Note, j.TakeOver = flags.By, flags.Note, flags.TakeOver
	j.Host, _ = os.Hostname() // "" if it is not known
	j.MaxRecordBytes = int32(flags.BatchMaxBytes)
	if flags.DryRun {
		v, err := f.open(ctx)
		if err != nil {
			return 0, err
		}
		defer v.Close()
		plan, err := v.Plan(ctx, &j)
		if err != nil {
			return 0, f.explain(err)
		}
		printPlan(k.Stdout, &j, plan, "would be")
		return plan.DeadLetters, nil
	}
	view := newProgress(k.Stdout, &j)
	result, err := replay.Run(ctx, j, view)
	view.out.Clear()
	total := 0
	if result.Plan != nil {
		total = result.Plan.DeadLetters
		_, _ = fmt.Fprintf(k.Stdout, "%s %d of %s in %v\n", done(j.Action), result.Completed, count(total), view.elapsed().Round(100*time.Millisecond))
	}
	if result.Expired > 0 {
		_, _ = fmt.Fprintf(k.Stdout, "deleted by retention before they were processed: %s\n", count(result.Expired))
	}
	for _, reason := range []replay.SkipReason{replay.TooLarge, replay.Refused} {
		if n := skipped(result, reason); n > 0 {
			_, _ = fmt.Fprintf(k.Stdout, "left open: %s, %s%s\n", count(n), reason, remedies[reason])
		}
	}
	return result.Completed, f.explainRun(ctx, result, total, err)
}

// explainRun adds to the error of a run how far it came, and advice.
func (f *topicFlags) explainRun(ctx context.Context, result replay.Result, total int, err error) error {
	var running *replay.RunningError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &running):
		return hint.With(err, "wait until it has ended, or interrupt it there; --take-over ends it, and what it had not done stays open")
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

func skipped(r replay.Result, reason replay.SkipReason) int {
	if r.Plan == nil {
		return 0
	}
	return r.Plan.Skipped[reason]
}

// done returns what was done to a dead letter.
func done(action replay.State) string {
	if action == replay.Open {
		return "reopened"
	}
	return string(action)
}

// printPlan prints what a job is going to do, and how long it takes. modal is
// "would be" or "to be".
func printPlan(w io.Writer, j *replay.Job, p *replay.Plan, modal string) {
	printRow(w, "%s %s %s", count(p.DeadLetters), modal, done(j.Action))
	for _, r := range slices.Sorted(maps.Keys(p.Reasons)) {
		printRow(w, "  %8d  %s", p.Reasons[r], r)
	}
	for _, to := range slices.Sorted(maps.Keys(p.To)) {
		printRow(w, "  %8d  to topic %s", p.To[to], to)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Dropped)) {
		printRow(w, "  %8d  without their header %s", p.Dropped[name], terminal.Printable(name, 0))
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
	replay.Uncorrected:       " (the topic was re-created; edit the event again)",
	replay.NoOriginTopic:     " (use --to to replay them to another topic)",
	replay.TooLarge:          " (raise its max.message.bytes or --batch-max-bytes, or discard them)",
	replay.Refused:           " (use --to to replay them to another topic, or discard them)",
}
