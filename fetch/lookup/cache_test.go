package lookup_test

import (
	"slices"
	"testing"
	"time"

	"enricher/fetch/lookup"
	"enricher/schemas"

	"pgregory.net/rapid"
)

// TestCacheAgainstModel: any sequence of puts, gets and time passing is like a
// plain list would have it.
func TestCacheAgainstModel(t *testing.T) {
	const overhead = 256
	type entry struct {
		id      string
		value   byte
		size    int64
		expires time.Time
	}
	rapid.Check(t, func(t *rapid.T) {
		maxEntries := rapid.IntRange(0, 6).Draw(t, "entries")
		maxBytes := rapid.Int64Range(0, 3000).Draw(t, "bytes")
		ttl := time.Duration(rapid.IntRange(1, 20).Draw(t, "ttl")) * time.Second
		c := lookup.NewCache(maxEntries, maxBytes, ttl)
		var model []entry // most recently used first
		now := epoch
		find := func(id string) int { return slices.IndexFunc(model, func(e entry) bool { return e.id == id }) }
		ids := rapid.SampledFrom([]string{"a", "bb", "ccc", "dddd", "eeeee", "ffffff", "g", "h"})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := ids.Draw(t, "id")
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				value := make([]byte, rapid.IntRange(1, 900).Draw(t, "size"))
				value[0] = byte(rapid.IntRange(0, 255).Draw(t, "value"))
				c.Put(now, id, lookup.Entry{Encoded: schemas.Encoded{Value: value}, RequestID: "r"})
				size := int64(len(id)+len(value)+1) + overhead
				if maxEntries == 0 || size > maxBytes {
					break
				}
				if i := find(id); i >= 0 {
					model = slices.Delete(model, i, i+1)
				}
				model = slices.Insert(model, 0, entry{id, value[0], size, now.Add(ttl)})
				total := int64(0)
				for i, e := range model {
					if total += e.size; total > maxBytes || i >= maxEntries {
						model = model[:i]
						break
					}
				}
			case 2, 3:
				got, ok := c.Get(now, id)
				i := find(id)
				if i >= 0 && !now.Before(model[i].expires) {
					model = slices.Delete(model, i, i+1)
					i = -1
				}
				if ok != (i >= 0) || ok && got.Value[0] != model[i].value {
					t.Fatalf("%s: %v", id, ok)
				}
				if i > 0 {
					e := model[i]
					model = slices.Insert(slices.Delete(model, i, i+1), 0, e)
				}
			case 4:
				now = now.Add(time.Duration(rapid.IntRange(0, 8000).Draw(t, "ms")) * time.Millisecond)
			}
			bytes := int64(0)
			for _, e := range model {
				bytes += e.size
			}
			if c.Len() != len(model) || c.Bytes() != bytes {
				t.Fatalf("%d entries of %d bytes, want %d of %d", c.Len(), c.Bytes(), len(model), bytes)
			}
		}
	})
}
