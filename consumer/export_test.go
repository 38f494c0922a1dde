package consumer

// EveryOther is the metadata of a partition of which every offset below base is
// done, and n offsets from ahead on, every other one.
func EveryOther(topic [16]byte, base, ahead, n int64) string {
	p := progress{base: base}
	for o := ahead; o < ahead+2*n; o += 2 {
		p.ahead = append(p.ahead, run{o, o + 1})
	}
	return encodeMetadata(topic, p)
}

// MaxTxnMetadata bounds the offset metadata of a transaction, in bytes.
const MaxTxnMetadata = maxTxnMetadata
