package limitertest

import (
	"math/rand/v2"
	"time"

	"enricher/fetch/lookup"
)

// Timeout is that of one request.
const Timeout = 5 * time.Second

// An Instance has a backlog that never ends. It does not pause when the API
// fails, which is the worst case for the limiter.
type Instance struct {
	Limiter *lookup.Limiter
	// Lease reports whether a request may begin; nil: always.
	Lease func(now time.Time) bool
	// Concurrency bounds the requests in flight.
	Concurrency int

	loop        *Loop
	net         *Network
	rng         *rand.Rand
	inFlight    int
	beginning   int // of those in flight, past the look at the lease and not written
	frozenUntil time.Time
	nextWake    time.Time // zero: none
	stopped     bool
}

// NewInstance returns an instance that begins to work now.
func NewInstance(loop *Loop, net *Network, l *lookup.Limiter) *Instance {
	i := &Instance{Limiter: l, Concurrency: 256, loop: loop, net: net, rng: net.Rand}
	i.At(loop.Now(), i.work)
	return i
}

// Freeze stops the process for d: whatever it would do meanwhile, it does after.
func (i *Instance) Freeze(d time.Duration) { i.frozenUntil = i.loop.Now().Add(d) }

// FreezeBetweenRequests is Freeze at the next moment at which no request is
// between the look at its lease and its writing.
func (i *Instance) FreezeBetweenRequests(d time.Duration) {
	if i.beginning > 0 {
		i.loop.After(10*time.Microsecond, func() { i.FreezeBetweenRequests(d) })
		return
	}
	i.Freeze(d)
}

// Frozen reports whether the process is stopped by Freeze.
func (i *Instance) Frozen() bool { return i.loop.Now().Before(i.frozenUntil) }

// Stop kills the process: its connections are reset.
func (i *Instance) Stop() { i.stopped = true }

// Wake makes the instance look for a free slot.
func (i *Instance) Wake() { i.At(i.loop.Now(), i.work) }

// At runs f in the process at t, or when it is not frozen any more.
func (i *Instance) At(t time.Time, f func()) {
	i.loop.At(t, func() {
		switch {
		case i.stopped:
		case i.Frozen():
			i.At(i.frozenUntil, f)
		default:
			f()
		}
	})
}

// work starts requests while there are free slots.
func (i *Instance) work() {
	now := i.loop.Now()
	if !i.nextWake.After(now) {
		i.nextWake = time.Time{}
	}
	for i.inFlight < i.Concurrency {
		slot, wait := i.Limiter.Reserve(now)
		if slot == nil {
			i.wakeIn(wait)
			return
		}
		i.inFlight++
		i.begin(slot)
	}
}

func (i *Instance) wakeIn(wait time.Duration) {
	at := i.loop.Now().Add(wait)
	if i.nextWake.IsZero() || at.Before(i.nextWake) {
		i.nextWake = at
		i.At(at, i.work)
	}
}

// begin makes a request: each step is an event of its own, so that the process
// may be frozen between any two of them.
func (i *Instance) begin(slot *lookup.Slot) {
	deadline := i.loop.Now().Add(Timeout)
	step := func(d time.Duration, f func()) { i.At(i.loop.Now().Add(d), f) }
	step(i.scheduling(), func() {
		if i.Lease != nil && !i.Lease(i.loop.Now()) {
			i.inFlight--
			slot.Cancel()
			i.wakeIn(100 * time.Millisecond)
			return
		}
		i.beginning++
		dial := time.Duration(0)
		if i.rng.IntN(100) == 0 {
			dial = 3 * (i.net.Out + i.net.Back)
		}
		step(dial, func() {
			if now := i.loop.Now(); now.After(deadline) {
				i.beginning--
				i.end(slot, false) // the transport looks at the deadline
				return
			}
			slot.Connected(i.loop.Now())
			step(i.scheduling(), func() { i.write(slot, deadline) })
		})
	})
}

// scheduling is how long a goroutine waits for its turn.
func (i *Instance) scheduling() time.Duration {
	return Between(i.rng, 0, 100*time.Microsecond)
}

// write writes the request, even if its deadline has passed meanwhile.
func (i *Instance) write(slot *lookup.Slot, deadline time.Time) {
	i.beginning--
	slot.Written()
	a, r := i.net.send(i.loop.Elapsed())
	arrival, response := Start.Add(a), Start.Add(r)
	good := !response.After(deadline)
	end := response
	if !good {
		end = deadline
	}
	reset := false // with the connection: what has not arrived by then never does
	i.At(end, func() {
		reset = !good
		i.end(slot, good && !i.refused(arrival))
	})
	i.loop.At(arrival, func() {
		if !reset && !i.stopped {
			i.net.Arrivals = append(i.net.Arrivals, arrival)
		}
	})
}

// refused reports whether the API refused a request, which slows the pace down.
func (i *Instance) refused(arrival time.Time) bool {
	if i.net.Refuse == nil || !i.net.Refuse(arrival) {
		return false
	}
	i.Limiter.Throttled(i.loop.Now(), 0)
	return true
}

func (i *Instance) end(slot *lookup.Slot, good bool) {
	i.inFlight--
	slot.Done(i.loop.Now(), good)
	i.work()
}
