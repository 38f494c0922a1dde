package replay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
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
	// Planned is called once, before any dead letter is completed.
	Planned(*Plan)
	// Committed is called after each transaction with the number of dead letters
	// completed so far.
	Committed(deadLetters int)
	// Refused is called for a dead letter that stays open, because the topic to which
	// it was to be replayed does not accept its event.
	Refused(Position, error)
	// Waiting is called when another run has not ended, for the time that it may take
	// to be heard of.
	Waiting(Running)
	// Retrying is called when err ended an attempt, and the run is about to fence
	// and to read the journal again.
	Retrying(err error)
}

// Result is what a run did.
type Result struct {
	Plan      *Plan // nil if the run ended before it had one
	Completed int   // dead letters replayed, discarded or reopened
	// Expired is the number of planned dead letters that retention deleted before
	// the run reached them; 0 if the run did not reach its end.
	Expired int
}

// runner is a job in progress.
type runner struct {
	Job
	observer  Observer
	id        string // of the run
	started   time.Time
	announced *announcement
	result    Result

	batchSize int               // dead letters in a transaction
	refused   map[Position]bool // by the target topic

	// Set by the first attempt, so that later ones keep to the same dead letters.
	bounded        bool
	topic          [16]byte
	ends           map[int32]int64 // end offsets of the dead-letter topic
	markersAtStart int
}

// Run runs a job on the dead letters that exist when it starts. It returns when
// all are completed, after an error that another attempt cannot overcome, and
// after the current transaction when ctx is cancelled. Whatever it returns, dead
// letters that it did not complete are as before, and a further run continues
// with them. While another run is running it returns a RunningError.
func Run(ctx context.Context, j Job, o Observer) (Result, error) {
	r := &runner{Job: j, observer: o, id: newRunID(), started: time.Now(), batchSize: maxBatchRecords, refused: make(map[Position]bool)}
	defer func() { r.announced.end() }()
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

// attempt looks for other runs, fences the previous run or attempt, reads the
// journal, and processes the dead letters until all are completed or an error
// occurs.
func (r *runner) attempt(ctx context.Context) error {
	s, err := openSnapshot(ctx, r.Topics)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.journal == nil {
		return errJournalMissing
	}
	if s.ended[r.id] {
		return ErrFenced // the error that ended the last attempt did not say so
	}
	if !r.TakeOver {
		if err := s.awaitOthers(ctx, r.id, r.observer.Waiting); err != nil {
			return err
		}
	}
	dead := maps.Clone(s.running)
	delete(dead, r.id)
	// Before fencing them, so that none that tries again takes the id back.
	if err := r.announce(ctx, s.deadLetters.id, dead); err != nil {
		return err
	}
	p, err := fencePrevious(ctx, r.Topics)
	if err != nil {
		return err
	}
	defer p.close()
	// No other run can complete anything now.
	if err := s.readJournal(ctx, kadm.NewClient(s.cl).ListEndOffsets); err != nil {
		return err
	}
	if err := s.missing(&r.Filter); err != nil {
		return err // before limitToStart, which takes a partition that is not there for a new one
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
	r.result.Expired = max(0, r.result.Plan.DeadLetters-r.result.Completed-len(r.refused))
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
	completed := s.markers.count - r.markersAtStart
	if r.Action == Open {
		completed = -completed
	}
	r.result.Completed = max(0, completed)
	return nil
}

// processOpen processes the dead letters that the job selects, batch by batch.
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
		limiter.AllowN(time.Now(), r.batchSize) // the first batch waits like any other
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
		if err := r.commitAll(ctx, s, p, batch); err != nil {
			return err
		}
		batch, size = batch[:0], 0
		return nil
	}
	accept := func(rec *Record) bool { return !r.refused[rec.Position] && j.skipReason(rec, r.started) == "" }
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

// commitAll commits a batch, in several transactions if a topic refuses some of its
// events. A topic refuses whole batches, so those are halved until the culprit
// stands alone; it stays open.
func (r *runner) commitAll(ctx context.Context, s *Snapshot, p *exclusiveProducer, batch []*Record) error {
	for parts := [][]*Record{batch}; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		var refused *refusedError
		if err := r.commit(ctx, s, p, part); !errors.As(err, &refused) {
			if err != nil {
				return err
			}
			continue
		}
		if len(part) == 1 {
			r.refuse(part[0], refused.err)
			continue
		}
		var accepted, suspects []*Record
		for _, rec := range part {
			if refused.positions[rec.Position] {
				suspects = append(suspects, rec)
			} else {
				accepted = append(accepted, rec)
			}
		}
		half := (len(suspects) + 1) / 2
		for _, some := range [][]*Record{accepted, suspects[:half], suspects[half:]} {
			if len(some) > 0 {
				parts = append(parts, some)
			}
		}
	}
	return nil
}

// refuse leaves a dead letter open.
func (r *runner) refuse(rec *Record, err error) {
	reason := Refused
	if isTooLarge(err) {
		reason = TooLarge
	}
	r.refused[rec.Position] = true
	r.result.Plan.Skipped[reason]++
	r.observer.Refused(rec.Position, err)
}

// commit processes dead letters, with a marker for each, in one transaction.
func (r *runner) commit(ctx context.Context, s *Snapshot, p *exclusiveProducer, batch []*Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	marker := Marker{Action: r.Action, At: time.Now().UTC().Truncate(time.Millisecond), By: r.By, Note: r.Note}
	records := make([]*kgo.Record, 0, 2*len(batch))
	events := make(map[*kgo.Record]Position, len(batch))
	for _, rec := range batch {
		if r.Action == Replayed {
			marker.To = r.target(rec)
			event := r.event(rec)
			if r.Correction != nil {
				marker.Corrected, marker.Original = true, rec.DeadLetter.Value
			}
			events[event] = rec.Position
			records = append(records, event)
		}
		m, err := marker.record(r.JournalTopic, s.deadLetters.id, rec.Position)
		if err != nil {
			return err
		}
		records = append(records, m)
	}
	ctx, cancel := withGrace(ctx, interruptGrace)
	defer cancel()
	if err := p.commit(ctx, records, events); err != nil {
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
