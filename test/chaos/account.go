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

// patience is for the last outcomes.
const patience = 3 * time.Minute

// account waits for the last outcomes and checks all of them, and that the
// group's offsets say that everything is done.
func (s *stage) account(ctx context.Context, w *watch) error {
	for end := time.Now().Add(patience); w.count() < s.ledger.Due() && time.Now().Before(end); {
		if err := errors.Join(s.anyDeath(), sleep(ctx, 200*time.Millisecond)); err != nil {
			return err
		}
	}
	uncommitted := s.awaitOffsets(ctx)
	read, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	records, err := audit.Read(read, []kgo.Opt{kgo.SeedBrokers(s.kafka.Brokers...)}, outTopic, deadTopic)
	if err != nil {
		return errors.Join(uncommitted, err)
	}
	a := s.ledger.Check(records)
	fmt.Println(a)
	fmt.Printf("API: %d requests, %.3f per call, at most %d in one second\n",
		s.api.Requests(), s.api.RequestsPerCallID(), s.api.MaxInAnyWindow(time.Second))
	if !a.OK() {
		return errors.Join(uncommitted, errors.New("the account is not right"))
	}
	return uncommitted
}

// awaitOffsets waits until every event is committed as done: skipped ones show
// nowhere else.
func (s *stage) awaitOffsets(ctx context.Context) error {
	var why error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		if why = s.checkOffsets(ctx); why == nil {
			return nil
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return why
}

func (s *stage) checkOffsets(ctx context.Context) error {
	ends, err := s.admin.ListEndOffsets(ctx, inTopic)
	if err != nil {
		return err
	}
	committed, err := s.admin.FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	var why []error
	ends.Each(func(end kadm.ListedOffset) {
		at, ok := committed.Lookup(inTopic, end.Partition)
		if end.Offset > 0 && (!ok || at.At != end.Offset) {
			why = append(why, fmt.Errorf("partition %d ends at %d, committed is %d", end.Partition, end.Offset, at.At))
		}
	})
	return errors.Join(why...)
}
