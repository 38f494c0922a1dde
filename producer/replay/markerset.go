package replay

// markerSet is which letters have a marker, in two bits a letter, so that millions
// of them take little memory. The zero value is empty.
type markerSet struct {
	chunks map[chunkKey]*[2 * chunkSize / 64]uint64
	count  int // letters with a marker
}

// chunkSize is the number of neighbouring offsets in a chunk.
const chunkSize = 1024

type chunkKey struct {
	partition int32
	chunk     int64
}

// stateBits are the two bits of each state.
var stateBits = [...]State{Open, Replayed, Discarded}

func locate(ref Position) (key chunkKey, word int, shift uint) {
	at := ref.Offset % chunkSize
	return chunkKey{ref.Partition, ref.Offset / chunkSize}, int(at / 32), uint(at % 32 * 2)
}

func (d *markerSet) state(ref Position) State {
	key, word, shift := locate(ref)
	c := d.chunks[key]
	if c == nil {
		return Open
	}
	return stateBits[c[word]>>shift&3]
}

func (d *markerSet) set(ref Position, s State) {
	key, word, shift := locate(ref)
	c := d.chunks[key]
	if c == nil {
		if d.chunks == nil {
			d.chunks = make(map[chunkKey]*[2 * chunkSize / 64]uint64)
		}
		c = new([2 * chunkSize / 64]uint64)
		d.chunks[key] = c
	}
	if c[word]>>shift&3 != 0 {
		d.count--
	}
	c[word] &^= 3 << shift
	for code, known := range stateBits {
		if code > 0 && known == s {
			c[word] |= uint64(code) << shift
			d.count++
		}
	}
}
