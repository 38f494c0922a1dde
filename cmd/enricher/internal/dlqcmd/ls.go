package dlqcmd

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/terminal"
	"enricher/producer/replay"
	"enricher/schemas"
)

type lsCmd struct {
	topicFlags
	filterFlags `group:"Selection:"`
	stateFlag   `group:"Selection:"`
	Limit       int  `args-only:"" default:"50" group:"Selection:" help:"Show only the newest N (0 = all, in topic order)."`
	JSON        bool `name:"json" group:"Output:" help:"Print one JSON object per line."`
}

// Example returns a command line for the help.
func (*lsCmd) Example() string { return "enricher dlq ls --reason not_found --since 3d" }

// Check implements config.Checker.
func (c *lsCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.filterFlags.Check(src, c.Limit)
	c.stateFlag.Check(src, &c.filter)
}

// entryLine is a record of the dead-letter topic as ls prints it. The fields from
// Reason on are empty for a record that enricher did not write.
type entryLine struct {
	Position     string         `json:"position"`
	Written      time.Time      `json:"written"`
	State        replay.State   `json:"state"`
	Reason       schemas.Reason `json:"reason,omitempty"`
	Code         int            `json:"code,omitempty"` // 0: none
	Message      string         `json:"message,omitempty"`
	Attempts     int            `json:"attempts,omitempty"`
	Replays      int            `json:"replays,omitempty"`
	CallID       string         `json:"call_id,omitempty"`
	Event        *eventPlace    `json:"event,omitempty"`
	OmittedBytes int64          `json:"omitted_bytes,omitempty"` // size of an event too large to be kept
	// UnreadableOffsets is the number of offsets, from Event.Offset on, whose events
	// could not be read.
	UnreadableOffsets int64 `json:"unreadable_offsets,omitempty"`
}

// eventPlace is where and when an event was produced.
type eventPlace struct {
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Time      time.Time `json:"time"`
}

func newEntryLine(e *replay.Record) entryLine {
	l := entryLine{Position: e.String(), Written: e.Raw.Timestamp.UTC(), State: e.State}
	if e.DeadLetter != nil {
		l.Reason, l.Code, l.Message = e.DeadLetter.Reason, e.DeadLetter.Code, e.DeadLetter.Message
		l.Attempts, l.Replays, l.CallID, l.OmittedBytes = e.DeadLetter.Attempts, e.DeadLetter.Replays, e.CallID, e.DeadLetter.OmittedBytes
		l.UnreadableOffsets = e.DeadLetter.UnreadableOffsets
		l.Event = &eventPlace{e.DeadLetter.Topic, e.DeadLetter.Partition, e.DeadLetter.Offset, e.EventTime.UTC()}
	}
	return l
}

// Run prints the newest dead letters that the flags select.
func (c *lsCmd) Run(ctx context.Context, k *kong.Kong) error {
	v, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	p := linePrinter{table: newTable(k.Stdout), json: json.NewEncoder(k.Stdout)}
	if !c.JSON {
		p.json = nil
	}
	if c.Limit == 0 {
		for e, err := range v.Records(ctx, c.filter) {
			if err != nil {
				return c.explain(err)
			}
			if err := p.print(newEntryLine(e)); err != nil {
				return err
			}
		}
		return nil
	}
	lines, picked, incomplete := replay.Newest(ctx, v, c.filter, newEntryLine)
	for _, l := range lines {
		if err := p.print(l); err != nil {
			return err
		}
	}
	if picked > len(lines) {
		_, _ = fmt.Fprintf(k.Stderr, "showing the newest %d of %d dead letters; --limit 0 shows all\n", len(lines), picked)
	}
	return c.explain(incomplete)
}

// linePrinter prints dead letters as a table, or as JSON.
type linePrinter struct {
	table
	json  *json.Encoder
	begun bool
}

func (p *linePrinter) print(l entryLine) error {
	if p.json != nil {
		return p.json.Encode(l)
	}
	const columns = "%-10s  %-20s  %-9s  %-13s  %6s  %7s  %-36s  %s"
	if !p.begun {
		p.begun = true
		p.row(columns, "POSITION", "WRITTEN", "STATE", "REASON", "CODE", "REPLAYS", "CALL ID", "MESSAGE")
	}
	if l.Event == nil {
		p.row(columns, l.Position, formatTime(l.Written), l.State, "", "", "", "", "not written by enricher")
		return nil
	}
	p.row(columns, l.Position, formatTime(l.Written), l.State, l.Reason, code(l.Code), fmt.Sprint(l.Replays), terminal.Printable(l.CallID, 36), terminal.Printable(l.Message, 80))
	return nil
}

// code formats an error code; it returns "" for none.
func code(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
