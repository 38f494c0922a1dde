package dlqcmd

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/terminal"
	"enricher/producer/replay"
)

// maxHex is how many bytes of a binary event are shown.
const maxHex = 4096

type showCmd struct {
	topicFlags
	filterFlags `group:"Selection:"`
	State       string `args-only:"" default:"all" group:"Selection:" help:"open, replayed, discarded or all."`
	Limit       int    `args-only:"" default:"10" group:"Selection:" help:"Maximum number, up to 1000."`
	JSON        bool   `name:"json" group:"Output:" help:"Print one JSON object per line."`
}

// Example returns a command line for the help.
func (*showCmd) Example() string { return "enricher dlq show 0:17 2:5" }

// Check implements config.Checker.
func (c *showCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.filterFlags.Check(src, c.Limit)
	(&stateFlag{c.State}).Check(src, &c.filter)
	if c.Limit < 1 || c.Limit > 1000 {
		src.Problem("limit", "must be a number from 1 to 1000")
	}
}

// fullEntry is a record of the dead-letter topic as show prints it.
type fullEntry struct {
	entryLine
	Headers []headerText   `json:"headers"` // of the record, including those of enricher
	Key     *bytesText     `json:"key"`     // null: no key
	Value   *bytesText     `json:"value"`   // null: no value
	History []historyEntry `json:"history"`
}

// historyEntry is what was done to a dead letter.
type historyEntry struct {
	replay.Marker
	Original *bytesText `json:"original,omitempty"` // value that was corrected; absent: none
}

func newHistory(markers []replay.Marker) []historyEntry {
	history := []historyEntry{}
	for _, m := range markers {
		history = append(history, historyEntry{m, newBytesText(m.Original)})
	}
	return history
}

// bytesText is bytes as text, or in base64 if they are not valid UTF-8.
type bytesText struct {
	Text   *string `json:"text,omitempty"`
	Base64 string  `json:"base64,omitempty"`
}

type headerText struct {
	Name  string     `json:"name"`
	Value *bytesText `json:"value"`
}

func newBytesText(b []byte) *bytesText {
	switch {
	case b == nil:
		return nil
	case utf8.Valid(b):
		s := string(b)
		return &bytesText{Text: &s}
	}
	return &bytesText{Base64: base64.StdEncoding.EncodeToString(b)}
}

// Run prints the dead letters that the flags select, with their history.
func (c *showCmd) Run(ctx context.Context, k *kong.Kong) error {
	v, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	var entries []*replay.Record
	var positions []replay.Position
	for e, err := range v.Records(ctx, c.filter) {
		if err != nil {
			return c.explain(err)
		}
		entries, positions = append(entries, e.Clone()), append(positions, e.Position)
	}
	history, err := v.History(ctx, positions)
	if err != nil {
		return c.explain(err)
	}
	out := json.NewEncoder(k.Stdout)
	for i, e := range entries {
		if !c.JSON {
			if i > 0 {
				_, _ = fmt.Fprintln(k.Stdout)
			}
			c.print(k.Stdout, e, history[e.Position])
			continue
		}
		w := fullEntry{entryLine: newEntryLine(e), Headers: []headerText{}, Key: newBytesText(e.Raw.Key), Value: newBytesText(e.Raw.Value), History: newHistory(history[e.Position])}
		for _, h := range e.Raw.Headers {
			w.Headers = append(w.Headers, headerText{h.Key, newBytesText(h.Value)})
		}
		if err := out.Encode(w); err != nil {
			return err
		}
	}
	return c.missing(ctx, v, positions)
}

// missing says for each position that was given and not shown why it was not.
func (c *showCmd) missing(ctx context.Context, v *replay.Snapshot, shown []replay.Position) error {
	var missing []error
	for _, pos := range c.filter.Positions {
		if slices.Contains(shown, pos) {
			continue
		}
		r, err := v.Find(ctx, pos)
		if err == nil {
			err = fmt.Errorf("left out by the other filters or --limit; it is %s", r.State)
		}
		missing = append(missing, fmt.Errorf("record %v: %w", pos, err))
	}
	return errors.Join(missing...)
}

