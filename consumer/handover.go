package consumer

import "time"

// maxHandover is how long a partition is kept for the sake of requests in flight.
// Meanwhile its next owner waits, and so do the transactions of members that have
// joined again.
const maxHandover = time.Second

// handover is about partitions that the group has assigned to other members, and
// which the client still holds. Their next owners begin with what is committed:
// what is in flight here would be requested twice. So requests in flight end, and
// their outcomes are committed, before the client gives the partitions up. It
// waits for that at AllowRebalance.
type handover struct {
	parts   []*partition    // nil: there is none
	drained <-chan struct{} // no request is in flight for them
	until   time.Time
}

// handingOver reports whether the client has to keep partitions that it is about to
// give up.
func (c *conductor) handingOver(now time.Time) bool {
	if given := c.membership.takeGivenUp(); len(given) > 0 {
		c.startHandover(given, now)
	}
	h := &c.handover
	if h.parts == nil {
		return false
	}
	drained := isClosed(h.drained) // before the outcomes are collected
	c.collectOutcomes()
	open := !drained
	for _, p := range h.parts {
		open = open || !c.lost(p) && len(p.completed) > 0
	}
	if !open || now.After(h.until) {
		c.handover = handover{}
		return false
	}
	return true
}

// startHandover stops everything that is not in flight of these partitions.
func (c *conductor) startHandover(given map[string][]int32, now time.Time) {
	var ids []uint64
	h := handover{until: now.Add(maxHandover)}
	for topic, ps := range given {
		for _, n := range ps {
			if p := c.parts[topicPartition{topic, n}]; p != nil {
				h.parts = append(h.parts, p)
				ids = append(ids, p.assignment)
			}
		}
	}
	c.session.PausePartitions(given)
	h.drained = c.scheduler.DrainAssignments(ids...)
	c.handover = h
}
