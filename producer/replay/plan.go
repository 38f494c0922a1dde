package replay

import (
	"context"
	"errors"
	"fmt"
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
			err = fmt.Errorf("topic %q, where %d letters would go, does not exist; create it, or replay them to another one", name, p.To[name])
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
