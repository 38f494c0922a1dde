package consumer

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// MaxMetadata is the most that the metadata of a committed offset takes, in
// bytes: the broker's own default for offset.metadata.max.bytes, above which it
// refuses a commit. It also refuses a transaction whose offsets together pass
// about 1 MB.
const (
	MaxMetadata    = 4096
	maxTxnMetadata = 512 << 10
)

// metadataPrefix marks metadata of ours; the version follows it. Anything
// without the mark is foreign: some other tool reset the group.
const (
	metadataPrefix = "enricher/"
	metadataMark   = metadataPrefix + "1 "
)

// Metadata of ours that must not be ignored: what it says was done would be
// done again.
var (
	errNewerMetadata   = errors.New("offset metadata was written by a newer version of enricher")
	errCorruptMetadata = errors.New("offset metadata is damaged")
)

// run is a range of offsets, from inclusive, to exclusive.
type run struct{ from, to int64 }

// progress is what a partition's committed offset and metadata say: every
// offset below base is done, and so are the runs ahead of it (ascending, apart
// from each other, the first one above base).
type progress struct {
	base  int64
	ahead []run
}

const (
	formRuns   = 0 // pairs of uvarints: distance from the last run's end, length
	formBitmap = 1 // bit i, least significant first: offset base+1+i is done
)

// encodeMetadata packs the runs ahead into the smaller of two forms, behind
// the id of the topic: offsets mean nothing in a topic of the same name that
// was created anew.
func encodeMetadata(topic [16]byte, p progress) string {
	raw := append(make([]byte, 0, 64), topic[:]...)
	if len(p.ahead) > 0 {
		size, prev := 0, p.base
		for _, r := range p.ahead {
			size += uvarintLen(uint64(r.from-prev)) + uvarintLen(uint64(r.to-r.from))
			prev = r.to
		}
		if span := p.ahead[len(p.ahead)-1].to - p.base - 1; span <= int64(size)*8 {
			raw = appendBitmap(append(raw, formBitmap), p, span)
		} else {
			raw = appendRuns(append(raw, formRuns), p)
		}
	}
	return metadataMark + base64.RawStdEncoding.EncodeToString(raw)
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func appendRuns(b []byte, p progress) []byte {
	prev := p.base
	for _, r := range p.ahead {
		b = binary.AppendUvarint(b, uint64(r.from-prev))
		b = binary.AppendUvarint(b, uint64(r.to-r.from))
		prev = r.to
	}
	return b
}

func appendBitmap(b []byte, p progress, span int64) []byte {
	start := len(b)
	b = append(b, make([]byte, (span+7)/8)...)
	for _, r := range p.ahead {
		for o := r.from; o < r.to; o++ {
			i := o - p.base - 1
			b[start+int(i/8)] |= 1 << (i % 8)
		}
	}
	return b
}

// Obsolete says that an offset was committed for a topic that is no more:
// another one of the same name took its place.
func Obsolete(topic [16]byte, o Offset) bool {
	text, ours := strings.CutPrefix(o.Metadata, metadataMark)
	if !ours {
		return false
	}
	raw, err := base64.RawStdEncoding.DecodeString(text)
	return err == nil && len(raw) >= len(topic) && [16]byte(raw[:16]) != topic
}

// Understands says whether this version can go on from a committed offset of the
// topic with this id; the error says why it cannot, and refuses the partition.
func Understands(topic [16]byte, o Offset) error {
	_, err := decodeMetadata(topic, o.Offset, o.Metadata)
	return err
}

// decodeMetadata is the inverse of encodeMetadata. Foreign metadata, and ours
// of another topic, say that nothing is done ahead.
func decodeMetadata(topic [16]byte, base int64, s string) ([]run, error) {
	rest, ours := strings.CutPrefix(s, metadataPrefix)
	if !ours || base < 0 {
		return nil, nil
	}
	version, text, ok := strings.Cut(rest, " ")
	if version != "1" {
		return nil, fmt.Errorf("%w (version %.20q, this one knows version 1)", errNewerMetadata, version)
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(raw) < len(topic) {
		return nil, errCorruptMetadata
	}
	if [16]byte(raw[:16]) != topic {
		return nil, nil
	}
	raw = raw[16:]
	if len(raw) == 0 {
		return nil, nil
	}
	var ahead []run
	switch raw[0] {
	case formRuns:
		ahead, err = decodeRuns(base, raw[1:])
	case formBitmap:
		ahead, err = decodeBitmap(base, raw[1:])
	}
	if err == nil && len(ahead) == 0 { // cut short: what is there would not have been written
		err = errCorruptMetadata
	}
	return ahead, err
}

func decodeRuns(base int64, b []byte) ([]run, error) {
	var ahead []run
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
		ahead = append(ahead, run{from, to})
	}
	return ahead, nil
}

func decodeBitmap(base int64, b []byte) ([]run, error) {
	if base > math.MaxInt64-int64(len(b))*8-1 {
		return nil, errCorruptMetadata
	}
	var ahead []run
	for i := range int64(len(b)) * 8 {
		if b[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		o := base + 1 + i
		if n := len(ahead); n > 0 && ahead[n-1].to == o {
			ahead[n-1].to++
		} else {
			ahead = append(ahead, run{o, o + 1})
		}
	}
	return ahead, nil
}
