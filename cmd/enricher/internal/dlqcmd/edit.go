package dlqcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/hint"
	"enricher/fetch/lookup"
	"enricher/producer/replay"
)

type editCmd struct {
	topicFlags
	Position       string `arg:"" help:"The dead letter by partition and offset, for example 0:17."`
	ValueFile      string `args-only:"" placeholder:"FILE" group:"Edit:" help:"File with the corrected value, - for standard input (default: the value is edited in $VISUAL or $EDITOR)."`
	To             string `args-only:"" placeholder:"TOPIC" group:"Edit:" help:"Send the event to this topic instead of the one it came from."`
	IncludeExpired bool   `args-only:"" group:"Edit:" help:"Also send an event older than the API's retention."`
	jobFlags       `group:"Edit:"`

	position replay.Position // set by Check
	editor   []string        // command and arguments; set by Check
}

// Example returns a command line for the help.
func (*editCmd) Example() string {
	return "enricher dlq edit 0:17 --value-file corrected.json --note corrected"
}

// Check implements config.Checker.
func (c *editCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.ProducerFlags.Check(src, &c.KafkaFlags)
	var err error
	if c.position, err = replay.ParsePosition(c.Position); err != nil {
		src.Problem("", "%v", err)
	}
	checkTarget(src, &c.topicFlags, c.To)
	if c.editor = strings.Fields(os.Getenv("VISUAL")); len(c.editor) == 0 {
		c.editor = strings.Fields(os.Getenv("EDITOR"))
	}
	if c.ValueFile == "" && len(c.editor) == 0 {
		src.Problem("value-file", "must be given, because neither $VISUAL nor $EDITOR is set")
	}
}

// Run sends the event of a dead letter once, with another value.
func (c *editCmd) Run(ctx context.Context, k *kong.Kong) error {
	e, err := c.find(ctx)
	if err != nil {
		return err
	}
	if e.DeadLetter.OmittedBytes > 0 || e.DeadLetter.UnreadableOffsets > 0 {
		return hint.With(fmt.Errorf("record %v has no event that could be corrected", c.position), "produce the event again from its source, then discard this record")
	}
	value, draft, err := c.value(e.DeadLetter.Value)
	if err == nil {
		err = c.send(ctx, k, e, value)
	}
	switch {
	case draft == "":
		return err
	case err == nil && !c.DryRun:
		return os.Remove(draft)
	}
	_, _ = fmt.Fprintf(k.Stderr, "what was edited is in %s; --value-file %s uses it\n", draft, draft)
	return err
}

// find returns the dead letter.
func (c *editCmd) find(ctx context.Context) (*replay.Record, error) {
	v, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	e, err := v.Find(ctx, c.position)
	if err != nil {
		return nil, c.explain(fmt.Errorf("record %v: %w", c.position, err))
	}
	if e.State != replay.Open {
		return nil, fmt.Errorf("record %v: it is %s", c.position, e.State) // before anyone edits it
	}
	return e.Clone(), nil
}

// value returns the corrected value, and the file in which it was edited, if any.
func (c *editCmd) value(original []byte) (value []byte, draft string, err error) {
	switch c.ValueFile {
	case "":
		if draft, err = c.edit(original); err == nil {
			value, err = os.ReadFile(draft)
		}
	case "-":
		value, err = io.ReadAll(os.Stdin)
	default:
		if value, err = os.ReadFile(c.ValueFile); err != nil {
			err = hint.With(err, "check --value-file")
		}
	}
	// Editors end the last line, and so do most commands.
	value = bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))
	return value, draft, err
}

// edit has the value edited in a file, and returns its name.
func (c *editCmd) edit(original []byte) (string, error) {
	f, err := os.CreateTemp("", "enricher-event-*.json")
	if err != nil {
		return "", err
	}
	_, err = f.Write(original)
	if err = errors.Join(err, f.Close()); err != nil {
		return f.Name(), err
	}
	editor := exec.Command(c.editor[0], append(c.editor[1:len(c.editor):len(c.editor)], f.Name())...)
	editor.Stdin, editor.Stdout, editor.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := editor.Run(); err != nil {
		return f.Name(), hint.With(fmt.Errorf("editor %s: %w", c.editor[0], err), "set $EDITOR, or use --value-file")
	}
	return f.Name(), nil
}

// send sends the corrected event, or says what would be sent.
func (c *editCmd) send(ctx context.Context, k *kong.Kong, e *replay.Record, value []byte) error {
	correction, err := replay.Correct(e, value)
	if err != nil {
		return fmt.Errorf("record %v: %w", c.position, err)
	}
	j := replay.Job{
		Topics: c.topics(), Filter: replay.Filter{Positions: []replay.Position{c.position}}, Action: replay.Replayed, To: c.To,
		Correction: correction, MaxReplays: math.MaxInt, Retention: lookup.APIRetention,
	}
	if c.IncludeExpired {
		j.Retention = 0
	}
	n, err := c.run(ctx, k, j, &c.jobFlags)
	if err == nil && n == 0 {
		return fmt.Errorf("record %v: nothing was sent", c.position)
	}
	return err
}
