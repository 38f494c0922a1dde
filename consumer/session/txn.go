package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"enricher/producer"

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

// commitTimeout bounds a transaction: the broker aborts it by itself after
// producer.TransactionTimeout, so waiting longer cannot win.
const commitTimeout = producer.TransactionTimeout + 5*time.Second

// Commit produces records and commits the offsets of txn in one transaction. The
// error explains why a transaction did not commit; with Aborted it may be nil.
func (s *Session) Commit(records []*kgo.Record, txn Txn) (TxnResult, error) {
	// The end of this context leaves the client with an unknown result, so the
	// session ends with it.
	ctx, cancel := context.WithTimeout(s.root, commitTimeout)
	defer cancel()
	unanswered := s.unanswered.Count()
	released, stop := s.releaseRebalanceAfter(rebalanceRelease)
	defer stop()
	if err := s.absorbPendingAbort(ctx); err != nil {
		return Unknown, err
	}
	if err := s.begin(ctx); err != nil {
		return Unknown, err
	}

	// Not the client's RecordDeliveryTimeout: that counts from a record's timestamp,
	// which may be the end of a call.
	delivery, stopDelivery := context.WithTimeout(ctx, deliveryTimeout)
	defer stopDelivery()
	var produced kgo.FirstErrPromise
	refused := &RefusedError{}
	var mu sync.Mutex
	for _, r := range records {
		promise := produced.Promise()
		s.gts.Produce(delivery, r, func(r *kgo.Record, err error) {
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				err = kgo.ErrRecordTimeout
			}
			if isRefusal(err) {
				mu.Lock()
				refused.Records, refused.Err = append(refused.Records, r), err
				mu.Unlock()
			}
			promise(r, err)
		})
	}
	if !released() { // polling would block rebalances again
		txn.WhileFlushing()
	}
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
	case err == nil && produceErr != nil && s.unanswered.Count() > unanswered:
		return Unknown, errors.Join(producer.ErrUnanswered, produceErr)
	case len(refused.Records) > 0 && err == nil:
		return Aborted, refused
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
	if err := s.begin(ctx); err != nil {
		return err
	}
	if _, err := s.gts.End(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("end an empty transaction: %w", err)
	}
	return nil
}

// begin begins a transaction. Where the client has to initialise its producer id
// first, Begin would do it without a context.
func (s *Session) begin(ctx context.Context) error {
	if _, _, err := s.cl.ProducerID(ctx); err != nil {
		return fmt.Errorf("initialise the producer: %w", err)
	}
	if err := s.gts.Begin(); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	return nil
}

// releaseRebalanceAfter allows rebalances once the transaction has taken d, and
// again every second, because a poll meanwhile blocks them again. released
// reports whether it has done so. stop ends it, so that it cannot happen during
// the next poll.
func (s *Session) releaseRebalanceAfter(d time.Duration) (released func() bool, stop func()) {
	var fired atomic.Bool
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTimer(d)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				fired.Store(true)
				s.gts.AllowRebalance()
				t.Reset(time.Second)
			case <-done:
				return
			}
		}
	}()
	return fired.Load, func() { close(done); <-ended }
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
				t.TopicID = s.TopicID(o.Topic)
			}
			i = len(req.Topics)
			index[o.Topic] = i
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = o.Partition, o.Offset, o.Epoch, &o.Metadata
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
}

// RefusedError holds the records that a topic did not accept. A topic refuses
// whole batches, so not each of them needs to be at fault. Other transactions may
// succeed.
type RefusedError struct {
	Records []*kgo.Record
	Err     error // of the last of them
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%d records refused, the last one by topic %q: %v", len(e.Records), e.Records[len(e.Records)-1].Topic, e.Err)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// TooLarge reports whether the records were refused for their size.
func (e *RefusedError) TooLarge() bool {
	return errors.Is(e.Err, kerr.MessageTooLarge) || errors.Is(e.Err, kerr.RecordListTooLarge)
}

// OfRecord reports whether the records were refused for what they are, so that their
// topic may accept them in another form. Otherwise it accepts none for the time being.
func (e *RefusedError) OfRecord() bool {
	return e.TooLarge() || errors.Is(e.Err, kerr.InvalidRecord) || errors.Is(e.Err, kerr.PolicyViolation)
}

// Unsupported reports whether the brokers do not support how the records were
// written, such as their compression: then they accept none.
func (e *RefusedError) Unsupported() bool {
	return errors.Is(e.Err, kerr.UnsupportedCompressionType) || errors.Is(e.Err, kerr.UnsupportedForMessageFormat)
}

// refusals are the errors that concern the record or its topic, not the producer
// or the transaction.
var refusals = []error{
	kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.PolicyViolation,
	kerr.TopicAuthorizationFailed, kerr.InvalidTopicException, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID,
	kerr.UnsupportedForMessageFormat, kerr.UnsupportedCompressionType, kerr.NotEnoughReplicas,
	kgo.ErrRecordTimeout, kgo.ErrRecordRetries,
}

func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) })
}
