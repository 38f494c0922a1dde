package replay

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// Job describes what to do with which dead letters. The filter's States are
// ignored: a job replays or discards only open dead letters, and reopens only
// discarded ones.
type Job struct {
	Topics
	Filter
	Action State // Replayed, Discarded or Open
	// By and Host say who runs the job and where, and Note why; By and Note are kept
	// in the journal.
	By, Host, Note string
	// TakeOver ends another run instead of returning a RunningError.
	TakeOver bool
	// To is the topic to replay to; "" for the one that each event came from. It
	// must be neither the dead-letter topic nor the journal.
	To string
	// DropHeaders are the names of headers that replayed events are to lose. Those of
	// a replay itself cannot be dropped, see producer.IsReplayHeader.
	DropHeaders []string
	// Correction replaces the value of the event that is replayed; nil: it is sent as
	// it was. The filter must select one position.
	Correction *Correction
	// Rate is the number of dead letters replayed per second; 0 means no limit.
	Rate float64
	// MaxReplays is the number of times that an event may be replayed in total.
	MaxReplays int
	// Retention is the age from which the API has no record of a call any more, so
	// that replaying its event is useless; 0 replays events of any age.
	Retention time.Duration
}

// Filter selects records. A record must match every list that is not empty.
type Filter struct {
	Positions    []Position
	Partitions   []int32 // of the dead-letter topic
	Reasons      []schemas.Reason
	Codes        []int
	CallIDs      []string
	States       []State
	Since, Until time.Time // when the dead letter was written: Since ≤ written < Until; zero means no bound
	Limit        int       // maximum number of records; 0 means all
}

// wants reports whether the filter may select records of a partition.
func (f *Filter) wants(partition int32) bool {
	if !emptyOrContains(f.Partitions, partition) {
		return false
	}
	return len(f.Positions) == 0 || slices.ContainsFunc(f.Positions, func(pos Position) bool { return pos.Partition == partition })
}

// narrow returns the part of a range of offsets that may match, and reports
// whether there is any.
func (f *Filter) narrow(partition int32, r offsetRange) (offsetRange, bool) {
	if len(f.Partitions) > 0 && !slices.Contains(f.Partitions, partition) {
		return r, false
	}
	if len(f.Positions) == 0 {
		return r, true
	}
	part := offsetRange{r.to, r.from}
	for _, pos := range f.Positions {
		if pos.Partition == partition && pos.Offset >= r.from && pos.Offset < r.to {
			part.from, part.to = min(part.from, pos.Offset), max(part.to, pos.Offset+1)
		}
	}
	return part, part.from < part.to
}

func (f *Filter) matches(r *Record) bool {
	if !emptyOrContains(f.Positions, r.Position) || !emptyOrContains(f.States, r.State) || !emptyOrContains(f.CallIDs, r.CallID) {
		return false
	}
	written := r.Raw.Timestamp
	if !f.Since.IsZero() && written.Before(f.Since) || !f.Until.IsZero() && !written.Before(f.Until) {
		return false
	}
	if r.DeadLetter == nil {
		return len(f.Reasons) == 0 && len(f.Codes) == 0
	}
	return emptyOrContains(f.Reasons, r.DeadLetter.Reason) && emptyOrContains(f.Codes, r.DeadLetter.Code)
}

func emptyOrContains[T comparable](list []T, v T) bool {
	return len(list) == 0 || slices.Contains(list, v)
}

// SkipReason is the reason why a job leaves a record open that its filter selects.
type SkipReason string

const (
	TooOld            SkipReason = "older than the API's retention"       // see Job.Retention
	MaxReplaysReached SkipReason = "replayed the maximum number of times" // see Job.MaxReplays
	PayloadOmitted    SkipReason = "payload omitted because of its size"  // the dead letter holds only the event's position
	Unreadable        SkipReason = "a range of events that could not be read"
	NoOriginTopic     SkipReason = "came from the dead-letter topic or its journal" // Job.To can name another topic
	ForeignRecord     SkipReason = "not written by enricher"
	Uncorrected       SkipReason = "not the event that was corrected" // see Correction.Original
	TooLarge          SkipReason = "too large for the topic"
	Refused           SkipReason = "refused by the topic" // for another reason
)

// SkipReasons returns all skip reasons.
func SkipReasons() []SkipReason {
	return []SkipReason{TooOld, MaxReplaysReached, PayloadOmitted, Unreadable, NoOriginTopic, ForeignRecord, Uncorrected, TooLarge, Refused}
}

