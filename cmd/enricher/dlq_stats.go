package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"enricher/fetch"
	"enricher/producer/replay"
	"enricher/schemas"
)

type dlqStatsCmd struct {
	letterFlags
	JSON bool `name:"json" help:"Print one JSON object."`
}

func (c *dlqStatsCmd) check(in *inputs) { c.letterFlags.check(in) }

// letterStats are letters counted.
type letterStats struct {
	DeadLetterTopic string       `json:"dead_letter_topic"`
	JournalTopic    string       `json:"journal_topic"`
	Letters         stateCounts  `json:"letters"`
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
	FirstSeen time.Time  `json:"first_seen"` // when the first letter was written
	LastSeen  time.Time  `json:"last_seen"`
	Example   letterLine `json:"example"` // the last one
}

type statAge struct {
	// UnderSeconds is the age that events of the group are under, and over that
	// of the group before; 0: any age.
	UnderSeconds int64 `json:"under_seconds"`
	stateCounts
	name string
}

// Run counts letters.
func (c *dlqStatsCmd) Run(ctx context.Context, k *kong.Kong) error {
	v, err := c.look(ctx)
	if err != nil {
		return err
	}
	defer v.Close()
	s := newLetterStats(&c.letterFlags)
	now := time.Now()
	for e, err := range v.Records(ctx, replay.Filter{}) {
		if err != nil {
			return c.explain(err)
		}
		s.add(e, now)
	}
	slices.SortFunc(s.Groups, func(a, b *statGroup) int {
		return cmp.Or(cmp.Compare(b.Open, a.Open), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Code, b.Code))
	})
	if c.JSON {
		return json.NewEncoder(k.Stdout).Encode(s)
	}
	s.print(k.Stdout)
	return nil
}

func newLetterStats(f *letterFlags) *letterStats {
	return &letterStats{
		DeadLetterTopic: f.DeadLetterTopic, JournalTopic: f.JournalTopic, Groups: []*statGroup{},
		Ages: []*statAge{
			{name: "under 1 hour", UnderSeconds: 3600},
			{name: "under 1 day", UnderSeconds: 24 * 3600},
			{name: "under 7 days", UnderSeconds: int64(fetch.Retention.Seconds())},
			{name: "over 7 days: the API has no record any more"},
		},
	}
}

func (s *letterStats) add(e *replay.Record, now time.Time) {
	if e.DeadLetter == nil {
		s.Foreign++
		return
	}
	s.Letters.add(e.State)
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
		g.LastSeen, g.Example = written, newLetterLine(e)
	}
	age := int64(now.Sub(e.EventTime).Seconds())
	i = slices.IndexFunc(s.Ages, func(a *statAge) bool { return age < a.UnderSeconds || a.UnderSeconds == 0 })
	s.Ages[i].add(e.State)
}

func (s *letterStats) print(w io.Writer) {
	n := s.Letters
	line(w, "%s: %s, of which %d open, %d replayed, %d discarded", s.DeadLetterTopic, letterCount(n.Open+n.Replayed+n.Discarded), n.Open, n.Replayed, n.Discarded)
	if s.Foreign > 0 {
		line(w, "records not written by enricher, which are left alone: %d", s.Foreign)
	}
	const columns = "%-13s  %6s  %8s  %8s  %9s  %-20s  %-20s  %s"
	line(w, "\n"+columns, "REASON", "CODE", "OPEN", "REPLAYED", "DISCARDED", "FIRST SEEN", "LAST SEEN", "EXAMPLE")
	for _, g := range s.Groups {
		line(w, columns, g.Reason, code(g.Code), fmt.Sprint(g.Open), fmt.Sprint(g.Replayed), fmt.Sprint(g.Discarded),
			moment(g.FirstSeen), moment(g.LastSeen), g.Example.Letter+" "+printable(g.Example.CallID, 36))
	}
	line(w, "\n%8s  %8s  %9s  %s", "OPEN", "REPLAYED", "DISCARDED", "AGE OF THE EVENT")
	for _, a := range s.Ages {
		line(w, "%8d  %8d  %9d  %s", a.Open, a.Replayed, a.Discarded, a.name)
	}
}
