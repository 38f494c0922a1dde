package main

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/test/proxy"
)

// The moments of a transaction that a fault may be aimed at. When the answer to
// EndTxn comes, the broker has ended it and the instance does not know.
var (
	requests = []proxy.Point{{Key: kmsg.Produce}, {Key: kmsg.TxnOffsetCommit}, {Key: kmsg.EndTxn}}
	answers  = []proxy.Point{{Key: kmsg.Produce, Answer: true}, {Key: kmsg.TxnOffsetCommit, Answer: true}, {Key: kmsg.EndTxn, Answer: true}}
	moments  = append(slices.Clone(answers), requests[1:]...) // with the first Produce it is not open yet
)

// choose deals the next fault; nil if there is no instance for it now. Kinds
// come from a shuffled deck, so that all of them come in a short run too; late
// in a run only those come that have hit no transaction yet.
func (c *chaos) choose(ctx context.Context, late bool) *fault {
	if late {
		c.deck = slices.DeleteFunc(c.deck, c.hasHit)
	}
	if len(c.deck) == 0 {
		for i := range kinds {
			for range kinds[i].cards {
				c.deck = append(c.deck, &kinds[i])
			}
		}
		c.rng.Shuffle(len(c.deck), func(i, j int) { c.deck[i], c.deck[j] = c.deck[j], c.deck[i] })
	}
	f := &fault{kind: c.deck[0], dice: c.rng.Float64()}
	if f.kind.must || !c.hasHit(f.kind) || c.rng.Float64() < aimedAt {
		at := moments
		if f.kind.at != nil {
			at = f.kind.at
		}
		f.aim = &at[c.rng.IntN(len(at))]
		f.on = c.takeWorking(ctx)
	} else {
		f.on = c.take(c.rng.IntN(len(c.instances)))
	}
	if f.on == nil {
		return nil
	}
	c.deck = c.deck[1:]
	return f
}

func (c *chaos) hasHit(k *kind) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts[k]
	return n != nil && n.open+n.ending > 0
}

// takeWorking waits for an instance that commits transactions, and takes it;
// nil: there is none for long. After some faults the whole group waits until a
// member's session has timed out.
func (c *chaos) takeWorking(ctx context.Context) *instance {
	before := make(map[*instance]int)
	for _, i := range c.instances {
		before[i] = i.proxy.Ends().Committed
	}
	for end := time.Now().Add(workFor); time.Now().Before(end); {
		if sleep(ctx, 20*time.Millisecond) != nil {
			return nil
		}
		for n, i := range c.instances {
			if i.proxy.Ends().Committed >= before[i]+2 {
				if got := c.take(n); got == i {
					return i
				} else if got != nil {
					c.free(got)
				}
			}
		}
	}
	return nil
}

// take finds a running instance that no fault is at, from the first-th on.
func (c *chaos) take(first int) *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range c.instances {
		i := c.instances[(first+n)%len(c.instances)]
		if !c.busy[i] && i.running() {
			c.busy[i] = true
			return i
		}
	}
	return nil
}

// takeStopped finds an instance that does not run, or nil.
func (c *chaos) takeStopped() *instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range c.instances {
		if !c.busy[i] && !i.running() {
			c.busy[i] = true
			return i
		}
	}
	return nil
}

// atWork is how many instances run that no fault is at.
func (c *chaos) atWork() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, i := range c.instances {
		if !c.busy[i] && i.running() {
			n++
		}
	}
	return n
}

func (c *chaos) free(i *instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.busy, i)
}
