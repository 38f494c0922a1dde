package lookup

import (
	"slices"
	"sort"
	"time"
)

const (
	// latencies is of how many answers the typical time is the median: at 200 a
	// second those of the last two and a half seconds, so that a stall of one
	// second does not pass for typical.
	latencies = 511
	// measureEvery is after how many answers the median is taken anew.
	measureEvery = 16
	// overdue is by how much a call may exceed the typical time before it is taken
	// for one that is still on its way.
	overdue = 10 * time.Millisecond
	// maxLate bounds the time a call without an answer is waited for: in an
	// outage there may be none.
	maxLate = time.Second
)

// arrivals tells when calls reached the API. All that is known of one is when it
// was sent and when its answer came. But calls that were sent later do not
// arrive earlier, by and large; so the first answer to one of them, less the
// time an answer usually takes, bounds the arrival of all that were sent before
// it. A call that only takes long to answer is thereby no late arrival: quicker
// ones behind it vouch for it. When everything stalls, nobody does.
type arrivals struct {
	requests []arrival // ascending in sent and, where it is known, in by

	typical    time.Duration // median of recent; 0 before the first answer
	recent     []time.Duration
	next       int // index in recent to overwrite
	unmeasured int // answers since typical was measured
}

// arrival is one call.
type arrival struct {
	sent time.Time
	by   time.Time // when it had arrived; zero: nobody vouched for it yet
}

// sent notes a call. Those that open a connection may be told of a little late.
func (a *arrivals) sent(now time.Time) {
	i := len(a.requests)
	for i > 0 && a.requests[i-1].sent.After(now) {
		i--
	}
	c := arrival{sent: now}
	if i < len(a.requests) {
		c.by = a.requests[i].by
	}
	a.requests = slices.Insert(a.requests, i, c)
}

// answered notes an answer: it vouches for its call and those sent before.
func (a *arrivals) responded(sent, now time.Time) {
	a.measure(now.Sub(sent))
	by := now.Add(-a.typical)
	first := sort.Search(len(a.requests), func(i int) bool { return a.requests[i].by.IsZero() })
	for i := first; i < len(a.requests) && !a.requests[i].sent.After(sent); i++ {
		a.requests[i].by = latest(by, a.requests[i].sent)
	}
}

// measure keeps the typical time between a call and its answer.
func (a *arrivals) measure(latency time.Duration) {
	if len(a.recent) < latencies {
		a.recent = append(a.recent, latency)
	} else {
		a.recent[a.next] = latency
		a.next = (a.next + 1) % latencies
	}
	if a.unmeasured++; a.unmeasured >= measureEvery || len(a.recent) <= measureEvery {
		a.unmeasured = 0
		sorted := slices.Sorted(slices.Values(a.recent))
		a.typical = sorted[len(sorted)/2]
	}
}

// since forgets the calls that arrived a window or longer ago and says how many
// are left.
func (a *arrivals) since(now time.Time, window time.Duration) int {
	n := 0
	for n < len(a.requests) && now.Sub(a.at(n, now)) >= window {
		n++
	}
	a.requests = a.requests[n:]
	return len(a.requests)
}

// at is when the ith call arrived, as far as is known now.
func (a *arrivals) at(i int, now time.Time) time.Time {
	c := a.requests[i]
	switch {
	case !c.by.IsZero():
		return c.by
	case a.typical == 0 || now.Sub(c.sent) <= a.typical+overdue:
		return c.sent
	}
	if at := now.Add(-a.typical); at.Before(c.sent.Add(maxLate)) {
		return latest(at, c.sent)
	}
	return c.sent.Add(maxLate)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
