package consumer

import "enricher/consumer/progress"

// EveryOther is the metadata of a partition of which every offset below base is
// completed, and n offsets from ahead on, every other one.
func EveryOther(topic [16]byte, base, ahead, n int64) string {
	p := progress.Progress{Base: base}
	for o := ahead; o < ahead+2*n; o += 2 {
		p.Ahead = append(p.Ahead, progress.Range{From: o, To: o + 1})
	}
	return progress.Encode(topic, p)
}

// MaxCommitBytes bounds the offsets of a transaction, as the broker stores them.
const MaxCommitBytes = maxCommitBytes
