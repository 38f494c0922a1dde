// Package progress encodes which offsets of a partition are completed: the
// committed offset, and in its metadata the offsets that were completed ahead of
// it. It is pure.
package progress

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// MaxOffsetMetadataBytes is the largest metadata of a committed offset: the
// broker's default for offset.metadata.max.bytes, above which it rejects a
// commit.
const MaxOffsetMetadataBytes = 4096

// metadataPrefix marks metadata that enricher wrote; the version follows it.
// Other metadata was written by a tool that reset the group's offsets.
const (
	metadataPrefix = "enricher/"
	metadataMark   = metadataPrefix + "1 "
)

// Errors of metadata that enricher wrote and that must not be ignored: the events
// it marks as completed would be processed again.
var (
	errNewerMetadata   = errors.New("offset metadata was written by a newer version of enricher")
	errCorruptMetadata = errors.New("offset metadata is damaged")
)

// Range is a range of offsets, From inclusive, To exclusive.
type Range struct{ From, To int64 }

// Progress is what a committed offset and its metadata record: every offset
// below Base is completed, and so are the ranges ahead of it (ascending, apart
// from each other, the first one above Base).
type Progress struct {
	Base  int64
	Ahead []Range
}

// Truncate removes what is at or above end from p. It reports whether Base was.
func (p *Progress) Truncate(end int64) bool {
	for i, r := range p.Ahead {
		if r.To > end {
			p.Ahead = p.Ahead[:i]
			if r.From < end {
				p.Ahead = append(p.Ahead, Range{r.From, end})
			}
			break
		}
	}
	if p.Base <= end {
		return false
	}
	p.Base = end
	return true
}

// Complete returns p with the offsets of r completed, too.
func (p Progress) Complete(r Range) Progress {
	q := Progress{Base: p.Base}
	add := func(r Range) {
		switch n := len(q.Ahead); {
		case r.To <= q.Base:
		case r.From <= q.Base:
			q.Base = r.To
		case n > 0 && r.From <= q.Ahead[n-1].To:
			q.Ahead[n-1].To = max(q.Ahead[n-1].To, r.To)
		default:
			q.Ahead = append(q.Ahead, r)
		}
	}
	all := append(slices.Clone(p.Ahead), r)
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.From, b.From) })
	for _, r := range all {
		add(r)
	}
	return q
}

// Equal reports whether the same offsets are completed.
func (p Progress) Equal(q Progress) bool { return p.Base == q.Base && slices.Equal(p.Ahead, q.Ahead) }

// Completed reports whether offset o is completed.
func (p Progress) Completed(o int64) bool {
	return o < p.Base || slices.ContainsFunc(p.Ahead, func(r Range) bool { return r.From <= o && o < r.To })
}

// Left returns how many offsets from start to end are not completed.
func (p Progress) Left(start, end int64) int64 {
	n := max(0, end-max(start, p.Base))
	for _, r := range p.Ahead {
		n -= max(0, min(r.To, end)-max(r.From, start))
	}
	return n
}

const (
	formRanges = 0 // pairs of uvarints: distance from the last range's end, length
	formBitmap = 1 // bit i, least significant first: offset base+1+i is completed
)

