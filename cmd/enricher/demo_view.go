package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/term"

	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
)

// demoView shows the demo while it runs: a line that is kept up to date on a
// terminal, a line a second elsewhere, and some of the records as they come out.
type demoView struct {
	w        io.Writer
	terminal bool
	events   int

	mu       sync.Mutex
	status   string // the line as it stands on the terminal
	enriched int
	letters  int
	shown    map[schemas.Reason]bool
}

func newDemoView(w io.Writer, events int) *demoView {
	f, ok := w.(*os.File)
	return &demoView{w: w, terminal: ok && term.IsTerminal(int(f.Fd())), events: events, shown: map[schemas.Reason]bool{}}
}

// outcomes is how many outputs a read_committed reader has seen.
func (v *demoView) outcomes() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.enriched + v.letters
}

// say prints a line above the status.
func (v *demoView) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.line(fmt.Sprintf(format, args...))
}

func (v *demoView) line(text string) {
	if v.terminal {
		_, _ = fmt.Fprintf(v.w, "\r\x1b[K%s\n%s", text, v.status)
		return
	}
	_, _ = fmt.Fprintln(v.w, text)
}

// watch reads the outputs and shows how things stand, until ctx ends.
func (v *demoView) watch(ctx context.Context, s demoSettings, feeder *demoFeeder, api *fetchtest.API) error {
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
		if v.terminal {
			every = 200 * time.Millisecond
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				v.refresh(feeder, api)
				if v.terminal {
					_, _ = fmt.Fprintln(v.w)
				}
				return
			case <-tick.C:
				v.refresh(feeder, api)
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

// see counts a record, and shows it if it is one of few.
func (v *demoView) see(r *kgo.Record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if l, ok := producer.ParseDeadLetter(r); ok {
		v.letters++
		if !v.shown[l.Reason] {
			v.shown[l.Reason] = true
			v.line(fmt.Sprintf("  dead letter  %s: %s (%s[%d]@%d)", l.Reason, l.Message, l.Topic, l.Partition, l.Offset))
		}
		return
	}
	v.enriched++
	if v.enriched == 1 || v.enriched%(v.events/4+1) == 0 {
		v.line(fmt.Sprintf("  enriched     %s", r.Value))
	}
}

func (v *demoView) refresh(feeder *demoFeeder, api *fetchtest.API) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.status = fmt.Sprintf("events %d/%d · enriched %d · dead letters %d · API requests %d", feeder.fed.Load(), v.events, v.enriched, v.letters, api.Requests())
	if v.terminal {
		_, _ = fmt.Fprintf(v.w, "\r\x1b[K%s", v.status)
		return
	}
	_, _ = fmt.Fprintln(v.w, v.status)
}
