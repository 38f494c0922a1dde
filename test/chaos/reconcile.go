package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
)

const (
	// outcomesTimeout is for the last outcomes, which may wait for a session to time
	// out, a transaction to time out, and the retries of their lookups.
	outcomesTimeout = 3 * time.Minute
	// offsetsTimeout is for the last commit, which follows the last outcome at once.
	offsetsTimeout = 30 * time.Second
	// readTimeout is many times what reading the output topics takes.
	readTimeout = time.Minute
)

// reconcile waits for the last outcomes and audits all of them. The committed
// offsets must be the ends of the input partitions then.
func (e *env) reconcile(ctx context.Context, o *outputs) error {
	for end := time.Now().Add(outcomesTimeout); o.count() < e.ledger.Due() && time.Now().Before(end); {
		if err := errors.Join(e.unexpectedExit(), sleep(ctx, 200*time.Millisecond)); err != nil {
			return err
		}
	}
	uncommitted := e.awaitOffsets(ctx)
	read, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	records, err := audit.Read(read, []kgo.Opt{kgo.SeedBrokers(e.kafka.Brokers...)}, e.outputTopics()...)
	if err != nil {
		return errors.Join(uncommitted, err)
	}
	report := e.ledger.Check(records)
	fmt.Println(report)
	e.printRequests()
	if !report.OK() {
		return errors.Join(uncommitted, errors.New("reconciliation failed"))
	}
	return uncommitted
}

func (e *env) printRequests() {
	fmt.Printf("API: %d requests, %.4f per CallId, at most %d in any second\n",
		e.api.Requests(), e.api.RequestsPerCallID(), e.api.MaxInAnyWindow(time.Second))
}

// awaitOffsets waits until every event is committed: nothing else shows that a
// skipped event is completed.
func (e *env) awaitOffsets(ctx context.Context) error {
	var uncommitted error
	for end := time.Now().Add(offsetsTimeout); time.Now().Before(end); {
		if uncommitted = e.checkOffsets(ctx); uncommitted == nil {
			return nil
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return uncommitted
}

func (e *env) checkOffsets(ctx context.Context) error {
	var problems []error
	for _, n := range e.groups {
		problems = append(problems, e.checkOffsetsOf(ctx, n))
	}
	return errors.Join(problems...)
}

func (e *env) checkOffsetsOf(ctx context.Context, n names) error {
	ends, err := e.admin.ListEndOffsets(ctx, n.in)
	if err != nil {
		return err
	}
	committed, err := e.admin.FetchOffsets(ctx, n.group)
	if err != nil {
		return err
	}
	var problems []error
	ends.Each(func(end kadm.ListedOffset) {
		at, ok := committed.Lookup(n.in, end.Partition)
		if end.Offset > 0 && (!ok || at.At != end.Offset) {
			problems = append(problems, fmt.Errorf("%s[%d]: committed %d, end %d", n.in, end.Partition, at.At, end.Offset))
		}
	})
	return errors.Join(problems...)
}
