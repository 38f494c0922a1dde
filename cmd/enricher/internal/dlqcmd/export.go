package dlqcmd

import (
	"context"
	"encoding/json"
	"time"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/producer/replay"
)

type exportCmd struct {
	topicFlags
	filterFlags `group:"Selection:"`
	stateFlag   `group:"Selection:"`
	Limit       int `args-only:"" default:"0" group:"Selection:" help:"Maximum number (0 = all)."`
}

// Example returns a command line for the help.
func (*exportCmd) Example() string { return "enricher dlq export --reason malformed --since 1d" }

// Check implements config.Checker.
func (c *exportCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.filterFlags.Check(src, c.Limit)
	c.stateFlag.Check(src, &c.filter)
}

// exportedEntry is a record of the dead-letter topic as export prints it.
// docs/operations.md describes the fields: other programs read them.
type exportedEntry struct {
	entryLine
	RequestID    string       `json:"request_id,omitempty"`
	FirstAttempt *time.Time   `json:"first_attempt,omitempty"`
	LastAttempt  *time.Time   `json:"last_attempt,omitempty"`
	Key          *bytesText   `json:"key"`     // of the event; null: none
	Value        *bytesText   `json:"value"`   // of the event; null: none
	Headers      []headerText `json:"headers"` // of the event
}

func newExportedEntry(e *replay.Record) exportedEntry {
	x := exportedEntry{entryLine: newEntryLine(e), Headers: []headerText{}}
	key, value, headers := e.Raw.Key, e.Raw.Value, e.Raw.Headers
	if l := e.DeadLetter; l != nil {
		x.RequestID, headers = l.RequestID, l.Headers
		if l.OmittedBytes > 0 {
			key, value = nil, nil // they are not those of the event
		}
		if l.Attempts > 0 {
			first, last := l.First.UTC(), l.Last.UTC()
			x.FirstAttempt, x.LastAttempt = &first, &last
		}
	}
	x.Key, x.Value = newBytesText(key), newBytesText(value)
	for _, h := range headers {
		x.Headers = append(x.Headers, headerText{h.Key, newBytesText(h.Value)})
	}
	return x
}

// Run prints the dead letters that the flags select, in the order of the topic.
func (c *exportCmd) Run(ctx context.Context, k *kong.Kong) error {
	v, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	out := json.NewEncoder(k.Stdout)
	out.SetEscapeHTML(false)
	for e, err := range v.Records(ctx, c.filter) {
		if err != nil {
			return c.explain(err)
		}
		if err := out.Encode(newExportedEntry(e)); err != nil {
			return err
		}
	}
	return nil
}
