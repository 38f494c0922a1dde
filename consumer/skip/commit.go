package skip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/progress"
	"enricher/consumer/session"
	"enricher/producer"
	"enricher/schemas"
)

// joinTimeout bounds the wait for the partition: the group may first wait for
// members that have crashed.
const joinTimeout = 45 * time.Second

// pollWait is how long one wait for the assignment lasts.
const pollWait = 100 * time.Millisecond

// Commit does what the plan says: all of it, or nothing. With an error it is either
// nothing, or the error says that the result is unknown; a new plan shows it.
func (p *Plan) Commit(ctx context.Context) error {
	if members, err := p.members(ctx); err != nil {
		return err
	} else if len(members) > 0 {
		return &RunningError{p.Group, members}
	}
	s, err := session.Open(ctx, p.session())
	if err != nil {
		return err
	}
	defer s.Close()
	s.PauseAll()
	a, err := p.join(ctx, s)
	if err != nil {
		return err
	}
	// An instance that has joined as well is about to process events.
	if members, err := p.members(ctx); err != nil {
		return err
	} else if len(members) != 1 {
		return &RunningError{p.Group, members}
	}
	before, err := a.Progress(s.TopicID(p.Topic))
	if err != nil {
		return err
	}
	if s.TopicID(p.Topic) != p.topicID || !before.Equal(p.Before) {
		return ErrChanged
	}
	result, err := s.Commit(p.records(time.Now()), &transaction{p, s})
	switch {
	case result == session.Committed:
		return nil
	case result == session.Unknown:
		return fmt.Errorf("the result of the transaction is unknown: %w", err)
	case err == nil:
		return errors.New("the transaction was aborted by a rebalance")
	}
	return fmt.Errorf("the transaction was aborted: %w", err)
}

// join waits until the partition is assigned. From then on no other member gets it
// before the transaction has ended.
func (p *Plan) join(ctx context.Context, s *session.Session) (session.Assignment, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	for ctx.Err() == nil {
		s.AllowRebalance()
		poll, stop := context.WithTimeout(ctx, pollWait)
		var failed error
		s.Poll(poll, 1).EachError(func(_ string, _ int32, err error) {
			if errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed) {
				failed = err
			}
		})
		stop()
		if failed != nil {
			return session.Assignment{}, fmt.Errorf("join group %q: %w", p.Group, failed)
		}
		for _, a := range s.TakeAssignments() {
			if a.Committed.Topic == p.Topic && a.Committed.Partition == p.Partition {
				return a, a.Err
			}
		}
	}
	return session.Assignment{}, fmt.Errorf("the group did not assign partition %d of %q within %v: %w", p.Partition, p.Topic, joinTimeout, ctx.Err())
}

// transaction is the plan's side of its transaction.
type transaction struct {
	*Plan
	session *session.Session
}

// WhileFlushing does nothing: nothing is fetched.
func (*transaction) WhileFlushing() {}

// Offsets returns the offset to commit, if the partition is still assigned.
func (t *transaction) Offsets() ([]session.Offset, error) {
	_, held := t.session.HeldPartitions()[t.Topic][t.Partition]
	if !held || t.session.Reassigned(t.Topic, t.Partition) {
		return nil, session.ErrRevoked
	}
	return []session.Offset{{
		Topic: t.Topic, Partition: t.Partition, Offset: t.After.Base, Epoch: t.epoch,
		Metadata: progress.Encode(t.topicID, t.After),
	}}, nil
}

// records returns the dead letters of what is skipped.
func (p *Plan) records(now time.Time) []*kgo.Record {
	builder := producer.RecordBuilder{DeadLetterTopic: p.DeadLetterTopic, Group: p.Group, MaxRecordBytes: int(p.MaxRecordBytes)}
	text := fmt.Sprintf("skipped by %s: %s", p.By, p.Note)
	var records []*kgo.Record
	for _, r := range p.Events {
		records = append(records, builder.DeadLetter(r, &schemas.Failure{Reason: schemas.Skipped, Message: text}))
	}
	for _, u := range p.Unreadable {
		first := &kgo.Record{Topic: p.Topic, Partition: p.Partition, Offset: u.From, Timestamp: now}
		records = append(records, builder.UnreadableRange(first, u.To-u.From, &schemas.Failure{
			Reason: schemas.Skipped, Message: fmt.Sprintf("%s (%v)", text, u.Err),
		}))
	}
	return records
}
