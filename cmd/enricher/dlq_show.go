package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"enricher/producer/replay"
)

// maxHex is how much of an event that is no text is shown.
const maxHex = 4096

type dlqShowCmd struct {
	letterFlags
	filterFlags
	State string `default:"all" help:"open, replayed, discarded or all."`
	Limit int    `default:"10" help:"The first so many, at most 1000."`
	JSON  bool   `name:"json" help:"Print one JSON object a line."`
}

func (c *dlqShowCmd) check(in *inputs) {
	c.letterFlags.check(in)
	c.filterFlags.check(in, c.Limit)
	(&stateFlag{c.State}).check(in, &c.filter)
	if c.Limit < 1 || c.Limit > 1000 {
		in.problem("limit", "must be a number from 1 to 1000")
	}
}

// wholeLetter is a letter as show prints it.
type wholeLetter struct {
	letterLine
	Headers []headerText    `json:"headers"` // of the record, ours included
	Key     *bytesText      `json:"key"`     // null: no key
	Value   *bytesText      `json:"value"`   // null: no value
	History []replay.Marker `json:"history"`
}

// bytesText is bytes as text, or in base64 if they are none.
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

// Run prints letters whole.
func (c *dlqShowCmd) Run(ctx context.Context, k *kong.Kong) error {
	v, err := c.look(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	var entries []*replay.Record
	var refs []replay.Position
	for e, err := range v.Records(ctx, c.filter) {
		if err != nil {
			return c.explain(err)
		}
		entries, refs = append(entries, e.Clone()), append(refs, e.Position)
	}
	history, err := v.History(ctx, refs)
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
		w := wholeLetter{letterLine: newLetterLine(e), Headers: []headerText{}, Key: newBytesText(e.Raw.Key), Value: newBytesText(e.Raw.Value), History: history[e.Position]}
		for _, h := range e.Raw.Headers {
			w.Headers = append(w.Headers, headerText{h.Key, newBytesText(h.Value)})
		}
		if w.History == nil {
			w.History = []replay.Marker{}
		}
		if err := out.Encode(w); err != nil {
			return err
		}
	}
	if missing := len(c.Letters) - len(entries); missing > 0 {
		return fmt.Errorf("%d of the %d letters named are not there (deleted by retention, or of another state), or over --limit", missing, len(c.Letters))
	}
	return nil
}

func (c *dlqShowCmd) print(w io.Writer, e *replay.Record, history []replay.Marker) {
	line(w, "letter %v of %s, written %s, %s", e.Position, c.DeadLetterTopic, moment(e.Raw.Timestamp), e.State)
	if l := e.DeadLetter; l != nil {
		line(w, "  reason     %s %s", l.Reason, code(l.Code))
		line(w, "  message    %s", printable(l.Message, 0))
		line(w, "  event      %s %d:%d, %s", printable(l.Topic, 0), l.Partition, l.Offset, moment(e.EventTime))
		if e.CallID != "" {
			line(w, "  call id    %s", printable(e.CallID, 0))
		}
		line(w, "  replays    %d", l.Replays)
		if l.Attempts > 0 {
			line(w, "  attempts   %d, from %s to %s", l.Attempts, moment(l.First), moment(l.Last))
		}
	} else {
		line(w, "  not written by enricher; it is left alone")
	}
	line(w, "headers")
	for _, h := range e.Raw.Headers {
		line(w, "  %s: %s", printable(h.Key, 0), printable(string(h.Value), 0))
	}
	printKeyAndValue(w, e)
	line(w, "history")
	for _, m := range history {
		switch m.Action {
		case replay.Replayed:
			line(w, "  %s replayed to %s", moment(m.At), printable(m.To, 0))
		case replay.Discarded:
			line(w, "  %s discarded: %s", moment(m.At), printable(m.Note, 0))
		}
	}
	if len(history) == 0 {
		line(w, "  none")
	}
}

func printKeyAndValue(w io.Writer, e *replay.Record) {
	r := e.Raw
	if r.Key == nil {
		line(w, "key: none")
	} else {
		line(w, "key: %s", printable(string(r.Key), 0))
	}
	switch {
	case e.DeadLetter != nil && e.DeadLetter.OmittedBytes > 0:
		line(w, "value: not kept; the event has %d bytes, look for it in %s at %d:%d", e.DeadLetter.OmittedBytes, e.DeadLetter.Topic, e.DeadLetter.Partition, e.DeadLetter.Offset)
	case r.Value == nil:
		line(w, "value: none")
	default:
		line(w, "value: %d bytes", len(r.Value))
		for l := range strings.SplitSeq(strings.TrimRight(readable(r.Value), "\n"), "\n") {
			line(w, "  %s", l)
		}
	}
}

// readable is an event for a person: JSON indented, text as it is, anything else
// in hexadecimal.
func readable(b []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") == nil && isText(out.Bytes()) {
		return out.String()
	}
	if isText(b) {
		return string(b)
	}
	if len(b) > maxHex {
		return hex.Dump(b[:maxHex]) + fmt.Sprintf("… and %d bytes more; --json prints all\n", len(b)-maxHex)
	}
	return hex.Dump(b)
}

// isText says whether bytes can go to a terminal as they are.
func isText(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return !unicode.IsGraphic(r) && r != '\n' && r != '\t' })
}
