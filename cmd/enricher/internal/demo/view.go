package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/cmd/enricher/internal/terminal"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
)

// view shows the demo while it runs: a status line, and some of the records as
// they are written.
type view struct {
	out    *terminal.Writer
	events int

	mu          sync.Mutex
	enriched    int
	deadLetters int
	shown       map[string]bool // kinds of records that were shown
}

func newView(out *terminal.Writer, events int) *view {
	return &view{out: out, events: events, shown: map[string]bool{}}
}

// outcomes returns how many outputs a read_committed consumer has read.
func (v *view) outcomes() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.enriched + v.deadLetters
}

// watch reads the outputs and shows the progress, until ctx ends.
func (v *view) watch(ctx context.Context, s settings, feed *feeder, api *fetchtest.API) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers...), kgo.ConsumeTopics(s.Enriched, s.Dead),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(250*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	var wait sync.WaitGroup
	defer wait.Wait()
	wait.Go(func() {
		every := time.Second
		if v.out.IsTerminal() {
			every = 200 * time.Millisecond
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				v.refresh(feed, api)
				v.out.Keep()
				return
			case <-tick.C:
				v.refresh(feed, api)
			}
		}
	})
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("watch the outputs: %w", err)
		}
		fetches.EachRecord(v.see)
	}
}

// see counts a record, and shows it if it is the first of its kind. The first
// record of all is an answered call, in full.
func (v *view) see(r *kgo.Record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l, ok := producer.ParseDeadLetter(r); ok {
		v.deadLetters++
		if v.first("dead letter " + string(l.Reason)) {
			v.print("  dead letter  %s: %s (%s[%d]@%d)", l.Reason, l.Message, l.Topic, l.Partition, l.Offset)
		}
		return
	}
	v.enriched++
	var e schemas.Enriched
	if err := json.Unmarshal(r.Value, &e); err != nil {
		v.print("  enriched     cannot be parsed: %v", err)
		return
	}
	const answered = "answered"
	talked := e.Answered && e.TalkSeconds != nil && *e.TalkSeconds > 0
	switch {
	case !v.shown[answered]:
		if !talked {
			return // more of its kind will follow
		}
		v.shown[answered] = true
		for i, line := range wrapJSON(string(r.Value), v.out.Width()-len(indent)) {
			if i == 0 {
				v.print("  enriched     %s", line)
			} else {
				v.print("%s%s", indent, line)
			}
		}
		v.shown[kindOf(&e)] = true
	case v.first(kindOf(&e)):
		v.print("  enriched     %s", summary(&e))
	}
}

// indent aligns the following lines of a record with its first.
const indent = "               "

func (v *view) print(format string, args ...any) {
	v.out.Print("%s", terminal.Cut(fmt.Sprintf(format, args...), v.out.Width()))
}

// first reports whether a kind of record appears for the first time.
func (v *view) first(kind string) bool {
	seen := v.shown[kind]
	v.shown[kind] = true
	return !seen
}

// kindOf returns what distinguishes the calls that the demo shows.
func kindOf(e *schemas.Enriched) string {
	if e.Answered {
		return e.CallType + " " + e.Result
	}
	return e.Result
}

// summary returns a record in one line, with the CallId last because the line may
// be cut.
func summary(e *schemas.Enriched) string {
	seconds := func(n *int64) string {
		if n == nil {
			return "?"
		}
		return (time.Duration(*n) * time.Second).String()
	}
	return fmt.Sprintf("%s %s %s: ring %s, talk %s; %s",
		e.MediaType, e.CallType, e.Result, seconds(e.RingSeconds), seconds(e.TalkSeconds), e.CallID)
}

// wrapJSON breaks JSON after commas into lines of at most width characters. A
// longer part stays whole.
func wrapJSON(text string, width int) []string {
	var lines []string
	line := ""
	for part := range strings.SplitAfterSeq(text, ",") {
		if line != "" && len([]rune(line+part)) > width {
			lines = append(lines, line)
			line = ""
		}
		line += part
	}
	return append(lines, line)
}

func (v *view) refresh(feed *feeder, api *fetchtest.API) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.out.Status("events %d/%d · enriched %d · dead letters %d · API requests %d", feed.fed.Load(), v.events, v.enriched, v.deadLetters, api.Requests())
}