// skipReason returns "" for a record that the job can act on.
func (j *Job) skipReason(r *Record, now time.Time) SkipReason {
	switch {
	case r.DeadLetter == nil:
		return ForeignRecord
	case j.Action != Replayed:
		return ""
	case r.DeadLetter.OmittedBytes > 0:
		return PayloadOmitted
	case r.DeadLetter.UnreadableOffsets > 0:
		return Unreadable
	case j.Correction != nil && !bytes.Equal(j.Correction.Original, r.DeadLetter.Value):
		return Uncorrected
	case j.To == "" && (r.DeadLetter.Topic == j.DeadLetterTopic || r.DeadLetter.Topic == j.JournalTopic):
		return NoOriginTopic
	case r.DeadLetter.Replays >= j.MaxReplays:
		return MaxReplaysReached
	case j.Retention > 0 && now.Sub(r.EventTime) > j.Retention:
		return TooOld
	}
	return ""
}

// target returns the topic that a record is replayed to.
func (j *Job) target(r *Record) string {
	if j.To != "" {
		return j.To
	}
	return r.DeadLetter.Topic
}

// event returns the event to be produced for a record.
func (j *Job) event(r *Record) *kgo.Record {
	e := r.Event(j.target(r))
	if j.Correction != nil {
		e.Value = j.Correction.Value
	}
	e.Headers = slices.DeleteFunc(e.Headers, func(h kgo.RecordHeader) bool { return j.drops(h.Key) })
	return e
}

func (j *Job) drops(header string) bool {
	return slices.Contains(j.DropHeaders, header) && !producer.IsReplayHeader(header)
}

// Plan is what a job is going to do.
type Plan struct {
	DeadLetters int                    // number of them that the job acts on
	To          map[string]int         // that number by target topic; only of a replay
	Reasons     map[schemas.Reason]int // that number by reason
	Dropped     map[string]int         // number of events with a header that the job drops, by its name
	Skipped     map[SkipReason]int     // number of records that the filter selects and the job leaves open
}

// Plan returns what a job would do if it ran now.
func (s *Snapshot) Plan(ctx context.Context, j *Job) (*Plan, error) {
	return s.plan(ctx, j, time.Now())
}

func (s *Snapshot) plan(ctx context.Context, j *Job, now time.Time) (*Plan, error) {
	p := &Plan{To: make(map[string]int), Reasons: make(map[schemas.Reason]int), Dropped: make(map[string]int), Skipped: make(map[SkipReason]int)}
	for _, name := range j.DropHeaders {
		p.Dropped[name] = 0 // a name that is misspelt is none that an event has
	}
	for r, err := range s.selected(ctx, j, func(r *Record) bool {
		reason := j.skipReason(r, now)
		if reason != "" {
			p.Skipped[reason]++
		}
		return reason == ""
	}) {
		if err != nil {
			return nil, err
		}
		p.DeadLetters++
		p.Reasons[r.DeadLetter.Reason]++
		if j.Action == Replayed {
			p.To[j.target(r)]++
			for name := range p.Dropped {
				if slices.ContainsFunc(r.DeadLetter.Headers, func(h kgo.RecordHeader) bool { return h.Key == name }) {
					p.Dropped[name]++
				}
			}
		}
	}
	return p, s.checkTargets(ctx, p)
}

// selected yields the dead letters that the job's filter selects and accept
// accepts, up to the job's limit, and at most one error, which is the last
// element.
func (s *Snapshot) selected(ctx context.Context, j *Job, accept func(*Record) bool) iter.Seq2[*Record, error] {
	f := j.Filter
	f.States, f.Limit = []State{Open, Foreign}, 0
	if j.Action == Open {
		f.States = []State{Discarded}
	}
	return func(yield func(*Record, error) bool) {
		n := 0
		for r, err := range s.Records(ctx, f) {
			if err == nil && !accept(r) {
				continue
			}
			if n++; !yield(r, err) || err != nil || n == j.Limit {
				return
			}
		}
	}
}

// checkTargets reports all target topics that do not exist, or of which the broker
// does not say so for lack of a permission, before anything is replayed.
func (s *Snapshot) checkTargets(ctx context.Context, p *Plan) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.To)) {
		_, err := findTopic(ctx, s.cl, name)
		var denied *producer.NotAuthorizedError
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			err = &MissingTargetError{Topic: name, DeadLetters: p.To[name]}
		case errors.As(err, &denied):
			denied.Operations = []string{"Write"} // which includes finding it
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
