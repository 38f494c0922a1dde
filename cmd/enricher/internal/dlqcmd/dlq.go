// Package dlqcmd implements the commands on dead letters: counting, listing,
// showing, replaying and discarding them. What they do to Kafka is in package
// replay; this package reads flags and prints results.
package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/terminal"
	"enricher/producer/replay"
	"enricher/schemas"
)

// Command is the group of the commands on dead letters.
type Command struct {
	Stats    statsCmd    `cmd:"" help:"Count dead letters by reason, code and age."`
	Ls       lsCmd       `cmd:"" help:"List dead letters."`
	Show     showCmd     `cmd:"" help:"Show dead letters in full: headers, event, history."`
	Export   exportCmd   `cmd:"" help:"Print dead letters as JSON, one per line, for other programs."`
	Exporter exporterCmd `cmd:"" help:"Serve metrics about open dead letters, until it is stopped."`
	Replay   replayCmd   `cmd:"" help:"Send open dead letters back to the topic they came from, each once."`
	Edit     editCmd     `cmd:"" help:"Correct the event of a dead letter by hand, and send it once."`
	Discard  discardCmd  `cmd:"" help:"Mark open dead letters as done without replaying them."`
	Reopen   reopenCmd   `cmd:"" help:"Make discarded dead letters open again."`
}

// Example returns a command line for the help.
func (*Command) Example() string { return "enricher dlq stats --brokers kafka-1:9092" }

// topicFlags name the dead-letter topic and its journal, and configure how to
// reach them.
type topicFlags struct {
	config.KafkaFlags `group:"Kafka:"`
	DeadLetterTopic   string `default:"call-dead-letters" group:"Topics:" help:"Topic of events that could not be enriched."`
	JournalTopic      string `placeholder:"TOPIC" group:"Topics:" help:"Topic that records what was replayed or discarded (default: <dead-letter-topic>-journal)."`
}

// Check implements config.Checker.
func (f *topicFlags) Check(src *config.Sources) {
	f.KafkaFlags.Check(src)
	src.Required("dead-letter-topic", f.DeadLetterTopic)
	if f.JournalTopic == "" {
		f.JournalTopic = f.DeadLetterTopic + "-journal"
	}
	if f.JournalTopic == f.DeadLetterTopic {
		src.Problem("journal-topic", "%q is the dead-letter topic; use another topic", f.DeadLetterTopic)
	}
}

func (f *topicFlags) topics() replay.Topics {
	return replay.Topics{Kafka: f.Options, DeadLetterTopic: f.DeadLetterTopic, JournalTopic: f.JournalTopic}
}

// open reads the journal and returns a snapshot of the dead letters.
func (f *topicFlags) open(ctx context.Context) (*replay.Snapshot, error) {
	v, err := replay.OpenSnapshot(ctx, f.topics())
	return v, f.explain(err)
}

// explain adds advice to an error of package replay.
func (f *topicFlags) explain(err error) error {
	var network net.Error // includes timeouts
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return hint.With(err, "check --dead-letter-topic and --brokers")
	case hint.For(hint.Explain(err, f.Principal())) == "" && errors.As(err, &network):
		return hint.With(fmt.Errorf("no response from Kafka at %s: %w", strings.Join(f.Brokers, ","), err), "check --brokers and the network")
	}
	return hint.Explain(err, f.Principal())
}

// filterFlags select dead letters.
type filterFlags struct {
	Positions []string    `arg:"" optional:"" name:"position" help:"Dead letters by partition and offset, for example 0:17 (default: all)."`
	Reason    config.List `args-only:"" help:"Only these reasons: ${reasons}."`
	Code      config.List `args-only:"" help:"Only these error codes of the API, or HTTP statuses."`
	Since     config.Time `args-only:"" placeholder:"TIME" help:"Only dead letters written since then: a time (2026-01-31T15:04:05Z), a day (2026-01-31), or an age (90m, 3d)."`
	Until     config.Time `args-only:"" placeholder:"TIME" help:"Only dead letters written before then."`
	CallID    config.List `args-only:"" name:"call-id" help:"Only these CallIds."`
	Partition config.List `args-only:"" help:"Only these partitions of the dead-letter topic."`

	filter replay.Filter // set by Check
}

// Check records what is wrong with the values, given the value of --limit.
func (f *filterFlags) Check(src *config.Sources, limit int) {
	f.filter = replay.Filter{CallIDs: f.CallID, Since: f.Since.Time, Until: f.Until.Time, Limit: limit}
	for _, p := range f.Positions {
		position, err := replay.ParsePosition(p)
		if err != nil {
			src.Problem("", "%v", err)
		}
		f.filter.Positions = append(f.filter.Positions, position)
	}
	for _, r := range f.Reason {
		if !slices.Contains(schemas.Reasons(), schemas.Reason(r)) {
			src.Problem("reason", "%q must be one of %s", r, ReasonNames())
		}
		f.filter.Reasons = append(f.filter.Reasons, schemas.Reason(r))
	}
	for _, c := range f.Code {
		n, err := strconv.Atoi(c)
		if err != nil {
			src.Problem("code", "%q must be an integer", c)
		}
		f.filter.Codes = append(f.filter.Codes, n)
	}
	for _, p := range f.Partition {
		n, err := strconv.ParseInt(p, 10, 32)
		if err != nil || n < 0 {
			src.Problem("partition", "%q must be a partition number: 0, 1, …", p)
		}
		f.filter.Partitions = append(f.filter.Partitions, int32(n))
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until.Time) {
		src.Problem("until", "must be after --since")
	}
	if limit < 0 {
		src.Problem("limit", "must not be negative (0 = all)")
	}
}

// given reports whether any dead letters are selected, other than by --limit.
func (f *filterFlags) given() bool {
	return len(f.Positions)+len(f.Reason)+len(f.Code)+len(f.CallID)+len(f.Partition) > 0 || !f.Since.IsZero() || !f.Until.IsZero()
}

// ReasonNames lists the reasons of dead letters for the help.
func ReasonNames() string {
	var names []string
	for _, r := range schemas.Reasons() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// stateFlag selects dead letters by what has been done with them.
type stateFlag struct {
	State string `args-only:"" default:"open" help:"open, replayed, discarded, or all (all includes records not written by enricher)."`
}

// Check sets the states of a filter and records an unknown state.
func (f *stateFlag) Check(src *config.Sources, filter *replay.Filter) {
	switch s := replay.State(f.State); s {
	case replay.Open, replay.Replayed, replay.Discarded:
		filter.States = []replay.State{s}
	case "all":
	default:
		src.Problem("state", "%q must be one of open, replayed, discarded, all", f.State)
	}
}

// printRow prints columns without the blanks at the end.
func printRow(w io.Writer, format string, columns ...any) {
	_, _ = fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf(format, columns...), " "))
}

// table prints rows, on a terminal cut to its width.
type table struct {
	w     io.Writer
	width int // 0: no limit
}

func newTable(w io.Writer) table {
	if out := terminal.NewWriter(w); out.IsTerminal() {
		return table{w, out.Width()}
	}
	return table{w, 0}
}

func (t table) row(format string, columns ...any) {
	text := strings.TrimRight(fmt.Sprintf(format, columns...), " ")
	if t.width > 0 {
		text = terminal.Cut(text, t.width)
	}
	_, _ = fmt.Fprintln(t.w, text)
}

// formatTime formats a time for people, in UTC.
func formatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// count returns a number of dead letters in words.
func count(n int) string {
	if n == 1 {
		return "1 dead letter"
	}
	return fmt.Sprint(n, " dead letters")
}
