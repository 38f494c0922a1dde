package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/alecthomas/kong"

	"enricher/producer/replay"
	"enricher/schemas"
)

type dlqLsCmd struct {
	letterFlags
	filterFlags
	stateFlag
	Limit int  `default:"50" help:"The newest so many; 0: all, in the order of the topic."`
	JSON  bool `name:"json" help:"Print one JSON object a line."`
}

func (c *dlqLsCmd) check(in *inputs) {
	c.letterFlags.check(in)
	c.filterFlags.check(in, c.Limit)
	c.stateFlag.check(in, &c.filter)
}

// letterLine is a letter as ls prints it.
type letterLine struct {
	Letter       string         `json:"letter"`
	Written      time.Time      `json:"written"`
	State        replay.State   `json:"state"`
	Reason       schemas.Reason `json:"reason,omitempty"` // this and what follows: not of a foreign record
	Code         int            `json:"code,omitempty"`   // 0: none
	Message      string         `json:"message,omitempty"`
	Attempts     int            `json:"attempts,omitempty"`
	Replays      int            `json:"replays,omitempty"`
	CallID       string         `json:"call_id,omitempty"`
	Event        *eventPlace    `json:"event,omitempty"`
	OmittedBytes int64          `json:"omitted_bytes,omitempty"` // the event was too large to be kept
}

// eventPlace is where and when an event came.
type eventPlace struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Time      time.Time `json:"time"`
}

func newLetterLine(e *replay.Record) letterLine {
	l := letterLine{Letter: e.String(), Written: e.Raw.Timestamp.UTC(), State: e.State}
	if e.DeadLetter != nil {
		l.Reason, l.Code, l.Message = e.DeadLetter.Reason, e.DeadLetter.Code, e.DeadLetter.Message
		l.Attempts, l.Replays, l.CallID, l.OmittedBytes = e.DeadLetter.Attempts, e.DeadLetter.Replays, e.CallID, e.DeadLetter.OmittedBytes
		l.Event = &eventPlace{e.DeadLetter.Topic, e.DeadLetter.Partition, e.DeadLetter.Offset, e.EventTime.UTC()}
	}
	return l
}

// Run lists letters.
func (c *dlqLsCmd) Run(ctx context.Context, k *kong.Kong) error {
	v, err := c.look(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	p := linePrinter{w: k.Stdout, json: json.NewEncoder(k.Stdout)}
	if !c.JSON {
		p.json = nil
	}
	if c.Limit == 0 {
		for e, err := range v.Records(ctx, c.filter) {
			if err != nil {
				return c.explain(err)
			}
			if err := p.print(newLetterLine(e)); err != nil {
				return err
			}
		}
		return nil
	}
	lines, picked, err := replay.Newest(ctx, v, c.filter, newLetterLine)
	if err != nil {
		return c.explain(err)
	}
	for _, l := range lines {
		if err := p.print(l); err != nil {
			return err
		}
	}
	if picked > len(lines) {
		_, _ = fmt.Fprintf(k.Stderr, "the newest %d of %d letters; --limit 0 lists all\n", len(lines), picked)
	}
	return nil
}

// linePrinter prints letters as a table, or as JSON.
type linePrinter struct {
	w     io.Writer
	json  *json.Encoder
	begun bool
}

func (p *linePrinter) print(l letterLine) error {
	if p.json != nil {
		return p.json.Encode(l)
	}
	const columns = "%-10s  %-20s  %-9s  %-13s  %6s  %7s  %-36s  %s"
	if !p.begun {
		p.begun = true
		line(p.w, columns, "LETTER", "WRITTEN", "STATE", "REASON", "CODE", "REPLAYS", "CALL ID", "MESSAGE")
	}
	if l.Event == nil {
		line(p.w, columns, l.Letter, moment(l.Written), l.State, "", "", "", "", "not written by enricher")
		return nil
	}
	line(p.w, columns, l.Letter, moment(l.Written), l.State, l.Reason, code(l.Code), fmt.Sprint(l.Replays), printable(l.CallID, 36), printable(l.Message, 80))
	return nil
}

// code is "" for none.
func code(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
