package lookup

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"enricher/schemas"
)

// entryOverhead is what an entry costs in memory besides its texts, in bytes:
// the list's element, the map's slot, and rounding up by the allocator.
const entryOverhead = 256

// Entry is what the API's record of a call became.
type Entry struct {
	schemas.Encoded
	RequestID string // the API's id of the request that found the record
}

// Cache keeps enriched values by CallId: the most recently used, bounded in
// entries and in bytes, each for a limited time. Errors are never in it.
//
// It is safe for use by many goroutines. The clock is the caller's.
type Cache struct {
	maxBytes int64
	ttl      time.Duration

	mu    sync.Mutex
	bytes int64
	lru   *simplelru.LRU[string, cached] // nil: caches nothing
}

type cached struct {
	Entry
	since time.Time
}

// NewCache makes a cache of at most maxEntries entries (0: it keeps nothing)
// and about maxBytes bytes, each of which is forgotten after ttl.
func NewCache(maxEntries int, maxBytes int64, ttl time.Duration) *Cache {
	c := &Cache{maxBytes: maxBytes, ttl: ttl}
	if maxEntries > 0 {
		// An error comes only of a size below 1.
		c.lru, _ = simplelru.NewLRU(maxEntries, func(callID string, e cached) { c.bytes -= size(callID, e.Entry) })
	}
	return c
}

func size(callID string, e Entry) int64 {
	return int64(len(callID) + len(e.Value) + len(e.Caller) + len(e.RequestID) + entryOverhead)
}

// Get returns the entry of a call, unless it is too old.
func (c *Cache) Get(now time.Time, callID string) (Entry, bool) {
	if c.lru == nil {
		return Entry{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.lru.Get(callID)
	if ok && Elapsed(e.since, now) >= c.ttl {
		c.lru.Remove(callID)
		return Entry{}, false
	}
	return e.Entry, ok
}

// Put keeps an entry. One that is larger than the whole cache is not kept.
func (c *Cache) Put(now time.Time, callID string, e Entry) {
	if c.lru == nil || size(callID, e) > c.maxBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Remove(callID) // so that replacing one is counted
	c.lru.Add(callID, cached{e, now})
	for c.bytes += size(callID, e); c.bytes > c.maxBytes; {
		c.lru.RemoveOldest()
	}
}
