package replay

// markerSet holds the state of every dead letter with a marker, in two bits each,
// so that the states of millions fit into memory. The zero value is empty.
type markerSet struct {
	chunks map[chunkKey]*chunk
	count  int // dead letters with a marker
}

const (
	// chunkSize is the number of consecutive offsets in a chunk, which makes 256
	// bytes: little for a single marker, and much compared with the map's entry.
	chunkSize    = 1024
	bitsPerState = 2
	perWord      = 64 / bitsPerState
)

type chunk [chunkSize / perWord]uint64

type chunkKey struct {
	partition int32
	chunk     int64
}

// stateBits lists the states by their bits. Open must be 0.
var stateBits = [...]State{0: Open, 1: Replayed, 2: Discarded}

func locate(pos Position) (key chunkKey, word int, shift uint) {
	i := pos.Offset % chunkSize
	return chunkKey{pos.Partition, pos.Offset / chunkSize}, int(i / perWord), uint(i % perWord * bitsPerState)
}

func (m *markerSet) state(pos Position) State {
	key, word, shift := locate(pos)
	c := m.chunks[key]
	if c == nil {
		return Open
	}
	return stateBits[c[word]>>shift&3]
}

func (m *markerSet) set(pos Position, s State) {
	key, word, shift := locate(pos)
	c := m.chunks[key]
	if c == nil {
		if m.chunks == nil {
			m.chunks = make(map[chunkKey]*chunk)
		}
		c = new(chunk)
		m.chunks[key] = c
	}
	if c[word]>>shift&3 != 0 {
		m.count--
	}
	c[word] &^= 3 << shift
	for bits, known := range stateBits {
		if bits > 0 && known == s {
			c[word] |= uint64(bits) << shift
			m.count++
		}
	}
}
