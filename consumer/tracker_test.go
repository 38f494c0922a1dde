package consumer

import (
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

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

// TestTrackerAgainstModel admits, finishes, commits, aborts, loses answers and
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
		committed := Offset{Offset: start}
		tr := newTracker(progress{base: start})
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
			ahead, err := decodeMetadata(topic, committed.Offset, committed.Metadata)
			if err != nil {
				t.Fatal(err)
			}
			fresh := newTracker(progress{committed.Offset, ahead})
			for _, o := range log {
				if o < committed.Offset {
					if !done[o] {
						t.Fatalf("offset %d is below the committed %d, but was never done", o, committed.Offset)
					}
					continue
				}
				if todo := fresh.admit(o, 0, 1); todo == done[o] {
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
					todo := tr.admit(o, 0, 1)
					_, known := m.state[o]
					if todo != (!known && !done[o]) {
						t.Fatalf("admit(%d) = %v, done: %v, known: %v", o, todo, done[o], known)
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
				var finished []int64
				for _, p := range tr.pending {
					if rapid.Bool().Draw(t, "finished") {
						finished = append(finished, p.offset)
					}
				}
				if len(finished) == 0 {
					return
				}
				p := tr.after(finished)
				offer := Offset{Offset: p.base, Metadata: encodeMetadata(topic, p)}
				happened := func() {
					committed = offer
					for _, o := range finished {
						done[o] = true
						m.state[o] = modelDone
					}
				}
				switch rapid.SampledFrom([]string{"ok", "abort", "answer lost, but it happened"}).Draw(t, "end") {
				case "ok":
					happened()
					tr.commit(finished, p)
				case "abort":
					if _, err := tr.fold(progress{base: max(committed.Offset, tr.base), ahead: mustDecode(t, topic, committed)}); err != nil && committed.Offset >= 0 {
						t.Fatal(err)
					}
				default:
					happened()
					n, err := tr.fold(progress{committed.Offset, mustDecode(t, topic, committed)})
					if err != nil || n != len(finished) {
						t.Fatalf("fold found %d done (%v), want %d", n, err, len(finished))
					}
				}
			},
			"new owner": func(*rapid.T) {
				tr = newTracker(progress{committed.Offset, mustDecode(t, topic, committed)})
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

func mustDecode(t *rapid.T, topic [16]byte, o Offset) []run {
	ahead, err := decodeMetadata(topic, o.Offset, o.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	return ahead
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
	tr := newTracker(progress{base: 10})
	tr.admit(10, 0, 1)
	if _, err := tr.fold(progress{base: 9}); err == nil {
		t.Error("a committed offset below base was believed")
	}
}

func TestTrackerUnhandled(t *testing.T) {
	tr := newTracker(progress{base: 10, ahead: []run{{12, 14}, {20, 30}}})
	for o, want := range map[int64]int64{5: 0, 10: 0, 11: 1, 12: 2, 13: 2, 14: 2, 20: 8, 25: 8, 31: 9} {
		if got := tr.unhandled(o); got != want {
			t.Errorf("unhandled(%d) = %d, want %d", o, got, want)
		}
	}
}

// TestMetadataIsBounded: at 5,000 events a second of which a tenth is never
// found, whatever is committed of a partition fits, because the conductor
// leaves out what does not.
func TestMetadataIsBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tr := newTracker(progress{base: 0})
	var topic [16]byte
	done := map[int64]bool{}
	finished := []int64{}
	never := map[int64]bool{}
	widest, deferred := 0, 0
	for o := range int64(200_000) {
		if len(tr.pending) >= 20_000 { // back-pressure: the oldest run into their window
			for _, p := range tr.pending[:5000] {
				if never[p.offset] {
					finished = append(finished, p.offset)
					delete(never, p.offset)
				}
			}
		}
		if tr.admit(o, 0, 1) {
			if rng.IntN(10) == 0 {
				never[o] = true
			} else {
				finished = append(finished, o)
			}
		}
		if o%250 != 0 {
			continue
		}
		slices.Sort(finished)
		n, p, metadata := fit(tr, topic, finished, MaxMetadata)
		deferred += len(finished) - n
		for _, o := range finished[:n] {
			if done[o] {
				t.Fatalf("offset %d done twice", o)
			}
			done[o] = true
		}
		if n > 0 {
			tr.commit(finished[:n], p)
		}
		finished = slices.Clone(finished[n:])
		widest = max(widest, len(metadata))
	}
	if widest > MaxMetadata || widest < MaxMetadata/2 {
		t.Errorf("metadata of up to %d bytes: want the limit of %d to be neared and kept", widest, MaxMetadata)
	}
	if deferred == 0 {
		t.Error("nothing was ever left for later: this test does not reach the limit")
	}
}

func TestMetadataForms(t *testing.T) {
	topic := [16]byte{9}
	for name, p := range map[string]progress{
		"nothing ahead": {base: 7},
		"one run":       {base: 7, ahead: []run{{9, 5000}}},
		"every other":   {base: 0, ahead: everyOther(2000)},
		"far apart":     {base: 3, ahead: []run{{1 << 40, 1<<40 + 1}, {1 << 41, 1<<41 + 9}}},
	} {
		s := encodeMetadata(topic, p)
		got, err := decodeMetadata(topic, p.base, s)
		if err != nil || !slices.Equal(got, p.ahead) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if got, err := decodeMetadata([16]byte{8}, p.base, s); err != nil || got != nil {
			t.Errorf("%s, in a topic made anew: %v, %v; want nothing", name, got, err)
		}
	}
	if s := encodeMetadata(topic, progress{base: 0, ahead: everyOther(2000)}); len(s) > 800 {
		t.Errorf("2,000 offsets in %d bytes: not as a bitmap", len(s))
	}
	for s, want := range map[string]error{
		"":                 nil,
		"set by some tool": nil,
		"enricher/2 AAAA":  errNewerMetadata,
		"enricher/":        errNewerMetadata,
		"enricher/1 ":      errCorruptMetadata,
		"enricher/1 !!!":   errCorruptMetadata,
		"enricher/1 AAAA":  errCorruptMetadata,
		encodeMetadata(topic, progress{base: 1, ahead: []run{{3, 4}}})[:34]: errCorruptMetadata,
	} {
		got, err := decodeMetadata(topic, 1, s)
		if !errors.Is(err, want) || len(got) > 0 {
			t.Errorf("%q: %v, %v; want error %v", s, got, err, want)
		}
	}
}

func everyOther(n int64) (rs []run) {
	for o := int64(2); o < 2*n; o += 2 {
		rs = append(rs, run{o, o + 1})
	}
	return rs
}

// FuzzMetadata: decoding never panics and what it accepts is in order.
func FuzzMetadata(f *testing.F) {
	topic := [16]byte{1}
	f.Add(int64(5), encodeMetadata(topic, progress{base: 5, ahead: []run{{7, 9}, {100, 101}}}))
	f.Add(int64(0), encodeMetadata(topic, progress{base: 0, ahead: everyOther(300)}))
	f.Add(int64(1), "enricher/2 x")
	f.Add(int64(1)<<62, metadataMark+"AQAAAAAAAAAAAAAAAAAAAAD/////////////fw")
	f.Fuzz(func(t *testing.T, base int64, s string) {
		ahead, err := decodeMetadata(topic, base, s)
		if err != nil {
			return
		}
		prev := base
		for _, r := range ahead {
			if r.from <= prev || r.to <= r.from {
				t.Fatalf("base %d: runs %v out of order", base, ahead)
			}
			prev = r.to
		}
		again, err := decodeMetadata(topic, base, encodeMetadata(topic, progress{base, ahead}))
		if err != nil || !slices.Equal(again, ahead) {
			t.Fatalf("%v became %v (%v)", ahead, again, err)
		}
	})
}