// Encode returns the metadata for p: the ranges ahead in the smaller of two
// forms, after the id of the topic, because offsets mean nothing in a topic of
// the same name that was created later.
func Encode(topic [16]byte, p Progress) string {
	raw := append(make([]byte, 0, 64), topic[:]...)
	if len(p.Ahead) > 0 {
		size, prev := 0, p.Base
		for _, r := range p.Ahead {
			size += uvarintLen(uint64(r.From-prev)) + uvarintLen(uint64(r.To-r.From))
			prev = r.To
		}
		if span := p.Ahead[len(p.Ahead)-1].To - p.Base - 1; span <= int64(size)*8 {
			raw = appendBitmap(append(raw, formBitmap), p, span)
		} else {
			raw = appendRanges(append(raw, formRanges), p)
		}
	}
	return metadataMark + base64.RawStdEncoding.EncodeToString(raw)
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func appendRanges(b []byte, p Progress) []byte {
	prev := p.Base
	for _, r := range p.Ahead {
		b = binary.AppendUvarint(b, uint64(r.From-prev))
		b = binary.AppendUvarint(b, uint64(r.To-r.From))
		prev = r.To
	}
	return b
}

func appendBitmap(b []byte, p Progress, span int64) []byte {
	start := len(b)
	b = append(b, make([]byte, (span+7)/8)...)
	for _, r := range p.Ahead {
		for o := r.From; o < r.To; o++ {
			i := o - p.Base - 1
			b[start+int(i/8)] |= 1 << (i % 8)
		}
	}
	return b
}

// CommittedForOldTopic reports whether metadata belongs to an offset of another
// topic than the one with this id, which has the same name.
func CommittedForOldTopic(topic [16]byte, metadata string) bool {
	text, ours := strings.CutPrefix(withoutNULs(metadata), metadataMark)
	if !ours {
		return false
	}
	raw, err := base64.RawStdEncoding.DecodeString(text)
	return err == nil && len(raw) >= len(topic) && [16]byte(raw[:16]) != topic
}

// withoutNULs removes the NULs that clients written in C append to metadata when
// they commit it again.
func withoutNULs(metadata string) string { return strings.TrimRight(metadata, "\x00") }

// Foreign reports whether a committed offset comes with metadata that enricher did
// not write, or with none: a tool has set it.
func Foreign(metadata string) bool { return !strings.HasPrefix(metadata, metadataPrefix) }

// Decode is the inverse of Encode, for the committed offset base. Metadata of
// other tools, and of another topic, means that nothing was completed ahead. An
// error means that this version must not consume the partition.
func Decode(topic [16]byte, base int64, metadata string) (Progress, error) {
	p := Progress{Base: base}
	rest, ours := strings.CutPrefix(withoutNULs(metadata), metadataPrefix)
	if !ours || base < 0 {
		return p, nil
	}
	version, text, ok := strings.Cut(rest, " ")
	if version != "1" {
		return p, fmt.Errorf("%w (version %.20q, this one knows version 1)", errNewerMetadata, version)
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(raw) < len(topic) {
		return p, errCorruptMetadata
	}
	if [16]byte(raw[:16]) != topic {
		return p, nil
	}
	raw = raw[16:]
	if len(raw) == 0 {
		return p, nil
	}
	switch raw[0] {
	case formRanges:
		p.Ahead, err = decodeRanges(base, raw[1:])
	case formBitmap:
		p.Ahead, err = decodeBitmap(base, raw[1:])
	}
	if err == nil && len(p.Ahead) == 0 { // truncated: Encode writes no empty form
		err = errCorruptMetadata
	}
	return p, err
}

func decodeRanges(base int64, b []byte) ([]Range, error) {
	var ahead []Range
	prev := base
	next := func() (int64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 || v == 0 || v > uint64(math.MaxInt64-prev) {
			return 0, false
		}
		b = b[n:]
		prev += int64(v)
		return prev, true
	}
	for len(b) > 0 {
		from, ok1 := next()
		to, ok2 := next()
		if !ok1 || !ok2 {
			return nil, errCorruptMetadata
		}
		ahead = append(ahead, Range{from, to})
	}
	return ahead, nil
}

func decodeBitmap(base int64, b []byte) ([]Range, error) {
	if base > math.MaxInt64-int64(len(b))*8-1 {
		return nil, errCorruptMetadata
	}
	var ahead []Range
	for i := range int64(len(b)) * 8 {
		if b[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		o := base + 1 + i
		if n := len(ahead); n > 0 && ahead[n-1].To == o {
			ahead[n-1].To++
		} else {
			ahead = append(ahead, Range{o, o + 1})
		}
	}
	return ahead, nil
}
