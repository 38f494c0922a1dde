package audit

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// Expect describes the outcome expected of one event. An event with both an
// enriched record and reasons may have either outcome.
type Expect struct {
	CallID string
	// Enriched is the value of the enriched record; nil: the event must not be
	// enriched.
	Enriched []byte
	// Reasons are those that a dead letter may have; none: the event must not
	// become a dead letter.
	Reasons []schemas.Reason
	// Key and Value are those of the event. A dead letter must repeat them.
	Key, Value []byte
	// Timestamp is the event's Kafka timestamp; zero: when it was sent.
	Timestamp time.Time
	// Produced is when the event was sent, for Report.Latency; zero: not measured.
	Produced time.Time
}

// skipped reports whether the event must have no output record.
func (e *Expect) skipped() bool { return e.Enriched == nil && len(e.Reasons) == 0 }

// Ledger holds the events that were produced. The zero value is empty and ready to
// use. It is safe for concurrent use.
type Ledger struct {
	mu     sync.Mutex
	events map[Source]Expect
}

// Add enters an event that the broker has acknowledged.
func (l *Ledger) Add(s Source, e Expect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.events == nil {
		l.events = make(map[Source]Expect)
	}
	l.events[s] = e
}

// Len returns the number of events.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// Events returns the events that were added so far.
func (l *Ledger) Events() map[Source]Expect {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.events)
}

// Due returns the number of events that must have an output record.
func (l *Ledger) Due() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.events {
		if !e.skipped() {
			n++
		}
	}
	return n
}

// Check compares the records of the output topics with the ledger.
func (l *Ledger) Check(records []*kgo.Record) *Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	report := &Report{Events: len(l.events), DeadLetters: make(map[schemas.Reason]int)}
	outputs := make(map[Source]int, len(l.events))
	for _, r := range records {
		source, err := SourceOf(r)
		if err != nil {
			report.Wrong = append(report.Wrong, err.Error())
			continue
		}
		sources := l.sources(r, source)
		if len(sources) == 0 {
			report.Wrong = append(report.Wrong, fmt.Sprintf("%v: an outcome of an event that was never produced", source))
		}
		for _, source := range sources {
			outputs[source]++
			if outputs[source] > 1 {
				report.Duplicated = append(report.Duplicated, source.String())
				continue
			}
			report.add(r, source, l.events[source])
		}
	}
	for source, e := range l.events {
		switch {
		case e.skipped() && outputs[source] == 0:
			report.Skipped++
		case outputs[source] == 0:
			report.Lost = append(report.Lost, source.String()+" "+e.CallID)
		}
	}
	slices.Sort(report.Lost)
	slices.Sort(report.Latency)
	return report
}

// sources returns the events that a record is the outcome of: one, or those of a
// range that could not be read.
func (l *Ledger) sources(r *kgo.Record, first Source) []Source {
	n := int64(1)
	if d, ok := producer.ParseDeadLetter(r); ok {
		n = max(n, d.UnreadableOffsets)
	}
	var sources []Source
	for s := first; s.Offset < first.Offset+n; s.Offset++ {
		if _, ok := l.events[s]; ok {
			sources = append(sources, s)
		}
	}
	return sources
}

// checkEnriched returns what is wrong with an enriched record, or "".
func (e *Expect) checkEnriched(r *kgo.Record) string {
	switch {
	case e.Enriched == nil:
		return "enriched, but must not be"
	case string(r.Key) != e.CallID:
		return fmt.Sprintf("key %q, want %q", r.Key, e.CallID)
	case !bytes.Equal(r.Value, e.Enriched):
		return fmt.Sprintf("value %s, want %s", r.Value, e.Enriched)
	}
	return ""
}

// checkDeadLetter returns what is wrong with a dead letter, or "".
func (e *Expect) checkDeadLetter(d *producer.DeadLetter) string {
	switch {
	case !slices.Contains(e.Reasons, d.Reason):
		return fmt.Sprintf("dead letter %s (%s), want one of %v", d.Reason, d.Message, e.Reasons)
	case d.OmittedBytes > 0, d.UnreadableOffsets > 0: // there was nothing to copy, or too much
		return ""
	case !same(d.Key, e.Key):
		return fmt.Sprintf("dead letter with key %q, want %q", d.Key, e.Key)
	case !same(d.Value, e.Value):
		return fmt.Sprintf("dead letter with a value of %d bytes, want the event's %d", len(d.Value), len(e.Value))
	}
	return ""
}

// same reports whether keys or values are equal. Null and empty are different.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
