package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Topics names the topics, and the brokers that have them.
type Topics struct {
	Kafka           []kgo.Opt // brokers, TLS, SASL, compression
	DeadLetterTopic string
	JournalTopic    string
	MaxRecordBytes  int32 // that all topics accept; default producer.DefaultMaxRecordBytes
}

// Snapshot is the dead-letter topic and its journal at the time of OpenSnapshot.
// Dead letters written later are not in it; those that retention deletes later
// disappear from it.
type Snapshot struct {
	cl          *kgo.Client
	deadLetters *topic
	ranges      map[int32]offsetRange // of deadLetters
	unavailable map[int32]error       // partitions of deadLetters without a range
	journal     *topic                // nil if it does not exist
	journalRead map[int32]int64       // by partition: offsets below this have been read
	markers     markerSet
	running     map[string]Running // runs that have not said that they ended
	ended       map[string]bool    // runs that have
}

// OpenSnapshot finds the topics and reads the journal up to its high watermark: it
// waits for transactions that are still open there.
func OpenSnapshot(ctx context.Context, topics Topics) (*Snapshot, error) {
	s, err := openSnapshot(ctx, topics)
	if err != nil || s.journal == nil {
		return s, err
	}
	if err := s.readJournal(ctx, kadm.NewClient(s.cl).ListEndOffsets); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// openSnapshot finds the topics and reads the journal without waiting for open
// transactions.
func openSnapshot(ctx context.Context, topics Topics) (*Snapshot, error) {
	cl, err := kgo.NewClient(topics.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	s := &Snapshot{cl: cl, journalRead: make(map[int32]int64), running: make(map[string]Running), ended: make(map[string]bool)}
	if err := s.load(ctx, topics); err != nil {
		cl.Close()
		return nil, err
	}
	return s, nil
}

// Close closes the snapshot's Kafka client; its iterators fail afterwards.
func (s *Snapshot) Close() { s.cl.Close() }

func (s *Snapshot) load(ctx context.Context, topics Topics) (err error) {
	if s.deadLetters, err = findTopic(ctx, s.cl, topics.DeadLetterTopic); err != nil {
		return err
	}
	// Up to the last stable offset: every transaction below it has ended.
	if s.ranges, s.unavailable, err = s.deadLetters.ranges(ctx, kadm.NewClient(s.cl).ListCommittedOffsets); err != nil {
		return err
	}
	s.journal, err = findTopic(ctx, s.cl, topics.JournalTopic)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		s.journal = nil
		return nil
	}
	if err != nil {
		return err
	}
	return s.readJournal(ctx, kadm.NewClient(s.cl).ListCommittedOffsets)
}

// readJournal reads what was added to the journal since the last call, up to the
// offsets that listEnds returns.
func (s *Snapshot) readJournal(ctx context.Context, listEnds listOffsets) error {
	return s.scanJournal(ctx, s.journalRead, listEnds, func(pos Position, m *Marker) {
		if m == nil {
			s.markers.set(pos, Open)
		} else {
			s.markers.set(pos, m.Action)
		}
	}, func(run string, value []byte) error {
		if value == nil {
			delete(s.running, run)
			s.ended[run] = true
			return nil
		}
		var r Running
		err := json.Unmarshal(value, &r)
		s.running[run] = r
		return err
	})
}

// scanJournal calls marker and run for the entries of this dead-letter topic, from
// the offsets in read on, which it advances.
func (s *Snapshot) scanJournal(ctx context.Context, read map[int32]int64, listEnds listOffsets, marker func(Position, *Marker), run func(id string, value []byte) error) error {
	ranges, unavailable, err := s.journal.ranges(ctx, listEnds)
	if err != nil {
		return err
	}
	for _, p := range s.journal.partitions() {
		if err := unavailable[p]; err != nil {
			return err // a marker that is not seen would be a second replay
		}
		offsets := ranges[p]
		offsets.from = max(offsets.from, read[p])
		for raw, err := range s.journal.read(ctx, p, offsets) {
			if err != nil {
				return err
			}
			if err := s.journalEntry(raw, marker, run); err != nil {
				return fmt.Errorf("topic %q: record %d:%d is not a journal entry: %w", s.journal.name, p, raw.Offset, err)
			}
		}
		read[p] = max(offsets.from, offsets.to)
	}
	return nil
}

func (s *Snapshot) journalEntry(raw *kgo.Record, marker func(Position, *Marker), run func(id string, value []byte) error) error {
	if topic, id, ok := parseRunKey(raw.Key); ok {
		if topic != s.deadLetters.id {
			return nil
		}
		return run(id, raw.Value)
	}
	topic, pos, m, err := parseMarker(raw)
	if err == nil && topic == s.deadLetters.id {
		marker(pos, m)
	}
	return err
}

// Records yields the records that the filter selects, partition by partition in
// the order of their offsets, and at most one error, which is the last element.
func (s *Snapshot) Records(ctx context.Context, f Filter) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		n := 0
		for _, p := range s.deadLetters.partitions() {
			offsets, ok := f.narrow(p, s.ranges[p])
			if !ok {
				continue
			}
			for raw, err := range s.deadLetters.read(ctx, p, offsets) {
				if err != nil {
					yield(nil, err)
					return
				}
				r := newRecord(raw, &s.markers)
				if !f.matches(r) {
					continue
				}
				if n++; !yield(r, nil) || n == f.Limit {
					return
				}
			}
		}
		if err := s.missing(&f); err != nil {
			yield(nil, err)
		}
	}
}

