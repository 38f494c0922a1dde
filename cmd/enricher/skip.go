package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/terminal"
	"enricher/consumer/session"
	"enricher/consumer/skip"
	"enricher/schemas"
)

// maxListedEvents is how many of the events to skip are printed.
const maxListedEvents = 20

type skipCmd struct {
	At string `arg:"" name:"topic:partition" help:"The input topic and the partition, for example call-ended:3."`

	config.KafkaFlags    `group:"Kafka:"`
	Group                string `default:"call-enricher" group:"Kafka:" help:"Consumer group, which must be stopped."`
	AutoOffsetReset      string `default:"earliest" values:"earliest,latest,none" group:"Kafka:" help:"Where the group starts when it has no committed offset: earliest, latest or none."`
	DeadLetterTopic      string `default:"call-dead-letters" group:"Kafka:" help:"Topic that records what is skipped."`
	config.ProducerFlags `group:"Output:"`
	From                 int64  `args-only:"" placeholder:"OFFSET" group:"Skip:" help:"First offset to skip (default: the committed offset)."`
	To                   int64  `args-only:"" placeholder:"OFFSET" group:"Skip:" help:"Offset after the last one to skip (required)."`
	Note                 string `args-only:"" placeholder:"TEXT" group:"Skip:" help:"Reason recorded in the dead letters (required)."`
	DryRun               bool   `args-only:"" group:"Skip:" help:"Print what would be done, and do nothing."`
	JSON                 bool   `name:"json" group:"Output:" help:"Print the result as JSON."`

	topic     string // set by Check
	partition int32
}

// Example returns a command line for the help.
func (*skipCmd) Example() string {
	return `enricher skip call-ended:3 --from 1041 --to 1042 \
    --note 'damaged-in-INC-7' --dry-run`
}

// Check implements config.Checker.
func (c *skipCmd) Check(src *config.Sources) {
	c.KafkaFlags.Check(src)
	c.ProducerFlags.Check(src, &c.KafkaFlags)
	i := strings.LastIndexByte(c.At, ':')
	partition, err := strconv.ParseInt(c.At[i+1:], 10, 32)
	if i < 1 || err != nil || partition < 0 {
		src.Problem("", "%q must be a topic and a partition, for example call-ended:3", c.At)
	} else {
		c.topic, c.partition = c.At[:i], int32(partition)
	}
	src.Required("group", c.Group)
	src.Required("dead-letter-topic", c.DeadLetterTopic)
	src.Required("note", c.Note)
	src.OneOf("auto-offset-reset", c.AutoOffsetReset)
	switch {
	case c.From < 0:
		src.Problem("from", "must not be negative")
	case c.To < 1:
		src.Problem("to", "must be given, and above 0")
	case c.To <= c.From:
		src.Problem("to", "must be above --from")
	}
}

// Run skips what the flags select, or prints what would be skipped.
func (c *skipCmd) Run(ctx context.Context, k *kong.Kong) error {
	plan, err := skip.NewPlan(ctx, skip.Request{
		Kafka: func() []kgo.Opt { return slices.Clone(c.Options) }, Group: c.Group,
		Topic: c.topic, Partition: c.partition, From: c.From, To: c.To, Reset: session.Reset(c.AutoOffsetReset),
		DeadLetterTopic: c.DeadLetterTopic, MaxRecordBytes: int32(c.BatchMaxBytes), Note: c.Note, By: operator(),
	})
	if err == nil && !plan.Empty() && !c.DryRun {
		err = plan.Commit(ctx)
	}
	if err != nil {
		return c.explain(err)
	}
	if c.JSON {
		return json.NewEncoder(k.Stdout).Encode(c.result(plan))
	}
	c.print(k.Stdout, plan)
	return nil
}

func (c *skipCmd) explain(err error) error {
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return hint.With(err, "check the topic, the partition, --dead-letter-topic and --brokers")
	case errors.Is(err, kerr.GroupIDNotFound):
		return hint.With(err, "check --group and --brokers")
	case errors.Is(err, skip.ErrChanged):
		return hint.With(err, "look at it again with --dry-run")
	}
	return hint.Explain(err, c.Principal())
}

// operator returns who runs this command.
func operator() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	return name
}

// skipResult is what the command prints with --json.
type skipResult struct {
	Topic      string            `json:"topic"`
	Partition  int32             `json:"partition"`
	From       int64             `json:"from"`
	To         int64             `json:"to"`
	DryRun     bool              `json:"dry_run"`
	Events     []skippedEvent    `json:"events"`
	Unreadable []unreadableRange `json:"unreadable"`
	// Before and After are the committed offsets.
	Before int64 `json:"committed_before"`
	After  int64 `json:"committed_after"`
}

type skippedEvent struct {
	Offset int64  `json:"offset"`
	CallID string `json:"call_id,omitempty"`
}

type unreadableRange struct {
	From  int64  `json:"from"`
	To    int64  `json:"to"`
	Error string `json:"error"`
}

func (c *skipCmd) result(p *skip.Plan) skipResult {
	r := skipResult{
		Topic: c.topic, Partition: c.partition, From: p.From, To: p.To, DryRun: c.DryRun,
		Events: []skippedEvent{}, Unreadable: []unreadableRange{}, Before: p.Before.Base, After: p.After.Base,
	}
	for _, e := range p.Events {
		parsed, _ := schemas.ParseEvent(e.Value) // without a CallId if it cannot be parsed
		r.Events = append(r.Events, skippedEvent{e.Offset, parsed.CallID})
	}
	for _, u := range p.Unreadable {
		r.Unreadable = append(r.Unreadable, unreadableRange{u.From, u.To, u.Err.Error()})
	}
	return r
}

func (c *skipCmd) print(w io.Writer, p *skip.Plan) {
	printf := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	if p.Empty() {
		printf("nothing to skip: %s, offsets %d to %d are completed\n", c.At, c.From, c.To-1)
		return
	}
	done := "skipped"
	if c.DryRun {
		done = "would be skipped"
	}
	r := c.result(p)
	events := fmt.Sprint(len(r.Events), " events")
	if len(r.Events) == 1 {
		events = "1 event"
	}
	printf("%s, offsets %d to %d: %s %s\n", c.At, r.From, r.To-1, events, done)
	for i, e := range r.Events {
		if i == maxListedEvents {
			printf("  … and %d more\n", len(r.Events)-i)
			break
		}
		printf("  offset %d  %s\n", e.Offset, terminal.Printable(e.CallID, 36))
	}
	for _, u := range r.Unreadable {
		printf("  offsets %d to %d: a batch that cannot be read: %s\n", u.From, u.To-1, terminal.Printable(u.Error, 0))
	}
	printf("committed offset: %d before, %d after\n", r.Before, r.After)
	if c.DryRun && len(p.Members) > 0 {
		printf("the group is running; stop all instances first: %s\n", strings.Join(p.Members, ", "))
	}
}
