package main

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
)

// outputs reads the output topics as a read_committed reader and records when it
// saw the outcome of which event.
type outputs struct {
	stop func()

	mu   sync.Mutex
	seen []sighting // by time
}

type sighting struct {
	at, written time.Time // seen by the reader; produced
	source      audit.Source
}

func (e *env) readOutputs() (*outputs, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(e.kafka.Brokers...), kgo.ConsumeTopics(e.outputTopics()...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50*time.Millisecond), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &outputs{}
	var reader sync.WaitGroup
	o.stop = func() { cancel(); reader.Wait(); cl.Close() }
	reader.Go(func() {
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			now := time.Now()
			o.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) {
				if source, err := audit.SourceOf(r); err == nil { // the audit reports the others
					o.seen = append(o.seen, sighting{now, r.Timestamp, source})
				}
			})
			o.mu.Unlock()
		}
	})
	return o, nil
}

func (o *outputs) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.seen)
}

// bySource returns what was seen first of each event.
func (o *outputs) bySource() map[audit.Source]sighting {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make(map[audit.Source]sighting, len(o.seen))
	for _, s := range o.seen {
		if _, ok := all[s.source]; !ok {
			all[s.source] = s
		}
	}
	return all
}

// longestPause returns the longest time between a and b without an outcome of a
// matching event.
func (o *outputs) longestPause(a, b time.Time, match func(audit.Source) bool) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	longest, last := time.Duration(0), a
	for _, s := range o.seen {
		if match(s.source) && s.at.After(a) && s.at.Before(b) {
			longest, last = max(longest, s.at.Sub(last)), s.at
		}
	}
	return max(longest, b.Sub(last))
}
