package replay

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/schemas"
)

// Job says what to do with which letters. The filter's States do not count: only
// open letters are acted on.
type Job struct {
	Topics
	Filter
	Action State  // Replayed or Discarded
	Note   string // of a discard
	To     string // topic to replay to; "": where each event came from
	// Rate is how many letters a second are replayed; 0: no limit.
	Rate float64
	// MaxReplays is how often an event may be replayed in all.
	MaxReplays int
	// Retention is the age from which the API has no record of a call any more,
	// so that a replay is in vain; 0: replay events of any age.
	Retention time.Duration
}

// Filter picks letters. Every list that is not empty must hold the letter's
// value.
type Filter struct {
	Positions    []Position
	Partitions   []int32 // of the dead-letter topic
	Reasons      []schemas.Reason
	Codes        []int
	CallIDs      []string
	States       []State
	Since, Until time.Time // when the letter was written: from Since to before Until; zero: no bound
	Limit        int       // 0: all
}

// narrow says whether the filter may pick anything in a range of offsets, and
// narrows the range.
func (f *Filter) narrow(partition int32, s offsetRange) (offsetRange, bool) {
	if len(f.Partitions) > 0 && !slices.Contains(f.Partitions, partition) {
		return s, false
	}
	if len(f.Positions) == 0 {
		return s, true
	}
	narrow := offsetRange{s.to, s.from}
	for _, r := range f.Positions {
		if r.Partition == partition && r.Offset >= s.from && r.Offset < s.to {
			narrow.from, narrow.to = min(narrow.from, r.Offset), max(narrow.to, r.Offset+1)
		}
	}
	return narrow, narrow.from < narrow.to
}

func (f *Filter) matches(e *Record) bool {
	if !emptyOrContains(f.Positions, e.Position) || !emptyOrContains(f.States, e.State) || !emptyOrContains(f.CallIDs, e.CallID) {
		return false
	}
	if !f.Since.IsZero() && e.Raw.Timestamp.Before(f.Since) || !f.Until.IsZero() && !e.Raw.Timestamp.Before(f.Until) {
		return false
	}
	if e.DeadLetter == nil {
		return len(f.Reasons) == 0 && len(f.Codes) == 0
	}
	return emptyOrContains(f.Reasons, e.DeadLetter.Reason) && emptyOrContains(f.Codes, e.DeadLetter.Code)
}

func emptyOrContains[T comparable](list []T, v T) bool {
	return len(list) == 0 || slices.Contains(list, v)
}

// SkipReason is why a letter is left open though the filter picks it. The set is
// closed.
type SkipReason string

const (
	TooOld            SkipReason = "too old for the API"          // Retention
	MaxReplaysReached SkipReason = "replayed too often"           // MaxReplays
	PayloadOmitted    SkipReason = "too large to have been kept"  // the letter has its event's coordinates only
	NoOriginTopic     SkipReason = "came from a topic of replays" // the dead-letter topic or the journal; To helps
	ForeignRecord     SkipReason = "not written by enricher"
	TooLarge          SkipReason = "too large for the topic" // as its broker said
)

// SkipReasons lists all obstacles.
func SkipReasons() []SkipReason {
	return []SkipReason{TooOld, MaxReplaysReached, PayloadOmitted, NoOriginTopic, ForeignRecord, TooLarge}
}

// skipReason is "" for a letter that can be acted on.
func (j *Job) skipReason(e *Record, now time.Time) SkipReason {
	switch {
	case e.DeadLetter == nil:
		return ForeignRecord
	case j.Action == Discarded:
		return ""
	case e.DeadLetter.OmittedBytes > 0:
		return PayloadOmitted
	case j.To == "" && (e.DeadLetter.Topic == j.DeadLetterTopic || e.DeadLetter.Topic == j.JournalTopic):
		return NoOriginTopic
	case e.DeadLetter.Replays >= j.MaxReplays:
		return MaxReplaysReached
	case j.Retention > 0 && now.Sub(e.EventTime) > j.Retention:
		return TooOld
	}
	return ""
}

// Plan is what a job is going to do.
type Plan struct {
	DeadLetters int                    // to be acted on
	To          map[string]int         // letters by topic; of a replay only
	Reasons     map[schemas.Reason]int // letters by reason
	Skipped     map[SkipReason]int     // letters that the filter picks and the job leaves open
}

// Plan says what a job would do, if it were run now.
func (v *Snapshot) Plan(ctx context.Context, j *Job) (*Plan, error) {
	return v.plan(ctx, j, time.Now())
}

func (v *Snapshot) plan(ctx context.Context, j *Job, now time.Time) (*Plan, error) {
	p := &Plan{To: make(map[string]int), Reasons: make(map[schemas.Reason]int), Skipped: make(map[SkipReason]int)}
	for e, err := range v.selected(ctx, j, func(e *Record) bool {
		o := j.skipReason(e, now)
		if o != "" {
			p.Skipped[o]++
		}
		return o == ""
	}) {
		if err != nil {
			return nil, err
		}
		p.DeadLetters++
		p.Reasons[e.DeadLetter.Reason]++
		if j.Action == Replayed {
			p.To[j.target(e)]++
		}
	}
	return p, v.checkTargets(ctx, p)
}

func (j *Job) target(e *Record) string {
	if j.To != "" {
		return j.To
	}
	return e.DeadLetter.Topic
}

// selected yields the open letters that the job is about and may takes, up to the
// job's limit, and at most one error, which is the last.
func (v *Snapshot) selected(ctx context.Context, j *Job, may func(*Record) bool) iter.Seq2[*Record, error] {
	f := j.Filter
	f.States, f.Limit = []State{Open, Foreign}, 0
	return func(yield func(*Record, error) bool) {
		n := 0
		for e, err := range v.Records(ctx, f) {
			if err == nil && !may(e) {
				continue
			}
			if n++; !yield(e, err) || err != nil || n == j.Limit {
				return
			}
		}
	}
}

// checkTargets finds out whether the topics exist: all that do not are told at
// once, and before anything is replayed.
func (v *Snapshot) checkTargets(ctx context.Context, p *Plan) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.To)) {
		_, err := findTopic(ctx, v.cl, name)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			err = &MissingTargetError{Topic: name, DeadLetters: p.To[name]}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
