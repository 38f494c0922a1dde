package consumer

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

	"enricher/consumer/progress"
	"enricher/consumer/session"

	"pgregory.net/rapid"
)

// model is the tracker as one would write it without a thought for speed: one
// state per offset.
type model struct {
	state map[int64]int
	head  int64
}

const (
	modelPending = iota + 1
	modelDone
)

func (m *model) pending() []int64 {
	var os []int64
	for o, s := range m.state {
		if s == modelPending {
			os = append(os, o)
		}
	}
	slices.Sort(os)
	return os
}

// TestTrackerAgainstModel admits, finishes, commits, aborts, loses responses and
// crashes in any order, with gaps in the offsets, and checks after every step
// that tracker and committed state say of every delivered offset what the model
// says.
func TestTrackerAgainstModel(t *testing.T) {
	topic := [16]byte{1, 2, 3}
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		log := drawLog(t) // delivered offsets, ascending, with gaps
		start := int64(0)
		if rapid.Bool().Draw(t, "group without offset") {
			start = -1
		}
		committed := session.Offset{Offset: start}
		tr := newTracker(progress.Progress{Base: start})
		m := model{state: map[int64]int{}, head: log[0]}
		done := map[int64]bool{} // truth: committed outcomes
		next := 0                // index in log of the next poll

		check := func() {
			if got, want := len(tr.pending), len(m.pending()); got != want {
				t.Fatalf("pending: %d, want %d", got, want)
			}
			var bytes int64
			for i, p := range tr.pending {
				bytes += p.bytes
				if p.offset != m.pending()[i] {
					t.Fatalf("pending %v, want %v", tr.pending, m.pending())
				}
			}
			if bytes != tr.bytes {
				t.Fatalf("bytes %d, want %d", tr.bytes, bytes)
			}
			fresh := newTracker(mustDecode(t, topic, committed))
			for _, o := range log {
				if o < committed.Offset {
					if !done[o] {
						t.Fatalf("offset %d is below the committed %d, but was never done", o, committed.Offset)
					}
					continue
				}
				if todo := fresh.add(o, 1); todo == done[o] {
					t.Fatalf("a new owner finds offset %d to do: %v; it is done: %v; committed %+v", o, todo, done[o], committed)
				}
			}
		}

		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"poll": func(t *rapid.T) {
				for n := rapid.IntRange(1, 20).Draw(t, "n"); n > 0 && next < len(log); n-- {
					o := log[next]
					next++
					todo := tr.add(o, 1)
					_, known := m.state[o]
					if todo != (!known && !done[o]) {
						t.Fatalf("add(%d) = %v, done: %v, known: %v", o, todo, done[o], known)
					}
					if todo && rapid.IntRange(0, 9).Draw(t, "withdraw") == 0 {
						tr.withdraw(o)
						next--
						break
					}
					if todo {
						m.state[o] = modelPending
					}
				}
			},
			"rewind": func(t *rapid.T) { // an abort makes the client fetch again
				next = rapid.IntRange(0, next).Draw(t, "to")
				for next < len(log) && log[next] < committed.Offset {
					next++
				}
			},
			"commit": func(t *rapid.T) {
				var completed []int64
				for _, p := range tr.pending {
					if rapid.Bool().Draw(t, "completed") {
						completed = append(completed, p.offset)
					}
				}
				if len(completed) == 0 {
					return
				}
				p := tr.after(completed)
				offer := session.Offset{Offset: p.Base, Metadata: progress.Encode(topic, p)}
				happened := func() {
					committed = offer
					for _, o := range completed {
						done[o] = true
						m.state[o] = modelDone
					}
				}
				switch rapid.SampledFrom([]string{"ok", "abort", "response lost, but it happened"}).Draw(t, "end") {
				case "ok":
					happened()
					tr.commit(completed, p)
				case "abort":
					if _, err := tr.applyCommitted(progress.Progress{Base: max(committed.Offset, tr.base), Ahead: mustDecode(t, topic, committed).Ahead}); err != nil && committed.Offset >= 0 {
						t.Fatal(err)
					}
				default:
					happened()
					n, err := tr.applyCommitted(mustDecode(t, topic, committed))
					if err != nil || n != len(completed) {
						t.Fatalf("applyCommitted found %d done (%v), want %d", n, err, len(completed))
					}
				}
			},
			"new owner": func(*rapid.T) {
				tr = newTracker(mustDecode(t, topic, committed))
				for o, s := range m.state {
					if s == modelPending {
						delete(m.state, o)
					}
				}
				for next = 0; next < len(log) && log[next] < committed.Offset; {
					next++
				}
			},
		})
	})
}

