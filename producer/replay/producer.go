package replay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer"
)

const (
	transactionTimeout = 10 * time.Second
	fenceTimeout       = 30 * time.Second // a predecessor's transaction may have to end first
	abortTimeout       = 5 * time.Second
	maxRecordBytes     = 1048588 // the broker's default, and that of the pipeline
)

// ErrFenced says that another run has the transactional id now.
var ErrFenced = errors.New("another replay took over")

// errReinitialised: the client took the id back by itself, from whoever may have
// taken it over meanwhile.
var errReinitialised = errors.New("the client initialised its transactional id anew")

// errJournalMissing: the broker asked has not heard of the journal yet, or somebody
// deleted it. To take it for empty would replay everything again.
var errJournalMissing = errors.New("the journal is not there any more")

// errTooLarge: an event does not fit its topic, or all of a batch do not.
var errTooLarge = errors.New("too large for the topic")

// exclusiveProducer is the one producer that may write to the journal of a dead-letter
// topic: whoever takes the transactional id over later ends it.
type exclusiveProducer struct {
	cl           *kgo.Client
	inits        *initialisations
	initsAtStart int32 // initialisations when it took over
}

// TransactionalID is the id under which the letters of a topic are replayed.
func TransactionalID(deadLetterTopic string) string { return "enricher-replay-" + deadLetterTopic }

// fencePrevious fences the operator before this one and ends its open transaction.
// When it returns, what that transaction wrote is decided.
func fencePrevious(ctx context.Context, topics Topics) (*exclusiveProducer, error) {
	o := &exclusiveProducer{inits: &initialisations{}}
	id := TransactionalID(topics.DeadLetterTopic)
	var err error
	o.cl, err = kgo.NewClient(append(topics.Kafka[:len(topics.Kafka):len(topics.Kafka)],
		kgo.TransactionalID(id),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.ProducerBatchMaxBytes(maxRecordBytes),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Java clients
		kgo.ProducerLinger(0),                                // all of a transaction is produced at once, and flushed
		kgo.WithHooks(o.inits),
	)...)
	if err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	if _, _, err := o.cl.ProducerID(ctx); err != nil {
		o.cl.Close()
		return nil, o.wrap("initialise transactional id "+id, err)
	}
	o.initsAtStart = o.inits.n.Load()
	return o, nil
}

func (o *exclusiveProducer) close() { o.cl.Close() }

// commit produces records in one transaction. An error means that they are not
// committed or that nobody knows; either way the operator is of no more use.
func (o *exclusiveProducer) commit(ctx context.Context, records []*kgo.Record) error {
	if err := o.cl.BeginTransaction(); err != nil {
		return o.wrap("begin transaction", err)
	}
	var produced kgo.FirstErrPromise
	var tooLarge atomic.Bool
	for _, r := range records {
		promise := produced.Promise()
		o.cl.Produce(ctx, r, func(r *kgo.Record, err error) {
			if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) {
				tooLarge.Store(true)
			}
			if err != nil {
				err = fmt.Errorf("topic %q: %w", r.Topic, err)
			}
			promise(r, err)
		})
	}
	err := errors.Join(o.cl.Flush(ctx), produced.Err())
	if tooLarge.Load() {
		err = errTooLarge
	}
	if err == nil && o.inits.n.Load() != o.initsAtStart {
		// Rare, but the client does it: when retention passes what it produced
		// last, it takes a fenced id back and produces again.
		err = errReinitialised
	}
	if err != nil {
		err = o.wrap("produce", err)
		if !errors.Is(err, ErrFenced) { // to abort might take the id back
			o.abort()
		}
		return err
	}
	if err := o.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return o.wrap("end transaction", err)
	}
	return nil
}

// abort spares readers the time-out of a transaction that will not be committed.
func (o *exclusiveProducer) abort() {
	ctx, cancel := context.WithTimeout(context.Background(), abortTimeout)
	defer cancel()
	_ = o.cl.EndTransaction(ctx, kgo.TryAbort) // else it times out
}

func (o *exclusiveProducer) wrap(what string, err error) error {
	err = fmt.Errorf("%s: %w", what, err)
	if producer.IsFenced(err) {
		return fmt.Errorf("%w (%w)", ErrFenced, err)
	}
	return &clientError{err}
}

// clientError is any other error of an operator.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// retriable says of an error that starting over from the journal may help: the
// brokers were away, or it is not known how a transaction ended.
func retriable(err error) bool {
	if errors.Is(err, errReinitialised) || errors.Is(err, errJournalMissing) {
		return true
	}
	var broker *kerr.Error
	if !errors.As(err, &broker) {
		var operator *clientError
		var network net.Error
		return errors.As(err, &operator) || errors.As(err, &network) || kgo.IsRetryableBrokerErr(err)
	}
	switch {
	case errors.Is(broker, kerr.UnknownTopicOrPartition), errors.Is(broker, kerr.UnknownTopicID):
		return false
	case broker.Retriable:
		return true
	}
	for _, e := range []error{kerr.UnknownServerError, kerr.InvalidProducerIDMapping, kerr.UnknownProducerID, kerr.InvalidTxnState,
		kerr.TransactionAbortable, kerr.OperationNotAttempted, kerr.OutOfOrderSequenceNumber} {
		if errors.Is(broker, e) {
			return true
		}
	}
	return false
}

// initialisations counts how often the client asked for its transactional id.
type initialisations struct{ n atomic.Int32 }

var _ kgo.HookBrokerWrite = (*initialisations)(nil)

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (i *initialisations) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.InitProducerID) {
		i.n.Add(1)
	}
}
