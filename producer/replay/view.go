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

// View is the dead-letter topic and its journal as they stood when Look looked. Letters that are written later are not in it; letters that retention
// deletes later drop out of it.
type View struct {
	cl      *kgo.Client
	letters *topic
	spans   map[int32]span // of letters
	journal *topic         // nil: there is none yet
	done    done
}

// Look looks at the topics and reads the journal.
func Look(ctx context.Context, topics Topics) (*View, error) {
	cl, err := kgo.NewClient(topics.Kafka...)
	if err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	v := &View{cl: cl}
	if err := v.load(ctx, topics); err != nil {
		cl.Close()
		return nil, err
	}
	return v, nil
}

// Close ends the view.
func (v *View) Close() { v.cl.Close() }

func (v *View) load(ctx context.Context, topics Topics) (err error) {
	if v.letters, err = findTopic(ctx, v.cl, topics.DeadLetterTopic); err != nil {
		return err
	}
	// Up to the last stable offset: nothing below it is undecided.
	if v.spans, err = v.letters.spans(ctx, kadm.NewClient(v.cl).ListCommittedOffsets); err != nil {
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
	return v.readJournal(ctx, func(ref Ref, m *Marker) {
		if m == nil {
			v.done.set(ref, Open)
		} else {
			v.done.set(ref, m.Action)
		}
	})
}

// readJournal calls fn for every marker of this dead-letter topic, up to the
// journal's very end: past the last stable offset it waits until what is open
// there is decided.
func (v *View) readJournal(ctx context.Context, fn func(Ref, *Marker)) error {
	spans, err := v.journal.spans(ctx, kadm.NewClient(v.cl).ListEndOffsets)
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
			if id == v.letters.id {
				fn(ref, m)
			}
		}
	}
	return nil
}

// Letters yields what the filter picks, in the order of the topic, and at most
// one error, which is the last.
func (v *View) Letters(ctx context.Context, f Filter) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		n := 0
		for _, p := range v.letters.partitions() {
			s, ok := f.reads(p, v.spans[p])
			if !ok {
				continue
			}
			for r, err := range v.letters.read(ctx, p, s) {
				if err != nil {
					yield(nil, err)
					return
				}
				e := newEntry(r, &v.done)
				if !f.picks(e) {
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
func Newest[T any](ctx context.Context, v *View, f Filter, keep func(*Entry) T) ([]T, int, error) {
	type kept struct {
		written time.Time
		what    T
	}
	byTime := func(a, b kept) int { return a.written.Compare(b.written) }
	limit, picked := f.Limit, 0
	f.Limit = 0
	var newest []kept
	for e, err := range v.Letters(ctx, f) {
		if err != nil {
			return nil, picked, err
		}
		picked++
		if newest = append(newest, kept{e.Record.Timestamp, keep(e)}); len(newest) == 2*limit {
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
func (v *View) History(ctx context.Context, refs []Ref) (map[Ref][]Marker, error) {
	history := make(map[Ref][]Marker)
	if v.journal == nil {
		return history, nil
	}
	for _, ref := range refs {
		history[ref] = nil
	}
	err := v.readJournal(ctx, func(ref Ref, m *Marker) {
		if _, asked := history[ref]; asked && m != nil {
			history[ref] = append(history[ref], *m)
		}
	})
	return history, err
}
