package main

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/test/kafkaproxy"
)

// The points of a transaction at which a fault can be injected. When the response
// to EndTxn is held, the broker has ended the transaction and the instance does not
// know it.
var (
	requests  = []kafkaproxy.Point{{Key: kmsg.Produce}, {Key: kmsg.TxnOffsetCommit}, {Key: kmsg.EndTxn}}
	responses = []kafkaproxy.Point{
		{Key: kmsg.Produce, Response: true}, {Key: kmsg.TxnOffsetCommit, Response: true}, {Key: kmsg.EndTxn, Response: true},
	}
	anyPoint = append(slices.Clone(responses), requests[1:]...) // at the first Produce the transaction is not open yet
)

// choose chooses the next fault; nil: no instance is available now. Kinds come from
// a shuffled queue, so that a short run has all of them, too. Late in a run only
// those kinds come that have not hit a transaction yet.
func (j *injector) choose(ctx context.Context, late bool) *fault {
	if late {
		j.queue = slices.DeleteFunc(j.queue, j.hasHit)
	}
	if len(j.queue) == 0 {
		for i := range kinds {
			for range kinds[i].weight {
				j.queue = append(j.queue, &kinds[i])
			}
		}
		j.rng.Shuffle(len(j.queue), func(a, b int) { j.queue[a], j.queue[b] = j.queue[b], j.queue[a] })
	}
	f := &fault{kind: j.queue[0], random: j.rng.Float64()}
	if f.kind.needsMessage || !j.hasHit(f.kind) || j.rng.Float64() < shareAtPoint {
		points := anyPoint
		if f.kind.points != nil {
			points = f.kind.points
		}
		f.point = &points[j.rng.IntN(len(points))]
		f.on = j.reserveWorking(ctx)
	} else {
		f.on = j.reserve(j.rng.IntN(len(j.instances)))
	}
	if f.on == nil {
		return nil
	}
	j.queue = j.queue[1:]
	return f
}

// hasHit reports whether a fault of this kind hit a transaction.
func (j *injector) hasHit(k *kind) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := j.counts[k]
	return n != nil && n.open+n.ending > 0
}

// reserveWorking waits for an instance that commits transactions, and reserves it;
// nil: none does within workingTimeout. After some faults the whole group waits
// until a member's session has timed out.
func (j *injector) reserveWorking(ctx context.Context) *instance {
	before := make(map[*instance]int)
	for _, i := range j.instances {
		before[i] = i.proxy.Ends().Committed
	}
	for end := time.Now().Add(workingTimeout); time.Now().Before(end); {
		if sleep(ctx, 20*time.Millisecond) != nil {
			return nil
		}
		for n, i := range j.instances {
			// The first may have been under way before.
			if i.proxy.Ends().Committed >= before[i]+2 {
				if got := j.reserve(n); got == i {
					return i
				} else if got != nil {
					j.release(got)
				}
			}
		}
	}
	return nil
}

// reserve finds a running instance without a fault, beginning at the given index,
// and reserves it; nil: there is none.
func (j *injector) reserve(first int) *instance {
	j.mu.Lock()
	defer j.mu.Unlock()
	for n := range j.instances {
		i := j.instances[(first+n)%len(j.instances)]
		if !j.reserved[i] && i.running() {
			j.reserved[i] = true
			return i
		}
	}
	return nil
}

// reserveStopped finds an instance that does not run, and reserves it; nil: there
// is none.
func (j *injector) reserveStopped() *instance {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, i := range j.instances {
		if !j.reserved[i] && !i.running() {
			j.reserved[i] = true
			return i
		}
	}
	return nil
}

// healthy returns the number of running instances without a fault.
func (j *injector) healthy() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, i := range j.instances {
		if !j.reserved[i] && i.running() {
			n++
		}
	}
	return n
}

func (j *injector) release(i *instance) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.reserved, i)
}
