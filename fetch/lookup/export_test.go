package lookup

// OwnResponsesOnly makes l free a slot by its own response alone, as the constant
// confirmByNeighbours can.
func (l *Limiter) OwnResponsesOnly() { l.confirmByNeighbours = false }

// Len is the number of entries, those that are too old included.
func (c *Cache) Len() int {
	if c.lru == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Len()
}

// Bytes is what the entries take, by the cache's own reckoning.
func (c *Cache) Bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}
