package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"enricher/producer"
)

const (
	maxAtOnce      = 500     // letters in a transaction
	maxBytesAtOnce = 4 << 20 // their events
	// A run that cannot commit anything starts over so often, and then gives up:
	// after about a minute.
	maxFailures             = 10
	firstBackoff, lastPause = 500 * time.Millisecond, 10 * time.Second
	// interruptGrace is how long a transaction may still take when the run is
	// told to end.
	interruptGrace = 10 * time.Second
)

// Observer is told how a run goes, by the goroutine of Run.
type Observer interface {
	// Planned is told once, before anything is done.
	Planned(*Plan)
	// Committed is told after every transaction how many letters are done.
	Committed(letters int)
	// StartsOver is told why the run takes over anew and reads the journal again.
	StartsOver(why error)
}

// Result is what a run did.
type Result struct {
	Plan *Plan // nil: it did not come so far
	Done int   // letters replayed or discarded
	Gone int   // letters that were deleted before it came to them; only if it came to the end
}

// run is a job while it is done.
type run struct {
	Job
	observer Observer
	result   Result

	known   bool // the fields below are set
	topic   [16]byte
	ends    map[int32]int64 // where the dead-letter topic ended at the start
	marked  int             // letters with a marker at the start
	started time.Time
	atOnce  int // letters in a transaction
	refused map[Ref]bool
}

// Run does a job on the letters there are when it starts. It ends when ctx does,
// after the transaction under way. Whatever it returns, what it did not commit
// is still open, and a further run goes on with it.
func Run(ctx context.Context, j Job, o Observer) (Result, error) {
	r := &run{Job: j, observer: o, started: time.Now(), atOnce: maxAtOnce, refused: make(map[Ref]bool)}
	if j.Action == Replayed && j.Rate > 0 {
		r.atOnce = min(max(int(j.Rate/2), 1), maxAtOnce)
	}
	if err := ensureJournal(ctx, j.Topics); err != nil {
		return r.result, err
	}
	pause := firstBackoff
	for failures := 0; ; failures++ {
		before := r.result.Done
		err := r.attempt(ctx)
		if errors.Is(err, errTooLarge) && ctx.Err() == nil {
			failures = -1
			continue
		}
		if r.result.Done > before {
			failures, pause = 0, firstBackoff
		}
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrTakenOver) || !passes(err) || failures >= maxFailures {
			return r.result, err
		}
		o.StartsOver(err)
		select {
		case <-ctx.Done():
			return r.result, err
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// attempt takes over, reads the journal, and acts on what is open, until all is
// done or something fails.
func (r *run) attempt(ctx context.Context) error {
	op, err := takeOver(ctx, r.Topics)
	if err != nil {
		return err
	}
	defer op.close()
	v, err := Look(ctx, r.Topics) // after takeOver: now nobody else can add to the journal
	if err != nil {
		return err
	}
	defer v.Close()
	if v.journal == nil {
		return errJournalGone
	}
	if err := r.bound(v); err != nil {
		return err
	}
	if r.result.Plan == nil {
		plan, err := v.plan(ctx, &r.Job, r.started)
		if err != nil {
			return err
		}
		r.result.Plan = plan
		r.observer.Planned(plan)
	}
	if err := r.send(ctx, v, op); err != nil {
		return err
	}
	r.result.Gone = max(0, r.result.Plan.Letters-r.result.Done-len(r.refused))
	return nil
}

// bound keeps every attempt to the letters of the first.
func (r *run) bound(v *View) error {
	if !r.known {
		r.known, r.topic, r.marked = true, v.letters.id, v.done.marked
		r.ends = make(map[int32]int64)
		for p, s := range v.spans {
			r.ends[p] = s.to
		}
	}
	if v.letters.id != r.topic {
		return fmt.Errorf("topic %q: %w", r.DeadLetterTopic, ErrRecreated)
	}
	for p, s := range v.spans {
		s.to = min(s.to, r.ends[p]) // 0 for a partition that was added since
		v.spans[p] = s
	}
	// The journal knows how the last transaction ended, if the last attempt does not.
	r.result.Done = max(0, v.done.marked-r.marked)
	return nil
}

// send acts on the letters that are left.
func (r *run) send(ctx context.Context, v *View, op *operator) error {
	j := r.Job
	if j.Limit > 0 {
		if j.Limit -= r.result.Done; j.Limit <= 0 {
			return nil
		}
	}
	limiter := rate.NewLimiter(rate.Inf, 0)
	if j.Action == Replayed && j.Rate > 0 {
		limiter = rate.NewLimiter(rate.Limit(j.Rate), r.atOnce)
	}
	var batch []*Entry
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := limiter.WaitN(ctx, len(batch)); err != nil {
			return err
		}
		if err := r.commit(ctx, v, op, batch); err != nil {
			return err
		}
		batch, size = batch[:0], 0
		return nil
	}
	for e, err := range v.chosen(ctx, &j, func(e *Entry) bool { return !r.refused[e.Ref] && j.obstacle(e, r.started) == "" }) {
		if err != nil {
			return err
		}
		batch = append(batch, e.Clone())
		if size += producer.PayloadSize(e.Record); len(batch) >= r.atOnce || size >= maxBytesAtOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// commit replays or discards letters, each with its marker, in one transaction.
func (r *run) commit(ctx context.Context, v *View, op *operator, batch []*Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	marker := Marker{Action: r.Action, At: time.Now().UTC().Truncate(time.Millisecond), Because: r.Because}
	records := make([]*kgo.Record, 0, 2*len(batch))
	for _, e := range batch {
		if r.Action == Replayed {
			marker.To = r.target(e)
			records = append(records, e.Event(marker.To))
		}
		m, err := marker.record(r.JournalTopic, v.letters.id, e.Ref)
		if err != nil {
			return err
		}
		records = append(records, m)
	}
	ctx, cancel := lingering(ctx, interruptGrace)
	defer cancel()
	err := op.commit(ctx, records)
	if errors.Is(err, errTooLarge) {
		if len(batch) == 1 {
			r.refused[batch[0].Ref] = true
			r.result.Plan.Left[DoesNotFit]++
		}
		r.atOnce = 1 // not the event but the batch may have been too large
	}
	if err != nil {
		return err
	}
	for _, e := range batch {
		v.done.set(e.Ref, r.Action)
	}
	r.result.Done += len(batch)
	r.observer.Committed(r.result.Done)
	return nil
}

// lingering is a context that outlives its parent by grace: to cancel what a
// transaction does leaves its end in doubt.
func lingering(parent context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case <-late.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { stop(); cancel() }
}
