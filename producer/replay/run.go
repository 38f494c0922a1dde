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
	// A transaction replays at most so many dead letters, and stops growing when
	// their events reach so many bytes. Both keep it well below
	// producer.TransactionTimeout, and bound what an interrupted one has to repeat.
	maxBatchRecords = 500
	maxBatchBytes   = 4 << 20
	// A run gives up after so many attempts in a row that commit nothing: with the
	// pauses between them, after about a minute.
	maxFailures            = 10
	minBackoff, maxBackoff = 500 * time.Millisecond, 10 * time.Second
	// interruptGrace is the time that a transaction may still take when the run is
	// cancelled. After it the broker aborts the transaction anyway.
	interruptGrace = producer.TransactionTimeout
)

// Observer is notified of a run's progress, by the goroutine that called Run.
type Observer interface {
	// Planned is called once, before any dead letter is replayed or discarded.
	Planned(*Plan)
	// Committed is called after each transaction with the number of dead letters
	// completed so far.
	Committed(deadLetters int)
	// Retrying is called when err ended an attempt, and the run is about to fence
	// and to read the journal again.
	Retrying(err error)
}

// Result is what a run did.
type Result struct {
	Plan      *Plan // nil if the run ended before it had one
	Completed int   // dead letters replayed or discarded
	// Expired is the number of planned dead letters that retention deleted before
	// the run reached them; 0 if the run did not reach its end.
	Expired int
}

// runner is a job in progress.
type runner struct {
	Job
	observer Observer
	started  time.Time
	result   Result

	batchSize int               // dead letters in a transaction
	tooLarge  map[Position]bool // rejected by the target topic

	// Set by the first attempt, so that later ones keep to the same dead letters.
	bounded        bool
	topic          [16]byte
	ends           map[int32]int64 // end offsets of the dead-letter topic
	markersAtStart int
}

// Run runs a job on the dead letters that exist when it starts. It returns when
// all are completed, after an error that another attempt cannot overcome, and
// after the current transaction when ctx is cancelled. Whatever it returns, dead
// letters that it did not complete are still open, and a further run continues
// with them.
func Run(ctx context.Context, j Job, o Observer) (Result, error) {
	r := &runner{Job: j, observer: o, started: time.Now(), batchSize: maxBatchRecords, tooLarge: make(map[Position]bool)}
	if j.Action == Replayed && j.Rate > 0 {
		r.batchSize = min(max(int(j.Rate/2), 1), maxBatchRecords) // two transactions per second
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

// attempt fences the previous run or attempt, reads the journal, and processes
// the open dead letters until all are completed or an error occurs.
func (r *runner) attempt(ctx context.Context) error {
	p, err := fencePrevious(ctx, r.Topics)
	if err != nil {
		return err
	}
	defer p.close()
	s, err := OpenSnapshot(ctx, r.Topics) // after fencing: no other run can add to the journal now
	if err != nil {
		return err
	}
	defer s.Close()
	if s.journal == nil {
		return errJournalMissing
	}
	if err := r.limitToStart(s); err != nil {
		return err
	}
	if r.result.Plan == nil {
		plan, err := s.plan(ctx, &r.Job, r.started)
		if err != nil {
			return err
		}
		r.result.Plan = plan
		r.observer.Planned(plan)
	}
	if err := r.processOpen(ctx, s, p); err != nil {
		return err
	}
	r.result.Expired = max(0, r.result.Plan.DeadLetters-r.result.Completed-len(r.tooLarge))
	return nil
}

// limitToStart limits the snapshot of every attempt to the dead letters that the
// first attempt found.
func (r *runner) limitToStart(s *Snapshot) error {
	if !r.bounded {
		r.bounded, r.topic, r.markersAtStart = true, s.deadLetters.id, s.markers.count
		r.ends = make(map[int32]int64)
		for p, offsets := range s.ranges {
			r.ends[p] = offsets.to
		}
	}
	if s.deadLetters.id != r.topic {
		return fmt.Errorf("topic %q: %w", r.DeadLetterTopic, ErrRecreated)
	}
	for p, offsets := range s.ranges {
		offsets.to = min(offsets.to, r.ends[p]) // 0 for a partition that was added since
		s.ranges[p] = offsets
	}
	// Counted from the journal, which also has the result of a last transaction
	// whose result the previous attempt did not learn.
	r.result.Completed = max(0, s.markers.count-r.markersAtStart)
	return nil
}

// processOpen replays or discards the open dead letters, batch by batch.
func (r *runner) processOpen(ctx context.Context, s *Snapshot, p *exclusiveProducer) error {
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
		if err := r.commit(ctx, s, p, batch); err != nil {
			return err
		}
		batch, size = batch[:0], 0
		return nil
	}
	accept := func(rec *Record) bool { return !r.tooLarge[rec.Position] && j.skipReason(rec, r.started) == "" }
	for rec, err := range s.selected(ctx, &j, accept) {
		if err != nil {
			return err
		}
		batch = append(batch, rec.Clone())
		if size += producer.PayloadSize(rec.Raw); len(batch) >= r.batchSize || size >= maxBatchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// commit replays or discards a batch, with a marker for each dead letter, in one
// transaction.
func (r *runner) commit(ctx context.Context, s *Snapshot, p *exclusiveProducer, batch []*Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	marker := Marker{Action: r.Action, At: time.Now().UTC().Truncate(time.Millisecond), Note: r.Note}
	records := make([]*kgo.Record, 0, 2*len(batch))
	for _, rec := range batch {
		if r.Action == Replayed {
			marker.To = r.target(rec)
			records = append(records, rec.Event(marker.To))
		}
		m, err := marker.record(r.JournalTopic, s.deadLetters.id, rec.Position)
		if err != nil {
			return err
		}
		records = append(records, m)
	}
	ctx, cancel := withGrace(ctx, interruptGrace)
	defer cancel()
	err := p.commit(ctx, records)
	if errors.Is(err, errTooLarge) {
		if len(batch) == 1 {
			r.tooLarge[batch[0].Position] = true
			r.result.Plan.Skipped[TooLarge]++
		}
		r.batchSize = 1 // perhaps only the batch was too large, not a single event
	}
	if err != nil {
		return err
	}
	for _, rec := range batch {
		s.markers.set(rec.Position, r.Action)
	}
	r.result.Completed += len(batch)
	r.observer.Committed(r.result.Completed)
	return nil
}

// withGrace returns a context that is cancelled grace after its parent:
// cancelling the requests of a transaction would leave its result unknown.
func withGrace(parent context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { stop(); cancel() }
}