// missing returns the error of a partition that the filter selects and that has no
// leader.
func (s *Snapshot) missing(f *Filter) error {
	for _, p := range slices.Sorted(maps.Keys(s.unavailable)) {
		if f.wants(p) {
			return s.unavailable[p]
		}
	}
	return nil
}

// Find returns the record at a position, or an error that says why there is none.
func (s *Snapshot) Find(ctx context.Context, pos Position) (*Record, error) {
	offsets, ok := s.ranges[pos.Partition]
	switch {
	case s.unavailable[pos.Partition] != nil:
		return nil, s.unavailable[pos.Partition]
	case !ok:
		return nil, fmt.Errorf("there is no partition %d: the topic has %d", pos.Partition, len(s.ranges)+len(s.unavailable))
	case pos.Offset >= offsets.to:
		return nil, fmt.Errorf("not written yet: the partition ends before offset %d", offsets.to)
	case pos.Offset < offsets.from:
		return nil, fmt.Errorf("deleted by retention: the partition begins at offset %d", offsets.from)
	}
	for r, err := range s.Records(ctx, Filter{Positions: []Position{pos}}) {
		return r, err
	}
	return nil, errors.New("no record: a transaction marker, an aborted record, or deleted by now")
}

// Newest returns the most recently written records that the filter selects, in
// the order in which they were written, and the number of records that it selects
// without Limit, which must be positive. Of each record only the value that keep
// returns stays in memory. With an error it returns those that were read before.
func Newest[T any](ctx context.Context, s *Snapshot, f Filter, keep func(*Record) T) ([]T, int, error) {
	type kept struct {
		written time.Time
		value   T
	}
	byTime := func(a, b kept) int { return a.written.Compare(b.written) }
	limit, selected := f.Limit, 0
	f.Limit = 0
	var newest []kept
	var last error
	for r, err := range s.Records(ctx, f) {
		if err != nil {
			last = err
			break
		}
		selected++
		if newest = append(newest, kept{r.Raw.Timestamp, keep(r)}); len(newest) == 2*limit {
			slices.SortStableFunc(newest, byTime)
			newest = slices.Delete(newest, 0, limit)
		}
	}
	slices.SortStableFunc(newest, byTime)
	var values []T
	for _, k := range newest[max(0, len(newest)-limit):] {
		values = append(values, k.value)
	}
	return values, selected, last
}

// History returns the markers of dead letters in the order in which they were
// written. Compaction may have removed all but the last one of each.
func (s *Snapshot) History(ctx context.Context, positions []Position) (map[Position][]Marker, error) {
	history := make(map[Position][]Marker)
	if s.journal == nil {
		return history, nil
	}
	for _, pos := range positions {
		history[pos] = nil
	}
	err := s.scanJournal(ctx, make(map[int32]int64), kadm.NewClient(s.cl).ListEndOffsets, func(pos Position, m *Marker) {
		if _, wanted := history[pos]; wanted && m != nil {
			history[pos] = append(history[pos], *m)
		}
	}, func(string, []byte) error { return nil })
	return history, err
}
