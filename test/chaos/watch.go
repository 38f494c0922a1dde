package main

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
)

// watch follows the outputs as a read_committed reader and notes when it sees
// the outcome of which event.
type watch struct {
	stop func()

	mu   sync.Mutex
	seen []sighting
}

type sighting struct {
	at     time.Time
	source audit.Source
}

func (s *stage) watch() (*watch, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...), kgo.ConsumeTopics(outTopic, deadTopic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50*time.Millisecond), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{}
	var reader sync.WaitGroup
	w.stop = func() { cancel(); reader.Wait(); cl.Close() }
	reader.Go(func() {
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			now := time.Now()
			w.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) {
				if src, err := audit.SourceOf(r); err == nil { // the account tells of others
					w.seen = append(w.seen, sighting{now, src})
				}
			})
			w.mu.Unlock()
		}
	})
	return w, nil
}

func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen)
}

// longestPause is the longest time from a to b without an outcome of an event
// for which of says true.
func (w *watch) longestPause(a, b time.Time, of func(audit.Source) bool) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest, last := time.Duration(0), a
	for _, s := range w.seen {
		if of(s.source) && s.at.After(a) && s.at.Before(b) {
			longest, last = max(longest, s.at.Sub(last)), s.at
		}
	}
	return max(longest, b.Sub(last))
}
