package replay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Topics names the topics and says how to reach them.
type Topics struct {
	Kafka           []kgo.Opt // brokers, TLS, SASL
	DeadLetterTopic string
	JournalTopic    string
}

// Snapshot is the dead-letter topic and its journal as they stood when Look looked. Letters that are written later are not in it; letters that retention
// deletes later drop out of it.
type Snapshot struct {
	cl          *kgo.Client
	deadLetters *topic
	ranges      map[int32]offsetRange // of letters
	journal     *topic                // nil: there is none yet
	markers     markerSet
}

// OpenSnapshot looks at the topics and reads the journal.
func OpenSnapshot(ctx context.Context, topics Topics) (*Snapshot, error) {
	cl, err := kgo.NewClient(topics.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	v := &Snapshot{cl: cl}
	if err := v.load(ctx, topics); err != nil {
		cl.Close()
		return nil, err
	}
	return v, nil
}

// Close ends the view.
func (v *Snapshot) Close() { v.cl.Close() }

func (v *Snapshot) load(ctx context.Context, topics Topics) (err error) {
	if v.deadLetters, err = findTopic(ctx, v.cl, topics.DeadLetterTopic); err != nil {
		return err
	}
	// Up to the last stable offset: nothing below it is undecided.
	if v.ranges, err = v.deadLetters.ranges(ctx, kadm.NewClient(v.cl).ListCommittedOffsets); err != nil {
		return err
	}
	v.journal, err = findTopic(ctx, v.cl, topics.JournalTopic)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		v.journal = nil
		return nil
	}
	if err != nil {
		return err
	}
	return v.readJournal(ctx, func(ref Position, m *Marker) {
		if m == nil {
			v.markers.set(ref, Open)
		} else {
			v.markers.set(ref, m.Action)
		}
	})
}

// readJournal calls fn for every marker of this dead-letter topic, up to the
// journal's very end: past the last stable offset it waits until what is open
// there is decided.
func (v *Snapshot) readJournal(ctx context.Context, fn func(Position, *Marker)) error {
	spans, err := v.journal.ranges(ctx, kadm.NewClient(v.cl).ListEndOffsets)
	if err != nil {
		return err
	}
	for _, p := range v.journal.partitions() {
		for r, err := range v.journal.read(ctx, p, spans[p]) {
			if err != nil {
				return err
			}
			id, ref, m, err := parseMarker(r)
			if err != nil {
				return fmt.Errorf("topic %q holds a record at %d:%d that is no entry of a journal: %w", v.journal.name, p, r.Offset, err)
			}
			if id == v.deadLetters.id {
				fn(ref, m)
			}
		}
	}
	return nil
}

// Records yields what the filter picks, in the order of the topic, and at most
// one error, which is the last.
func (v *Snapshot) Records(ctx context.Context, f Filter) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		n := 0
		for _, p := range v.deadLetters.partitions() {
			s, ok := f.narrow(p, v.ranges[p])
			if !ok {
				continue
			}
			for r, err := range v.deadLetters.read(ctx, p, s) {
				if err != nil {
					yield(nil, err)
					return
				}
				e := newRecord(r, &v.markers)
				if !f.matches(e) {
					continue
				}
				if n++; !yield(e, nil) || n == f.Limit {
					return
				}
			}
		}
	}
}

// Newest are the letters last written among those that the filter picks, in the
// order in which they were written, at most Limit of them, which must be more
// than 0; and how many the filter picks. Of a letter only what keep makes of it
// stays in memory.
func Newest[T any](ctx context.Context, v *Snapshot, f Filter, keep func(*Record) T) ([]T, int, error) {
	type kept struct {
		written time.Time
		what    T
	}
	byTime := func(a, b kept) int { return a.written.Compare(b.written) }
	limit, picked := f.Limit, 0
	f.Limit = 0
	var newest []kept
	for e, err := range v.Records(ctx, f) {
		if err != nil {
			return nil, picked, err
		}
		picked++
		if newest = append(newest, kept{e.Raw.Timestamp, keep(e)}); len(newest) == 2*limit {
			slices.SortStableFunc(newest, byTime)
			newest = slices.Delete(newest, 0, limit)
		}
	}
	slices.SortStableFunc(newest, byTime)
	var all []T
	for _, k := range newest[max(0, len(newest)-limit):] {
		all = append(all, k.what)
	}
	return all, picked, nil
}

// History is what the journal says of letters. Of each letter it has kept one
// marker at least, the last one.
func (v *Snapshot) History(ctx context.Context, refs []Position) (map[Position][]Marker, error) {
	history := make(map[Position][]Marker)
	if v.journal == nil {
		return history, nil
	}
	for _, ref := range refs {
		history[ref] = nil
	}
	err := v.readJournal(ctx, func(ref Position, m *Marker) {
		if _, asked := history[ref]; asked && m != nil {
			history[ref] = append(history[ref], *m)
		}
	})
	return history, err
}
