package producer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// End is how a transaction ended.
type End uint8

const (
	// Committed: outputs and offsets stand.
	Committed End = iota
	// NotCommitted: an ordinary abort (a rebalance, a broker fault), or so the
	// client says; ask the broker (ReadBack) before producing anything again.
	NotCommitted
	// InDoubt: nobody knows, and the session is dead.
	InDoubt
)

// ErrStale is for the offsets function of Commit: a partition of the
// transaction is no longer held.
var ErrStale = errors.New("a partition of the transaction was taken away")

// Outputs without offsets would be produced again.
var errNoOffsets = errors.New("a transaction without offsets")

// A member that was expelled between poll and end waits for a rebalance that
// waits for the end; letting rebalances go on frees it. No healthy transaction
// takes this long.
const rebalanceGuard = 3 * time.Second

// Commit produces records and commits offsets in one transaction. It calls
// meanwhile (which may poll) while the broker works on the records, and offsets
// after everything was acknowledged and just before the commit; an error of
// offsets aborts. The error of Commit says why a transaction did not commit; with
// NotCommitted it may be nil.
func (s *Session) Commit(records []*kgo.Record, meanwhile func(), offsets func() ([]Offset, error)) (End, error) {
	// Nothing below may be cancelled: it would leave the client in doubt.
	ctx := context.Background()
	defer s.guard()()
	if err := s.sacrifice(ctx); err != nil {
		return InDoubt, err
	}
	if err := s.gts.Begin(); err != nil {
		return InDoubt, fmt.Errorf("begin transaction: %w", err)
	}

	var produced kgo.FirstErrPromise
	tooLarge := &TooLargeError{}
	var mu sync.Mutex
	for _, r := range records {
		promise := produced.Promise()
		s.gts.Produce(ctx, r, func(r *kgo.Record, err error) {
			if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) {
				mu.Lock()
				tooLarge.Records = append(tooLarge.Records, r)
				mu.Unlock()
			}
			promise(r, err)
		})
	}
	meanwhile()
	flushErr := s.cl.Flush(ctx)
	produceErr := errors.Join(flushErr, produced.Err())

	var offsetsErr error
	ok, err := s.gts.End(kgo.PreTxnCommitFnContext(ctx, func(req *kmsg.TxnOffsetCommitRequest) error {
		var commit []Offset
		commit, offsetsErr = offsets()
		if offsetsErr == nil && len(commit) == 0 {
			offsetsErr = errNoOffsets
		}
		if offsetsErr == nil {
			s.rewrite(req, commit)
		}
		return offsetsErr
	}), kgo.TransactionEndTry(produceErr == nil))

	switch {
	case err == nil && ok:
		return Committed, nil
	case len(tooLarge.Records) > 0 && err == nil:
		return NotCommitted, tooLarge
	case err == nil:
		return NotCommitted, produceErr
	case offsetsErr != nil && errors.Is(err, offsetsErr), errors.Is(err, kerr.OffsetMetadataTooLarge):
		return NotCommitted, err
	}
	return InDoubt, errors.Join(fmt.Errorf("end transaction: %w", err), produceErr)
}

// sacrifice ends an empty transaction, which no broker hears of, if the client
// would abort the next one because a partition was taken away since the last
// one. The caller has dropped that partition before this transaction, so there
// is no need to abort it.
func (s *Session) sacrifice(ctx context.Context) error {
	if !s.taken.Swap(false) {
		return nil
	}
	if err := s.gts.Begin(); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	if _, err := s.gts.End(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("end an empty transaction: %w", err)
	}
	return nil
}

// TooLargeError names the records that the broker or the client refused for
// their size.
type TooLargeError struct{ Records []*kgo.Record }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d records are too large for their topic", len(e.Records))
}

// guard allows rebalances once the transaction takes too long, and returns the
// function that ends the guard: it must not fire into the next poll.
func (s *Session) guard() (stop func()) {
	done, joined := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(joined)
		t := time.NewTimer(rebalanceGuard)
		defer t.Stop()
		select {
		case <-t.C:
			s.gts.AllowRebalance()
		case <-done:
		}
	}()
	return func() { close(done); <-joined }
}

// rewrite replaces what the client would commit (every polled head) by what is
// done. Topic ids are the request's own where it has them.
func (s *Session) rewrite(req *kmsg.TxnOffsetCommitRequest, commit []Offset) {
	ids := make(map[string][16]byte)
	for _, t := range req.Topics {
		ids[t.Topic] = t.TopicID
	}
	index := make(map[string]int)
	req.Topics = nil
	for _, o := range commit {
		i, ok := index[o.Topic]
		if !ok {
			t := kmsg.NewTxnOffsetCommitRequestTopic()
			t.Topic, t.TopicID = o.Topic, ids[o.Topic]
			if t.TopicID == ([16]byte{}) {
				t.TopicID = s.topicIDs[o.Topic]
			}
			i = len(req.Topics)
			index[o.Topic] = i
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = o.Partition, o.Offset, &o.Metadata
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
}

// Reborn tells of which partitions a new assignment waits in Births.
func (s *Session) Reborn(topic string, partition int32) bool {
	found := false
	s.eachBirth(func(b Offset) { found = found || b.Topic == topic && b.Partition == partition })
	return found
}
