package audit

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// Report is the result of an audit. Lost, Duplicated and Wrong have one line per
// problem, which names the event or the record.
type Report struct {
	Events      int
	Enriched    int
	DeadLetters map[schemas.Reason]int
	Skipped     int // events that must have no output record, and have none
	Lost        []string
	Duplicated  []string        // the second record of an event, and any further ones
	Wrong       []string        // an outcome with the wrong type, reason, key or value; a record of no event
	Latency     []time.Duration // from sending an event to the broker's timestamp of its output, ascending
}

// OK reports whether every event has exactly one outcome, and the right one.
func (r *Report) OK() bool { return len(r.Lost)+len(r.Duplicated)+len(r.Wrong) == 0 }

// maxListed limits the problems of each type that String lists, because a defect
// can affect every event of a run.
const maxListed = 10

// String returns the counts on one line, followed by the first problems of each
// type.
func (r *Report) String() string {
	deadLetters := 0
	for _, n := range r.DeadLetters {
		deadLetters += n
	}
	s := fmt.Sprintf("%d events: %d enriched, %d dead letters %v, %d skipped, %d lost, %d duplicated, %d wrong",
		r.Events, r.Enriched, deadLetters, r.DeadLetters, r.Skipped, len(r.Lost), len(r.Duplicated), len(r.Wrong))
	for _, problems := range []struct {
		name string
		list []string
	}{{"lost", r.Lost}, {"duplicated", r.Duplicated}, {"wrong", r.Wrong}} {
		for _, problem := range problems.list[:min(maxListed, len(problems.list))] {
			s += "\n  " + problems.name + ": " + problem
		}
	}
	return s
}

// add counts the first output record of an event.
func (r *Report) add(record *kgo.Record, source Source, e Expect) {
	var problem string
	if d, ok := producer.ParseDeadLetter(record); ok {
		r.DeadLetters[d.Reason]++
		problem = e.checkDeadLetter(d)
	} else {
		r.Enriched++
		problem = e.checkEnriched(record)
	}
	if problem != "" {
		r.Wrong = append(r.Wrong, source.String()+": "+problem)
	}
	if !e.Produced.IsZero() {
		r.Latency = append(r.Latency, record.Timestamp.Sub(e.Produced))
	}
}
