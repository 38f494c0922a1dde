package main

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
	"unicode"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/producer"
	"enricher/producer/replay"
	"enricher/schemas"
)

// dlqCmd is what can be done with dead letters.
type dlqCmd struct {
	Stats   dlqStatsCmd   `cmd:"" help:"Count letters by reason, code and age."`
	Ls      dlqLsCmd      `cmd:"" help:"List letters."`
	Show    dlqShowCmd    `cmd:"" help:"Print letters whole: headers, event, history."`
	Replay  dlqReplayCmd  `cmd:"" help:"Send open letters back to the topic they came from, each once."`
	Discard dlqDiscardCmd `cmd:"" help:"Mark open letters as done without replaying them."`
}

// letterFlags say where the letters are.
type letterFlags struct {
	kafkaFlags
	DeadLetterTopic string `default:"call-dead-letters" help:"Topic of events that could not be enriched."`
	JournalTopic    string `placeholder:"TOPIC" help:"Topic that remembers what was replayed or discarded; by default the dead-letter topic's name and -journal."`
}

func (f *letterFlags) check(in *inputs) {
	f.kafkaFlags.check(in)
	in.required("dead-letter-topic", f.DeadLetterTopic)
	if f.JournalTopic == "" {
		f.JournalTopic = f.DeadLetterTopic + "-journal"
	}
	if f.JournalTopic == f.DeadLetterTopic {
		in.problem("journal-topic", "is the dead-letter topic, %q; name another topic", f.DeadLetterTopic)
	}
}

func (f *letterFlags) topics() replay.Topics {
	return replay.Topics{Kafka: f.opts, DeadLetterTopic: f.DeadLetterTopic, JournalTopic: f.JournalTopic}
}

// look opens a view, or says what to do.
func (f *letterFlags) look(ctx context.Context) (*replay.Snapshot, error) {
	v, err := replay.OpenSnapshot(ctx, f.topics())
	return v, f.explain(err)
}

// explain adds the remedy to an error of package replay.
func (f *letterFlags) explain(err error) error {
	var network net.Error // a time-out is one too
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("%w; check --dead-letter-topic and --brokers", err)
	case errors.As(err, &network):
		return fmt.Errorf("no answer from Kafka at %s; check --brokers and the network: %w", strings.Join(f.Brokers, ","), err)
	}
	return withHint(err)
}

// withHint adds what can be done about an error whose type says what is wrong.
func withHint(err error) error {
	var (
		denied *producer.NotAuthorizedError
		config *replay.JournalConfigError
		create *replay.JournalCreateError
		target *replay.MissingTargetError
		open   *replay.OpenTransactionError
	)
	switch {
	case errors.As(err, &denied):
		return fmt.Errorf("%w; grant it: kafka-acls --add --allow-principal User:… --operation %s --%s %s",
			err, strings.Join(denied.Operations, " --operation "), denied.ResourceType, denied.Resource)
	case errors.As(err, &config):
		return fmt.Errorf("%w; fix it with: kafka-configs --alter --entity-type topics --entity-name %s --add-config %s=%s",
			err, config.Topic, config.Key, config.Want)
	case errors.As(err, &create):
		return fmt.Errorf("%w; create it: kafka-topics --create --topic %s --partitions 1 --config %s=%s",
			err, create.Topic, create.Key, create.Want)
	case errors.As(err, &target):
		return fmt.Errorf("%w; create it, or choose another topic with --to", err)
	case errors.As(err, &open):
		return fmt.Errorf("%w; find it: kafka-transactions find-hanging", err)
	}
	return err
}

// filterFlags pick letters.
type filterFlags struct {
	Letters   []string `arg:"" optional:"" name:"letter" help:"Letters by partition and offset, such as 0:17; by default all."`
	Reason    list     `help:"Only these reasons: ${reasons}."`
	Code      list     `help:"Only these codes of the API, or HTTP statuses."`
	Since     instant  `placeholder:"TIME" help:"Only letters written since then: a time (2026-01-31T15:04:05Z), a day (2026-01-31), or so long ago (90m, 3d)."`
	Until     instant  `placeholder:"TIME" help:"Only letters written before then."`
	CallID    list     `name:"call-id" help:"Only these calls."`
	Partition list     `help:"Only these partitions of the dead-letter topic."`

	filter replay.Filter // set by check
}

func (f *filterFlags) check(in *inputs, limit int) {
	f.filter = replay.Filter{CallIDs: f.CallID, Since: f.Since.Time, Until: f.Until.Time, Limit: limit}
	for _, l := range f.Letters {
		ref, err := replay.ParsePosition(l)
		if err != nil {
			in.problem("", "%v", err)
		}
		f.filter.Positions = append(f.filter.Positions, ref)
	}
	for _, r := range f.Reason {
		if !slices.Contains(schemas.Reasons(), schemas.Reason(r)) {
			in.problem("reason", "%q is none of %s", r, reasonNames())
		}
		f.filter.Reasons = append(f.filter.Reasons, schemas.Reason(r))
	}
	for _, c := range f.Code {
		n, err := strconv.Atoi(c)
		if err != nil {
			in.problem("code", "%q is not a whole number", c)
		}
		f.filter.Codes = append(f.filter.Codes, n)
	}
	for _, p := range f.Partition {
		n, err := strconv.ParseInt(p, 10, 32)
		if err != nil || n < 0 {
			in.problem("partition", "%q is no partition: 0, 1, …", p)
		}
		f.filter.Partitions = append(f.filter.Partitions, int32(n))
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until.Time) {
		in.problem("until", "is not after --since")
	}
	if limit < 0 {
		in.problem("limit", "must not be negative (0: no limit)")
	}
}

func reasonNames() string {
	var names []string
	for _, r := range schemas.Reasons() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// stateFlag picks letters by what became of them.
type stateFlag struct {
	State string `default:"open" help:"open, replayed, discarded or all; all lists records of others too."`
}

func (f *stateFlag) check(in *inputs, filter *replay.Filter) {
	switch s := replay.State(f.State); s {
	case replay.Open, replay.Replayed, replay.Discarded:
		filter.States = []replay.State{s}
	case "all":
	default:
		in.problem("state", "%q is none of open, replayed, discarded, all", f.State)
	}
}

// instant is a moment, given as such or as how long ago.
type instant struct{ time.Time }

func parseInstant(s string) (instant, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return instant{t}, nil
		}
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return instant{time.Now().Add(-time.Duration(n) * 24 * time.Hour)}, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return instant{time.Now().Add(-d)}, nil
	}
	return instant{}, errors.New("is no time, such as 2026-01-31T15:04:05Z, 2026-01-31, 90m or 3d (ago)")
}

// printable is text of others as it may go to a terminal: control characters in it
// are shown instead of obeyed. What is longer than max characters is cut; 0: nothing is.
func printable(s string, max int) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		s = strconv.QuoteToGraphic(s)
	}
	if r := []rune(s); max > 0 && len(r) > max {
		return string(r[:max-1]) + "…"
	}
	return s
}

// line prints columns without the blanks at the end.
func line(w io.Writer, format string, columns ...any) {
	_, _ = fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf(format, columns...), " "))
}

// moment is a time as a person reads it, in UTC.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
