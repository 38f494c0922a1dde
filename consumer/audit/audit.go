// Package oracle tells whether a run of the pipeline was exactly-once, from
// nothing but the ledger of what was fed to it and what a read_committed reader
// finds in the output topics. It never looks at the pipeline itself.
package audit

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// Source is where an event stands.
type Source struct {
	Topic     string
	Partition int32
	Offset    int64
}

func (s Source) String() string { return fmt.Sprintf("%s[%d]@%d", s.Topic, s.Partition, s.Offset) }

// Expect says what must come of one event.
type Expect struct {
	CallID string
	// Enriched is the value of the enriched record; nil: not to be enriched.
	Enriched []byte
	// Reasons are those a dead letter may have; none: no dead letter.
	Reasons []schemas.Reason
	// Key and Value of the event, which a dead letter must repeat.
	Key, Value []byte
	// Produced is when the event was sent, for latencies.
	Produced time.Time
}

// skipped says that nothing at all must come of the event.
func (e *Expect) skipped() bool { return e.Enriched == nil && len(e.Reasons) == 0 }

// Ledger is what was fed. It is safe for use by many goroutines.
type Ledger struct {
	mu sync.Mutex
	m  map[Source]Expect
}

// Add notes an event that was acknowledged.
func (l *Ledger) Add(s Source, e Expect) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = make(map[Source]Expect)
	}
	l.m[s] = e
}

// Len is the number of events.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.m)
}

// Due is the number of events that must have an output.
func (l *Ledger) Due() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.m {
		if !e.skipped() {
			n++
		}
	}
	return n
}

// Account is the verdict on a run. Lost, Doubled and Wrong name the events.
type Account struct {
	Events      int
	Enriched    int
	DeadLetters map[schemas.Reason]int
	Skipped     int // events that must have no output, and have none
	Lost        []string
	Doubled     []string
	Wrong       []string        // an outcome of the wrong kind, reason, key or value; a record of no event
	Latency     []time.Duration // from sending an event to the broker's timestamp of its output, ascending
}

// OK says that every event has exactly one outcome, and the right one.
func (a *Account) OK() bool { return len(a.Lost)+len(a.Doubled)+len(a.Wrong) == 0 }

// String lists at most ten events of each kind of trouble.
func (a *Account) String() string {
	letters := 0
	for _, n := range a.DeadLetters {
		letters += n
	}
	s := fmt.Sprintf("%d events: %d enriched, %d dead letters %v, %d skipped, %d lost, %d doubled, %d wrong",
		a.Events, a.Enriched, letters, a.DeadLetters, a.Skipped, len(a.Lost), len(a.Doubled), len(a.Wrong))
	for _, k := range []struct {
		name string
		list []string
	}{{"lost", a.Lost}, {"doubled", a.Doubled}, {"wrong", a.Wrong}} {
		for _, e := range k.list[:min(10, len(k.list))] {
			s += "\n  " + k.name + ": " + e
		}
	}
	return s
}

// Check compares records with the ledger.
func (l *Ledger) Check(records []*kgo.Record) *Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &Account{Events: len(l.m), DeadLetters: make(map[schemas.Reason]int)}
	count := make(map[Source]int, len(l.m))
	for _, r := range records {
		src, err := SourceOf(r)
		if err != nil {
			a.Wrong = append(a.Wrong, err.Error())
			continue
		}
		e, ok := l.m[src]
		if !ok {
			a.Wrong = append(a.Wrong, fmt.Sprintf("%v: an outcome of an event that was never fed", src))
			continue
		}
		count[src]++
		if count[src] > 1 {
			a.Doubled = append(a.Doubled, src.String())
			continue
		}
		if letter, is := producer.ParseDeadLetter(r); is {
			a.DeadLetters[letter.Reason]++
			if why := e.checkLetter(letter); why != "" {
				a.Wrong = append(a.Wrong, src.String()+": "+why)
			}
		} else {
			a.Enriched++
			if why := e.checkEnriched(r); why != "" {
				a.Wrong = append(a.Wrong, src.String()+": "+why)
			}
		}
		a.Latency = append(a.Latency, r.Timestamp.Sub(e.Produced))
	}
	for src, e := range l.m {
		switch {
		case e.skipped() && count[src] == 0:
			a.Skipped++
		case count[src] == 0:
			a.Lost = append(a.Lost, src.String()+" "+e.CallID)
		}
	}
	slices.Sort(a.Lost)
	slices.Sort(a.Latency)
	return a
}

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

func (e *Expect) checkLetter(l *producer.DeadLetter) string {
	switch {
	case !slices.Contains(e.Reasons, l.Reason):
		return fmt.Sprintf("dead letter %s (%s), want one of %v", l.Reason, l.Message, e.Reasons)
	case l.OmittedBytes > 0:
		return ""
	case !bytes.Equal(l.Key, e.Key) || (l.Key == nil) != (e.Key == nil):
		return fmt.Sprintf("dead letter with key %q, want %q", l.Key, e.Key)
	case !bytes.Equal(l.Value, e.Value) || (l.Value == nil) != (e.Value == nil):
		return fmt.Sprintf("dead letter with a value of %d bytes, want the event's %d", len(l.Value), len(e.Value))
	}
	return ""
}

// SourceOf says which event a record of an output topic is an outcome of.
func SourceOf(r *kgo.Record) (Source, error) {
	if l, ok := producer.ParseDeadLetter(r); ok {
		return Source{l.Topic, l.Partition, l.Offset}, nil
	}
	var s Source
	found := 0
	for _, h := range r.Headers {
		switch h.Key {
		case schemas.HeaderSourceTopic:
			s.Topic = string(h.Value)
		case schemas.HeaderSourcePartition:
			p, err := strconv.ParseInt(string(h.Value), 10, 32)
			if err != nil {
				return s, err
			}
			s.Partition = int32(p)
		case schemas.HeaderSourceOffset:
			o, err := strconv.ParseInt(string(h.Value), 10, 64)
			if err != nil {
				return s, err
			}
			s.Offset = o
		default:
			continue
		}
		found++
	}
	if found != 3 {
		return s, fmt.Errorf("%s[%d]@%d: a record that names no event", r.Topic, r.Partition, r.Offset)
	}
	return s, nil
}

// Read reads topics from their start to where they end now, as a
// read_committed reader. opts say how to reach the brokers.
func Read(ctx context.Context, opts []kgo.Opt, topics ...string) ([]*kgo.Record, error) {
	cl, err := kgo.NewClient(append(slices.Clone(opts), kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list ends: %w", err)
	}
	starts, err := kadm.NewClient(cl).ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list starts: %w", err)
	}
	left := make(map[Source]int64) // Offset is unused: the end to reach
	ends.Each(func(o kadm.ListedOffset) {
		if s, _ := starts.Lookup(o.Topic, o.Partition); s.Offset < o.Offset {
			left[Source{Topic: o.Topic, Partition: o.Partition}] = o.Offset
		}
	})
	var records []*kgo.Record
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read to the end of %v (an open transaction holds readers back): %w", left, err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			tp := Source{Topic: p.Topic, Partition: p.Partition}
			for _, r := range p.Records {
				if !r.Attrs.IsControl() {
					records = append(records, r)
				}
				if r.Offset >= left[tp]-1 {
					delete(left, tp)
				}
			}
		})
	}
	return records, nil
}
