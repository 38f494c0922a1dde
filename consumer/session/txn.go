package session

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

// TxnResult is how a transaction ended.
type TxnResult uint8

const (
	// Committed means that outputs and offsets are committed.
	Committed TxnResult = iota
	// Aborted means an ordinary abort (a rebalance, a broker error), or a result
	// that the client reports so: call FetchCommitted before producing again.
	Aborted
	// Unknown means that the result is not known and the session is of no more use.
	Unknown
)

var resultNames = [...]string{"committed", "aborted", "unknown"}

// String returns the name used in logs and metric labels.
func (r TxnResult) String() string { return resultNames[r] }

// TxnResults returns all results.
func TxnResults() []TxnResult { return []TxnResult{Committed, Aborted, Unknown} }

// Txn is the caller's side of an open transaction.
type Txn interface {
	// WhileFlushing runs while the broker works on the records. It may poll.
	WhileFlushing()
	// Offsets returns the offsets to commit, after every record is acknowledged.
	// An error aborts the transaction.
	Offsets() ([]Offset, error)
}

// ErrRevoked is for Txn.Offsets: a partition of the transaction is no longer held.
var ErrRevoked = errors.New("a partition in the transaction was revoked")

// errNoOffsets keeps outputs from being produced again and again.
var errNoOffsets = errors.New("the transaction has no offsets to commit")

// rebalanceRelease is when a transaction stops blocking rebalances. A member that
// was removed from the group between poll and end waits for a rebalance that
// waits for the end; this frees it. No healthy transaction takes this long.
const rebalanceRelease = 3 * time.Second

// Commit produces records and commits the offsets of txn in one transaction. The
// error explains why a transaction did not commit; with Aborted it may be nil.
func (s *Session) Commit(records []*kgo.Record, txn Txn) (TxnResult, error) {
	// Cancelling anything below would leave the client with an unknown result.
	ctx := context.Background()
	defer s.releaseRebalanceAfter(rebalanceRelease)()
	if err := s.absorbPendingAbort(ctx); err != nil {
		return Unknown, err
	}
	if err := s.gts.Begin(); err != nil {
		return Unknown, fmt.Errorf("begin transaction: %w", err)
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
	txn.WhileFlushing()
	flushErr := s.cl.Flush(ctx)
	produceErr := errors.Join(flushErr, produced.Err())

	var offsetsErr error
	ok, err := s.gts.End(kgo.PreTxnCommitFnContext(ctx, func(req *kmsg.TxnOffsetCommitRequest) error {
		var commit []Offset
		commit, offsetsErr = txn.Offsets()
		if offsetsErr == nil && len(commit) == 0 {
			offsetsErr = errNoOffsets
		}
		if offsetsErr == nil {
			s.replaceOffsets(req, commit)
		}
		return offsetsErr
	}), kgo.TransactionEndTry(produceErr == nil))

	switch {
	case err == nil && ok:
		return Committed, nil
	case len(tooLarge.Records) > 0 && err == nil:
		return Aborted, tooLarge
	case err == nil:
		return Aborted, produceErr
	case offsetsErr != nil && errors.Is(err, offsetsErr), errors.Is(err, kerr.OffsetMetadataTooLarge):
		return Aborted, err
	}
	return Unknown, errors.Join(fmt.Errorf("end transaction: %w", err), produceErr)
}

// absorbPendingAbort ends an empty transaction, which never reaches a broker, if
// a partition was revoked since the last transaction: the client would abort the
// next one for it. The caller has dropped that partition before this
// transaction, so there is no need to abort it.
func (s *Session) absorbPendingAbort(ctx context.Context) error {
	if !s.revoked.Swap(false) {
		return nil
	}
	if err := s.gts.Begin(); err != nil {
		return fmt.Errorf("begin an empty transaction: %w", err)
	}
	if _, err := s.gts.End(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("end an empty transaction: %w", err)
	}
	return nil
}

// releaseRebalanceAfter allows rebalances once the transaction has taken d. The
// function that it returns ends that, so that it cannot happen during the next
// poll.
func (s *Session) releaseRebalanceAfter(d time.Duration) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			s.gts.AllowRebalance()
		case <-done:
		}
	}()
	return func() { close(done); <-ended }
}

// replaceOffsets replaces what the client would commit (the end of everything
// polled) by commit. Topic ids are the request's own where it has them.
func (s *Session) replaceOffsets(req *kmsg.TxnOffsetCommitRequest, commit []Offset) {
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

// TooLargeError holds the records that the broker or the client rejected for
// their size.
type TooLargeError struct{ Records []*kgo.Record }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d records are too large for their topic", len(e.Records))
}
