package progress

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestMetadataForms(t *testing.T) {
	topic := [16]byte{9}
	for name, p := range map[string]Progress{
		"nothing ahead": {Base: 7},
		"one range":     {Base: 7, Ahead: []Range{{9, 5000}}},
		"every other":   {Base: 0, Ahead: everyOther(2000)},
		"far apart":     {Base: 3, Ahead: []Range{{1 << 40, 1<<40 + 1}, {1 << 41, 1<<41 + 9}}},
	} {
		s := Encode(topic, p)
		got, err := Decode(topic, p.Base, s)
		if err != nil || !slices.Equal(got.Ahead, p.Ahead) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if got, err := Decode(topic, p.Base, s+"\x00\x00"); err != nil || !slices.Equal(got.Ahead, p.Ahead) {
			t.Errorf("%s, with NULs behind it: %v, %v", name, got, err)
		}
		if got, err := Decode([16]byte{8}, p.Base, s); err != nil || got.Ahead != nil {
			t.Errorf("%s, in a re-created topic: %v, %v; want nothing", name, got, err)
		}
	}
	if s := Encode(topic, Progress{Base: 0, Ahead: everyOther(2000)}); len(s) > 800 {
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
		Encode(topic, Progress{Base: 1, Ahead: []Range{{3, 4}}})[:34]: errCorruptMetadata,
	} {
		got, err := Decode(topic, 1, s)
		if !errors.Is(err, want) || len(got.Ahead) > 0 {
			t.Errorf("%q: %v, %v; want error %v", s, got, err, want)
		}
	}
}

func everyOther(n int64) (rs []Range) {
	for o := int64(2); o < 2*n; o += 2 {
		rs = append(rs, Range{o, o + 1})
	}
	return rs
}

// FuzzMetadata: decoding never panics and what it accepts is in order.
func FuzzMetadata(f *testing.F) {
	topic := [16]byte{1}
	f.Add(int64(5), Encode(topic, Progress{Base: 5, Ahead: []Range{{7, 9}, {100, 101}}}))
	f.Add(int64(0), Encode(topic, Progress{Base: 0, Ahead: everyOther(300)}))
	f.Add(int64(1), "enricher/2 x")
	f.Add(int64(1)<<62, metadataMark+"AQAAAAAAAAAAAAAAAAAAAAD/////////////fw")
	f.Fuzz(func(t *testing.T, base int64, s string) {
		p, err := Decode(topic, base, s)
		if err != nil {
			return
		}
		prev := base
		for _, r := range p.Ahead {
			if r.From <= prev || r.To <= r.From {
				t.Fatalf("base %d: ranges %v out of order", base, p.Ahead)
			}
			prev = r.To
		}
		again, err := Decode(topic, base, Encode(topic, Progress{base, p.Ahead}))
		if err != nil || !slices.Equal(again.Ahead, p.Ahead) {
			t.Fatalf("%v became %v (%v)", p.Ahead, again.Ahead, err)
		}
	})
}

// TestComplete: completing a range completes its offsets and no others, in the form
// that Encode needs.
func TestComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Progress{Base: rapid.Int64Range(0, 3).Draw(t, "base")}
		var done [24]bool
		for o := range p.Base {
			done[o] = true
		}
		for range rapid.IntRange(0, 6).Draw(t, "ranges") {
			from := rapid.Int64Range(0, 20).Draw(t, "from")
			to := from + rapid.Int64Range(1, 3).Draw(t, "length")
			before := slices.Clone(p.Ahead)
			next := p.Complete(Range{from, to})
			if !slices.Equal(p.Ahead, before) {
				t.Fatalf("%v was changed", before)
			}
			p = next
			for o := from; o < to; o++ {
				done[o] = true
			}
			prev := p.Base
			for _, r := range p.Ahead {
				if r.From <= prev || r.To <= r.From {
					t.Fatalf("%v: ranges out of order, or not apart", p)
				}
				prev = r.To
			}
			for o, want := range done {
				if got := p.Completed(int64(o)); got != want {
					t.Fatalf("%v: offset %d completed: %v, want %v", p, o, got, want)
				}
			}
		}
	})
}
