package consumer

import "time"

// Events in flight are bounded, and one partition's may be slow: all waiting for
// records that come late. So that they leave room for those of other partitions,
// a quarter of the limit is reserved, evenly, for the partitions, and half is
// shared by those that hold more. When the shared half is used up, partitions that
// hold more than their reserve are paused. The last quarter is for what a poll
// brings beyond that.
const (
	reservedPart = 4 // of the limit, and so on
	sharedPart   = 2
)

// shareInterval is how often paused partitions are looked at: fetching takes longer
// to resume.
const shareInterval = 100 * time.Millisecond

// limit is the limit of what is in flight.
func (c *conductor) limit() load { return load{c.cfg.MaxInFlight, c.cfg.MaxInFlightBytes} }

// reserve divides the reserve between the partitions, when their number has
// changed.
func (c *conductor) reserve() {
	if len(c.parts) == c.reservedFor {
		return
	}
	c.reservedFor = len(c.parts)
	if c.reservedFor == 1 {
		c.reserved = c.limit() // a partition that is alone takes nothing from others
	} else {
		c.reserved = c.limit().over(reservedPart * max(c.reservedFor, 1))
	}
	for _, p := range c.parts {
		c.account(p)
	}
}

// pauseOverShare pauses the partitions of a poll that hold more than their
// reserve, if the shared part is used up.
func (c *conductor) pauseOverShare(polled []*partition) {
	if !c.totals.shared.reaches(c.limit().over(sharedPart)) {
		return
	}
	pause := make(map[string][]int32)
	for _, p := range polled {
		if p.overShare || !p.notCompleted().exceeds(c.reserved) {
			continue
		}
		p.overShare = true
		c.account(p)
		pause[p.topic] = append(pause[p.topic], p.partition)
	}
	c.session.PausePartitions(pause)
}

// resumeOverShare resumes them once half of the shared part is free again, or of
// their own reserve.
func (c *conductor) resumeOverShare(now time.Time) {
	if now.Before(c.nextShare) {
		return
	}
	c.nextShare = now.Add(shareInterval)
	free := !c.totals.shared.reaches(c.limit().over(2 * sharedPart))
	resume := make(map[string][]int32)
	for p := range c.waiting {
		if !p.overShare || !free && p.notCompleted().exceeds(c.reserved.over(2)) {
			continue
		}
		p.overShare = false
		c.account(p)
		if p.isFetched() {
			resume[p.topic] = append(resume[p.topic], p.partition)
		}
	}
	c.session.ResumePartitions(resume)
}

// room returns how many more events may be admitted, beyond those of an open
// transaction.
func (c *conductor) room(inTransaction int) int {
	if c.totals.inFlight.bytes >= c.cfg.MaxInFlightBytes {
		return 0
	}
	return c.cfg.MaxInFlight - c.totals.inFlight.events + inTransaction
}

// pollLimit returns how many events to poll for, given the room: all of them may
// be of one partition, which is paused only afterwards.
func (c *conductor) pollLimit(room int) int {
	shared := c.limit().over(sharedPart).minus(c.totals.shared).events
	return max(min(room, max(shared, c.reserved.events)), 1)
}

// throttleFetch pauses fetching when there is no room, and resumes it once a
// quarter of the room is free: what the client has fetched of a paused partition
// it drops and fetches again. A transaction that is due will make room.
func (c *conductor) throttleFetch(room int, due bool) {
	switch {
	case room <= 0 && !c.fetchPaused && (!due || c.draining):
		c.session.PauseAll()
		c.fetchPaused = true
		c.full = time.Now()
	case c.fetchPaused && room > c.cfg.MaxInFlight/4:
		c.session.ResumeAll()
		c.fetchPaused = false
	}
}