func (c *showCmd) print(w io.Writer, e *replay.Record, history []replay.Marker) {
	printRow(w, "record %v of %s, written %s, %s", e.Position, c.DeadLetterTopic, formatTime(e.Raw.Timestamp), e.State)
	if l := e.DeadLetter; l != nil {
		printRow(w, "  reason     %s %s", l.Reason, code(l.Code))
		printRow(w, "  message    %s", terminal.Printable(l.Message, 0))
		printRow(w, "  event      %s %d:%d, %s", terminal.Printable(l.Topic, 0), l.Partition, l.Offset, formatTime(e.EventTime))
		if e.CallID != "" {
			printRow(w, "  call id    %s", terminal.Printable(e.CallID, 0))
		}
		printRow(w, "  replays    %d", l.Replays)
		if l.Attempts > 0 {
			printRow(w, "  attempts   %d, from %s to %s", l.Attempts, formatTime(l.First), formatTime(l.Last))
		}
	} else {
		printRow(w, "  not written by enricher; skipped")
	}
	printRow(w, "headers")
	for _, h := range e.Raw.Headers {
		printRow(w, "  %s: %s", terminal.Printable(h.Key, 0), terminal.Printable(string(h.Value), 0))
	}
	printKeyAndValue(w, e)
	printRow(w, "history")
	for _, m := range history {
		text := done(m.Action)
		if m.Corrected {
			text = "corrected and " + text
		}
		if m.To != "" {
			text += " to " + terminal.Printable(m.To, 0)
		}
		if m.By != "" {
			text += " by " + terminal.Printable(m.By, 0)
		}
		if m.Note != "" {
			text += ": " + terminal.Printable(m.Note, 0)
		}
		printRow(w, "  %s %s", formatTime(m.At), text)
		if m.Corrected {
			printRow(w, "    its original value: %d bytes", len(m.Original))
			printIndented(w, "      ", m.Original)
		}
	}
	if len(history) == 0 {
		printRow(w, "  none")
	}
}

func printKeyAndValue(w io.Writer, e *replay.Record) {
	r := e.Raw
	if r.Key == nil {
		printRow(w, "key: none")
	} else {
		printRow(w, "key: %s", terminal.Printable(string(r.Key), 0))
	}
	switch {
	case e.DeadLetter != nil && e.DeadLetter.OmittedBytes > 0:
		printRow(w, "value omitted (%d bytes); see the original event at %s %d:%d", e.DeadLetter.OmittedBytes, e.DeadLetter.Topic, e.DeadLetter.Partition, e.DeadLetter.Offset)
	case e.DeadLetter != nil && e.DeadLetter.UnreadableOffsets > 0:
		l := e.DeadLetter
		printRow(w, "value: none; the events at %s %d:%d to %d:%d could not be read", terminal.Printable(l.Topic, 0), l.Partition, l.Offset, l.Partition, l.Offset+l.UnreadableOffsets-1)
	case r.Value == nil:
		printRow(w, "value: none")
	default:
		printRow(w, "value: %d bytes", len(r.Value))
		printIndented(w, "  ", r.Value)
	}
}

func printIndented(w io.Writer, indent string, value []byte) {
	for l := range strings.SplitSeq(strings.TrimRight(readable(value), "\n"), "\n") {
		printRow(w, "%s%s", indent, l)
	}
}

// readable formats an event for people: JSON indented, text as it is, anything
// else in hexadecimal.
func readable(b []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") == nil && isText(out.Bytes()) {
		return out.String()
	}
	if isText(b) {
		return string(b)
	}
	if len(b) > maxHex {
		return hex.Dump(b[:maxHex]) + fmt.Sprintf("… and %d more bytes; --json prints all\n", len(b)-maxHex)
	}
	return hex.Dump(b)
}

// isText reports whether bytes can be written to a terminal as they are.
func isText(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return !unicode.IsGraphic(r) && r != '\n' && r != '\t' })
}
