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
	maxBatchRecords = 500     // letters in a transaction
	maxBatchBytes   = 4 << 20 // their events
	// A run that cannot commit anything starts over so often, and then gives up:
	// after about a minute.
	maxFailures            = 10
	minBackoff, maxBackoff = 500 * time.Millisecond, 10 * time.Second
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
	// Retrying is told why the run takes over anew and reads the journal again.
	Retrying(why error)
}

// Result is what a run did.
type Result struct {
	Plan      *Plan // nil: it did not come so far
	Completed int   // letters replayed or discarded
	Expired   int   // letters that were deleted before it came to them; only if it came to the end
}

// runner is a job while it is done.
type runner struct {
	Job
	observer Observer
	result   Result

	bounded        bool // the fields below are set
	topic          [16]byte
	ends           map[int32]int64 // where the dead-letter topic ended at the start
	markersAtStart int             // letters with a marker at the start
	started        time.Time
	batchSize      int // letters in a transaction
	tooLarge       map[Position]bool
}

// Run does a job on the letters there are when it starts. It ends when ctx does,
// after the transaction under way. Whatever it returns, what it did not commit
// is still open, and a further run goes on with it.
func Run(ctx context.Context, j Job, o Observer) (Result, error) {
	r := &runner{Job: j, observer: o, started: time.Now(), batchSize: maxBatchRecords, tooLarge: make(map[Position]bool)}
	if j.Action == Replayed && j.Rate > 0 {
		r.batchSize = min(max(int(j.Rate/2), 1), maxBatchRecords)
	}
	if err := ensureJournal(ctx, j.Topics); err != nil {
		return r.result, err
	}
	pause := minBackoff
	for failures := 0; ; failures++ {
		before := r.result.Completed
		err := r.attempt(ctx)
		if errors.Is(err, errTooLarge) && ctx.Err() == nil {
			failures = -1
			continue
		}
		if r.result.Completed > before {
			failures, pause = 0, minBackoff
		}
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrFenced) || !retriable(err) || failures >= maxFailures {
			return r.result, err
		}
		o.Retrying(err)
		select {
		case <-ctx.Done():
			return r.result, err
		case <-time.After(pause):
		}
		pause = min(2*pause, maxBackoff)
	}
}

// attempt takes over, reads the journal, and acts on what is open, until all is
// done or something fails.
func (r *runner) attempt(ctx context.Context) error {
	op, err := fencePrevious(ctx, r.Topics)
	if err != nil {
		return err
	}
	defer op.close()
	v, err := OpenSnapshot(ctx, r.Topics) // after takeOver: now nobody else can add to the journal
	if err != nil {
		return err
	}
	defer v.Close()
	if v.journal == nil {
		return errJournalMissing
	}
	if err := r.limitToStart(v); err != nil {
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
	if err := r.processOpen(ctx, v, op); err != nil {
		return err
	}
	r.result.Expired = max(0, r.result.Plan.DeadLetters-r.result.Completed-len(r.tooLarge))
	return nil
}

// limitToStart keeps every attempt to the letters of the first.
func (r *runner) limitToStart(v *Snapshot) error {
	if !r.bounded {
		r.bounded, r.topic, r.markersAtStart = true, v.deadLetters.id, v.markers.count
		r.ends = make(map[int32]int64)
		for p, s := range v.ranges {
			r.ends[p] = s.to
		}
	}
	if v.deadLetters.id != r.topic {
		return fmt.Errorf("topic %q: %w", r.DeadLetterTopic, ErrRecreated)
	}
	for p, s := range v.ranges {
		s.to = min(s.to, r.ends[p]) // 0 for a partition that was added since
		v.ranges[p] = s
	}
	// The journal knows how the last transaction ended, if the last attempt does not.
	r.result.Completed = max(0, v.markers.count-r.markersAtStart)
	return nil
}

// processOpen acts on the letters that are left.
func (r *runner) processOpen(ctx context.Context, v *Snapshot, op *exclusiveProducer) error {
	j := r.Job
	if j.Limit > 0 {
		if j.Limit -= r.result.Completed; j.Limit <= 0 {
			return nil
		}
	}
	limiter := rate.NewLimiter(rate.Inf, 0)
	if j.Action == Replayed && j.Rate > 0 {
		limiter = rate.NewLimiter(rate.Limit(j.Rate), r.batchSize)
	}
	var batch []*Record
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
	for e, err := range v.selected(ctx, &j, func(e *Record) bool { return !r.tooLarge[e.Position] && j.skipReason(e, r.started) == "" }) {
		if err != nil {
			return err
		}
		batch = append(batch, e.Clone())
		if size += producer.EventSize(e.Raw); len(batch) >= r.batchSize || size >= maxBatchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// commit replays or discards letters, each with its marker, in one transaction.
func (r *runner) commit(ctx context.Context, v *Snapshot, op *exclusiveProducer, batch []*Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	marker := Marker{Action: r.Action, At: time.Now().UTC().Truncate(time.Millisecond), Note: r.Note}
	records := make([]*kgo.Record, 0, 2*len(batch))
	for _, e := range batch {
		if r.Action == Replayed {
			marker.To = r.target(e)
			records = append(records, e.Event(marker.To))
		}
		m, err := marker.record(r.JournalTopic, v.deadLetters.id, e.Position)
		if err != nil {
			return err
		}
		records = append(records, m)
	}
	ctx, cancel := withGrace(ctx, interruptGrace)
	defer cancel()
	err := op.commit(ctx, records)
	if errors.Is(err, errTooLarge) {
		if len(batch) == 1 {
			r.tooLarge[batch[0].Position] = true
			r.result.Plan.Skipped[TooLarge]++
		}
		r.batchSize = 1 // not the event but the batch may have been too large
	}
	if err != nil {
		return err
	}
	for _, e := range batch {
		v.markers.set(e.Position, r.Action)
	}
	r.result.Completed += len(batch)
	r.observer.Committed(r.result.Completed)
	return nil
}

// withGrace is a context that outlives its parent by grace: to cancel what a
// transaction does leaves its end in doubt.
func withGrace(parent context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
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