func mustDecode(t *rapid.T, topic [16]byte, o session.Offset) progress.Progress {
	p, err := progress.Decode(topic, o.Offset, o.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func drawLog(t *rapid.T) []int64 {
	o := rapid.Int64Range(0, 5).Draw(t, "log start")
	var log []int64
	for range rapid.IntRange(1, 120).Draw(t, "events") {
		log = append(log, o)
		o++
		if rapid.IntRange(0, 5).Draw(t, "gap") == 0 {
			o += rapid.Int64Range(1, 3).Draw(t, "width")
		}
	}
	return log
}

// TestTrackerRefusesToGoBack: what was committed cannot become uncommitted.
func TestTrackerRefusesToGoBack(t *testing.T) {
	tr := newTracker(progress.Progress{Base: 10})
	tr.add(10, 1)
	if _, err := tr.applyCommitted(progress.Progress{Base: 9}); err == nil {
		t.Error("a committed offset below base was accepted")
	}
}

func TestTrackerCountsUnreadOffsets(t *testing.T) {
	tr := newTracker(progress.Progress{Base: 10, Ahead: []progress.Range{{From: 12, To: 14}, {From: 20, To: 30}}})
	for o, want := range map[int64]int64{5: 0, 10: 0, 11: 1, 12: 2, 13: 2, 14: 2, 20: 8, 25: 8, 31: 9} {
		if got := tr.unread(0, o); got != want {
			t.Errorf("unread(%d) = %d, want %d", o, got, want)
		}
	}
}

// TestMetadataIsBounded: at 5,000 events a second of which a tenth is never
// found, whatever is committed of a partition fits, because the conductor
// leaves out what does not.
func TestMetadataIsBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tr := newTracker(progress.Progress{Base: 0})
	var topic [16]byte
	done := map[int64]bool{}
	completed := []int64{}
	never := map[int64]bool{}
	widest, deferred := 0, 0
	for o := range int64(200_000) {
		if len(tr.pending) >= 20_000 { // back-pressure: the oldest run into their window
			for _, p := range tr.pending[:5000] {
				if never[p.offset] {
					completed = append(completed, p.offset)
					delete(never, p.offset)
				}
			}
		}
		if tr.add(o, 1) {
			if rng.IntN(10) == 0 {
				never[o] = true
			} else {
				completed = append(completed, o)
			}
		}
		if o%250 != 0 {
			continue
		}
		slices.Sort(completed)
		n, p, metadata := fitMetadata(tr, topic, completed, progress.MaxOffsetMetadataBytes)
		deferred += len(completed) - n
		for _, o := range completed[:n] {
			if done[o] {
				t.Fatalf("offset %d done twice", o)
			}
			done[o] = true
		}
		if n > 0 {
			tr.commit(completed[:n], p)
		}
		completed = slices.Clone(completed[n:])
		widest = max(widest, len(metadata))
	}
	if widest > progress.MaxOffsetMetadataBytes || widest < progress.MaxOffsetMetadataBytes/2 {
		t.Errorf("metadata of up to %d bytes: want the limit of %d to be neared and kept", widest, progress.MaxOffsetMetadataBytes)
	}
	if deferred == 0 {
		t.Error("nothing was ever left for later: this test does not reach the limit")
	}
}
