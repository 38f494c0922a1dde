package harness

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"enricher/consumer"
	"enricher/consumer/progress"
	"enricher/consumer/session"
)

// ProgressWatch checks that "ready" means progress: an instance that reports ready
// completes events of every partition that it holds and that has any to read.
type ProgressWatch struct {
	Admin *kadm.Client
	Topics
	// Ready reports whether the instance with that name reports ready now.
	Ready func(instance string) bool
	// Bound is how long a partition may stand still. It has to exceed the time that
	// a single event may wait for its record: the windows of the retry policy.
	Bound time.Duration

	still map[int32]standstill
}

// standstill is what was found of a partition, and since when it has not changed.
type standstill struct {
	owner string
	done  int64 // events below the committed offset, and those done ahead
	since time.Time
}

// Look looks at the group once and returns what stands still for too long. An error
// means that nothing can be said now; then all bounds begin again.
func (w *ProgressWatch) Look(ctx context.Context, now time.Time) (broken []string, err error) {
	before := w.still
	w.still = make(map[int32]standstill)
	owners, err := w.owners(ctx)
	if err != nil {
		return nil, err
	}
	topics, err1 := w.Admin.ListTopics(ctx, w.In)
	committed, err2 := w.Admin.FetchOffsets(ctx, w.Group)
	starts, err3 := w.Admin.ListStartOffsets(ctx, w.In)
	ends, err4 := w.Admin.ListCommittedOffsets(ctx, w.In)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	for p, owner := range owners {
		start, ok1 := starts.Lookup(w.In, p)
		end, ok2 := ends.Lookup(w.In, p)
		at, ok3 := committed.Lookup(w.In, p)
		if !ok1 || !ok2 || start.Err != nil || end.Err != nil || !w.Ready(owner) {
			continue
		}
		done := progress.Progress{Base: start.Offset}
		if ok3 && at.At >= 0 {
			if done, err = progress.Decode(topics[w.In].ID, at.At, at.Metadata); err != nil {
				done = progress.Progress{Base: at.At} // the metadata is not an enricher's
			}
		}
		left := done.Left(start.Offset, end.Offset)
		if left == 0 {
			continue
		}
		n := end.Offset - left
		s := before[p]
		if s.owner != owner || s.done != n || s.since.IsZero() {
			s = standstill{owner, n, now}
		} else if now.Sub(s.since) > w.Bound {
			broken = append(broken, fmt.Sprintf("instance %s is ready, and partition %d has stood still for %v with %d events to read (offset %d, end %d)",
				owner, p, now.Sub(s.since), left, done.Base, end.Offset))
			s.since = now
		}
		w.still[p] = s
	}
	return broken, nil
}

// owners returns the instance that holds each partition of the input topic.
func (w *ProgressWatch) owners(ctx context.Context) (map[int32]string, error) {
	groups, err := w.Admin.DescribeGroups(ctx, w.Group)
	if err != nil {
		return nil, err
	}
	g := groups[w.Group]
	if g.State != "Stable" {
		return nil, fmt.Errorf("the group is %s", g.State)
	}
	owners := make(map[int32]string)
	for _, m := range g.Members {
		instance, _ := session.ParseClientID(m.ClientID)
		a, ok := m.Assigned.AsConsumer()
		if !ok {
			continue
		}
		for _, t := range a.Topics {
			for _, p := range t.Partitions {
				if t.Topic == w.In {
					owners[p] = instance
				}
			}
		}
	}
	return owners, nil
}

// watchInterval is how often the environment looks.
const watchInterval = 5 * time.Second

// watchMargin is what a partition may stand still in addition to the windows: until
// a stall is named.
const watchMargin = time.Minute

// register notes an instance, and begins to watch with the first one.
func (e *Env) register(name string, i *Instance, cfg *consumer.Config) {
	e.mu.Lock()
	first := e.instances == nil
	if first {
		e.instances = make(map[string]*Instance)
	}
	e.instances[name] = i
	e.mu.Unlock()
	if _, test := e.T.(*testing.T); first && test { // a benchmark would measure it
		e.watchProgress(cfg.Retry.NotFoundWindow + cfg.Retry.RetryWindow + watchMargin)
	}
}

// watchProgress watches the environment's instances until the test ends.
func (e *Env) watchProgress(bound time.Duration) {
	w := &ProgressWatch{Admin: e.Admin(), Topics: e.Topics, Bound: bound, Ready: func(instance string) bool {
		e.mu.Lock()
		i := e.instances[instance]
		e.mu.Unlock()
		return i != nil && len(i.Ready()) == 0
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	e.T.Cleanup(func() {
		cancel()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(watchInterval):
			}
			broken, _ := w.Look(ctx, time.Now())
			for _, b := range broken {
				e.T.Error(b)
			}
		}
	}()
}
