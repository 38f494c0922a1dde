package fetch

import (
	"slices"
	"sort"
	"time"
)

const (
	// latencies is of how many answers the usual time is the median: at 200 a
	// second those of the last two and a half seconds, so that a stall of one
	// second does not pass for usual.
	latencies = 511
	// measureEvery is after how many answers the median is taken anew.
	measureEvery = 16
	// overdue is by how much a call may exceed the usual time before it is taken
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
	calls []arrival // ascending in sent and, where it is known, in by

	usual   time.Duration // median of recent; 0 before the first answer
	recent  []time.Duration
	next    int // index in recent to overwrite
	unasked int // answers since usual was measured
}

// arrival is one call.
type arrival struct {
	sent time.Time
	by   time.Time // when it had arrived; zero: nobody vouched for it yet
}

// sent notes a call. Those that open a connection may be told of a little late.
func (a *arrivals) sent(now time.Time) {
	i := len(a.calls)
	for i > 0 && a.calls[i-1].sent.After(now) {
		i--
	}
	c := arrival{sent: now}
	if i < len(a.calls) {
		c.by = a.calls[i].by
	}
	a.calls = slices.Insert(a.calls, i, c)
}

// answered notes an answer: it vouches for its call and those sent before.
func (a *arrivals) answered(sent, now time.Time) {
	a.measure(now.Sub(sent))
	by := now.Add(-a.usual)
	first := sort.Search(len(a.calls), func(i int) bool { return a.calls[i].by.IsZero() })
	for i := first; i < len(a.calls) && !a.calls[i].sent.After(sent); i++ {
		a.calls[i].by = latest(by, a.calls[i].sent)
	}
}

// measure keeps the usual time between a call and its answer.
func (a *arrivals) measure(latency time.Duration) {
	if len(a.recent) < latencies {
		a.recent = append(a.recent, latency)
	} else {
		a.recent[a.next] = latency
		a.next = (a.next + 1) % latencies
	}
	if a.unasked++; a.unasked >= measureEvery || len(a.recent) <= measureEvery {
		a.unasked = 0
		sorted := slices.Sorted(slices.Values(a.recent))
		a.usual = sorted[len(sorted)/2]
	}
}

// since forgets the calls that arrived a window or longer ago and says how many
// are left.
func (a *arrivals) since(now time.Time, window time.Duration) int {
	n := 0
	for n < len(a.calls) && now.Sub(a.at(n, now)) >= window {
		n++
	}
	a.calls = a.calls[n:]
	return len(a.calls)
}

// at is when the ith call arrived, as far as is known now.
func (a *arrivals) at(i int, now time.Time) time.Time {
	c := a.calls[i]
	switch {
	case !c.by.IsZero():
		return c.by
	case a.usual == 0 || now.Sub(c.sent) <= a.usual+overdue:
		return c.sent
	}
	if at := now.Add(-a.usual); at.Before(c.sent.Add(maxLate)) {
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
