package consumer

// totals are sums over the partitions. account keeps them up to date, so that a
// turn of the loop costs the same with any number of partitions.
type totals struct {
	inFlight  load
	shared    load // of inFlight: see reserve
	completed int  // outcomes that the next transactions can take
	progress  int  // partitions whose progress is to be committed without an event
}

// load is a number of events and their size.
type load struct {
	events int
	bytes  int64
}

func (l load) plus(m load) load { return load{l.events + m.events, l.bytes + m.bytes} }

func (l load) minus(m load) load { return load{l.events - m.events, l.bytes - m.bytes} }

// beyond returns what l has more than m.
func (l load) beyond(m load) load {
	return load{max(0, l.events-m.events), max(0, l.bytes-m.bytes)}
}

// reaches reports whether l has as many events or as many bytes as m.
func (l load) reaches(m load) bool { return l.events >= m.events || l.bytes >= m.bytes }

// exceeds reports whether l has more events or more bytes than m.
func (l load) exceeds(m load) bool { return l.events > m.events || l.bytes > m.bytes }

func (l load) over(n int) load { return load{l.events / n, l.bytes / int64(n)} }

// account brings what is derived from a partition up to date: the totals, the
// queue for the next transactions, and what waits for a time. It is called after
// every change to a partition.
func (c *conductor) account(p *partition) {
	t := c.totalsOf(p)
	c.totals.inFlight = c.totals.inFlight.plus(t.inFlight).minus(p.counted.inFlight)
	c.totals.shared = c.totals.shared.plus(t.shared).minus(p.counted.shared)
	c.totals.completed += t.completed - p.counted.completed
	c.totals.progress += t.progress - p.counted.progress
	p.counted = t
	if !p.queued && !c.lost(p) && (t.completed > 0 || p.commitProgress) {
		p.queued = true
		c.queue = append(c.queue, p)
	}
	if c.waits(p) {
		c.waiting[p] = struct{}{}
	} else {
		delete(c.waiting, p)
	}
}

// totalsOf returns a partition's part of the totals: nothing, if it was lost.
func (c *conductor) totalsOf(p *partition) totals {
	if c.lost(p) {
		return totals{}
	}
	t := totals{inFlight: load{len(p.tracker.pending), p.tracker.bytes}, completed: p.committable()}
	t.shared = p.notCompleted().beyond(c.reserved)
	if p.commitProgress && p.blocked == nil {
		t.progress = 1
	}
	return t
}

// waits reports whether there is something to do for the partition at some time.
func (c *conductor) waits(p *partition) bool {
	return !c.lost(p) && (p.blocked != nil || len(p.refused) > 0 || !p.noRoomUntil.IsZero() || p.overShare)
}

// lost reports whether the partition was lost, or assigned again, since.
func (c *conductor) lost(p *partition) bool { return c.parts[p.topicPartition] != p }

// committable returns how many outcomes the next transaction can take.
func (p *partition) committable() int {
	if !p.noRoomUntil.IsZero() {
		return 0
	}
	return len(p.completed)
}

// notCompleted returns the events in flight that are in no transaction, neither in
// the open one nor in the next. Their size is estimated.
func (p *partition) notCompleted() load {
	all := len(p.tracker.pending)
	n := all - p.committable() - p.committing
	if n <= 0 {
		return load{}
	}
	return load{n, p.tracker.bytes * int64(n) / int64(all)}
}
