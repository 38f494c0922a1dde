package dlqcmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/terminal"
	"enricher/fetch/lookup"
	"enricher/producer/replay"
	"enricher/schemas"
)

type statsCmd struct {
	topicFlags
	JSON bool `name:"json" group:"Output:" help:"Print one JSON object."`
}

// Example returns a command line for the help.
func (*statsCmd) Example() string { return "enricher dlq stats --brokers kafka-1:9092 --json" }

// Check implements config.Checker.
func (c *statsCmd) Check(src *config.Sources) { c.topicFlags.Check(src) }

// statistics are the numbers of dead letters as stats prints them.
type statistics struct {
	DeadLetterTopic string       `json:"dead_letter_topic"`
	JournalTopic    string       `json:"journal_topic"`
	DeadLetters     stateCounts  `json:"dead_letters"`
	Foreign         int          `json:"foreign"` // records not written by enricher
	Groups          []*statGroup `json:"groups"`  // by reason and code
	Ages            []*statAge   `json:"ages"`    // of the events
}

type stateCounts struct {
	Open      int `json:"open"`
	Replayed  int `json:"replayed"`
	Discarded int `json:"discarded"`
}

func (c *stateCounts) add(s replay.State) {
	switch s {
	case replay.Open:
		c.Open++
	case replay.Replayed:
		c.Replayed++
	case replay.Discarded:
		c.Discarded++
	}
}

type statGroup struct {
	Reason schemas.Reason `json:"reason"`
	Code   int            `json:"code"` // 0: none
	stateCounts
	FirstSeen time.Time `json:"first_seen"` // when the first one was written
	LastSeen  time.Time `json:"last_seen"`
	Example   entryLine `json:"example"` // the last one
}

type statAge struct {
	// UnderSeconds is the upper bound of the ages in this group; the lower bound
	// is that of the group before. 0 means no upper bound.
	UnderSeconds int64 `json:"under_seconds"`
	stateCounts
	name string
}

// Run prints how many dead letters there are, by reason, code and age.
func (c *statsCmd) Run(ctx context.Context, k *kong.Kong) error {
	v, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	s := newStatistics(&c.topicFlags)
	now := time.Now()
	var incomplete error // what could be read is printed nevertheless
	for e, err := range v.Records(ctx, replay.Filter{}) {
		if err != nil {
			incomplete = c.explain(err)
			break
		}
		s.add(e, now)
	}
	slices.SortFunc(s.Groups, func(a, b *statGroup) int {
		return cmp.Or(cmp.Compare(b.Open, a.Open), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Code, b.Code))
	})
	if c.JSON {
		return errors.Join(incomplete, json.NewEncoder(k.Stdout).Encode(s))
	}
	s.print(k.Stdout)
	return incomplete
}

func newStatistics(f *topicFlags) *statistics {
	return &statistics{
		DeadLetterTopic: f.DeadLetterTopic, JournalTopic: f.JournalTopic, Groups: []*statGroup{},
		Ages: []*statAge{
			{name: "under 1 hour", UnderSeconds: 3600},
			{name: "under 1 day", UnderSeconds: 24 * 3600},
			{name: "under 7 days", UnderSeconds: int64(lookup.APIRetention.Seconds())},
			{name: "over 7 days: the API no longer has the record"},
		},
	}
}

func (s *statistics) add(e *replay.Record, now time.Time) {
	if e.DeadLetter == nil {
		s.Foreign++
		return
	}
	s.DeadLetters.add(e.State)
	i := slices.IndexFunc(s.Groups, func(g *statGroup) bool { return g.Reason == e.DeadLetter.Reason && g.Code == e.DeadLetter.Code })
	if i < 0 {
		i = len(s.Groups)
		s.Groups = append(s.Groups, &statGroup{Reason: e.DeadLetter.Reason, Code: e.DeadLetter.Code, FirstSeen: e.Raw.Timestamp.UTC()})
	}
	g := s.Groups[i]
	g.add(e.State)
	if written := e.Raw.Timestamp.UTC(); written.Before(g.FirstSeen) {
		g.FirstSeen = written
	}
	if written := e.Raw.Timestamp.UTC(); !written.Before(g.LastSeen) {
		g.LastSeen, g.Example = written, newEntryLine(e)
	}
	age := int64(now.Sub(e.EventTime).Seconds())
	i = slices.IndexFunc(s.Ages, func(a *statAge) bool { return age < a.UnderSeconds || a.UnderSeconds == 0 })
	s.Ages[i].add(e.State)
}

func (s *statistics) print(w io.Writer) {
	n, t := s.DeadLetters, newTable(w)
	t.row("%s: %s: %d open, %d replayed, %d discarded", s.DeadLetterTopic, count(n.Open+n.Replayed+n.Discarded), n.Open, n.Replayed, n.Discarded)
	if s.Foreign > 0 {
		t.row("records not written by enricher (skipped): %d", s.Foreign)
	}
	const columns = "%-13s  %6s  %8s  %8s  %9s  %-20s  %-20s  %s"
	t.row("")
	t.row(columns, "REASON", "CODE", "OPEN", "REPLAYED", "DISCARDED", "FIRST SEEN", "LAST SEEN", "EXAMPLE")
	for _, g := range s.Groups {
		t.row(columns, g.Reason, code(g.Code), fmt.Sprint(g.Open), fmt.Sprint(g.Replayed), fmt.Sprint(g.Discarded),
			formatTime(g.FirstSeen), formatTime(g.LastSeen), g.Example.Position+" "+terminal.Printable(g.Example.CallID, 36))
	}
	t.row("")
	t.row("%8s  %8s  %9s  %s", "OPEN", "REPLAYED", "DISCARDED", "AGE OF THE EVENT")
	for _, a := range s.Ages {
		t.row("%8d  %8d  %9d  %s", a.Open, a.Replayed, a.Discarded, a.name)
	}
}
