package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer"
)

const (
	// fenceTimeout bounds fencing. The broker first ends the transaction that the
	// previous run left open, which takes no longer than TransactionTimeout; the
	// rest is for a coordinator that is moving.
	fenceTimeout = 3 * producer.TransactionTimeout
	// abortTimeout bounds an abort, which only saves readers the wait for
	// TransactionTimeout.
	abortTimeout = producer.TransactionTimeout / 2
)

// exclusiveProducer is the only producer that can write to the journal of a
// dead-letter topic, until a later run fences it.
type exclusiveProducer struct {
	cl           *kgo.Client
	inits        *initialisations
	initsAtStart int32 // initialisations when it had fenced the previous one
	unanswered   producer.Unanswered
}

// TransactionalID returns the id under which the dead letters of a topic are
// replayed.
func TransactionalID(deadLetterTopic string) string { return "enricher-replay-" + deadLetterTopic }

// fencePrevious fences the producer of the previous run and ends its open
// transaction. When it returns, that transaction is committed or aborted.
func fencePrevious(ctx context.Context, topics Topics) (*exclusiveProducer, error) {
	p := &exclusiveProducer{inits: &initialisations{}}
	id := TransactionalID(topics.DeadLetterTopic)
	var err error
	p.cl, err = kgo.NewClient(append(topics.Kafka[:len(topics.Kafka):len(topics.Kafka)],
		kgo.TransactionalID(id),
		kgo.TransactionTimeout(producer.TransactionTimeout),
		kgo.ProducerBatchMaxBytes(cmp.Or(topics.MaxRecordBytes, producer.DefaultMaxRecordBytes)),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, like Java clients
		kgo.ProducerLinger(0), // a transaction is produced in one go and flushed
		kgo.WithHooks(p.inits, &p.unanswered),
	)...)
	if err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	_, _, err = p.cl.ProducerID(ctx)
	if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		err = &producer.NotAuthorizedError{Operations: []string{"Describe", "Write"}, ResourceType: "transactional-id", Resource: id, Err: err}
	}
	if err != nil {
		p.cl.Close()
		return nil, p.wrap(fmt.Sprintf("initialise transactional id %q", id), err)
	}
	p.initsAtStart = p.inits.n.Load()
	return p, nil
}

func (p *exclusiveProducer) close() { p.cl.Close() }

// commit produces records in one transaction. events are those of the dead letters
// in it. After an error they may be committed or not, and the producer must not be
// used again, except after a refusedError: then nothing is committed.
func (p *exclusiveProducer) commit(ctx context.Context, records []*kgo.Record, events map[*kgo.Record]Position) error {
	unanswered := p.unanswered.Count()
	if err := p.cl.BeginTransaction(); err != nil {
		return p.wrap("begin transaction", err)
	}
	var produced kgo.FirstErrPromise
	var mu sync.Mutex
	refused := &refusedError{positions: make(map[Position]bool)}
	denied := make(map[string]bool) // topics
	for _, r := range records {
		promise := produced.Promise()
		p.cl.Produce(ctx, r, func(r *kgo.Record, err error) {
			if errors.Is(err, kerr.TopicAuthorizationFailed) {
				mu.Lock()
				denied[r.Topic] = true
				mu.Unlock()
			}
			if pos, ok := events[r]; ok && isRefusal(err) {
				mu.Lock()
				refused.positions[pos], refused.err = true, fmt.Errorf("topic %q: %w", r.Topic, err)
				mu.Unlock()
			}
			if err != nil {
				err = fmt.Errorf("topic %q: %w", r.Topic, err)
			}
			promise(r, err)
		})
	}
	err := errors.Join(p.cl.Flush(ctx), produced.Err())
	if err == nil && p.inits.n.Load() != p.initsAtStart {
		// Rare: when retention deletes the last batch that it produced, kgo
		// initialises its id again, even a fenced one, and produces again.
		err = errReinitialised
	}
	if err != nil {
		err = p.wrap("produce", err)
		if errors.Is(err, ErrFenced) { // an abort might initialise the id again
			return err
		}
		abortErr := p.abort()
		if len(denied) > 0 { // the next run finds what is refused besides
			return p.wrap("produce", &producer.NotAuthorizedError{
				Operations: []string{"Write"}, ResourceType: "topic", Resource: p.deniedTopic(records, denied), Err: kerr.TopicAuthorizationFailed})
		}
		if abortErr != nil || len(refused.positions) == 0 {
			return err
		}
		if p.unanswered.Count() > unanswered {
			return fmt.Errorf("%w: %w", producer.ErrUnanswered, err)
		}
		return refused
	}
	if err := p.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return p.wrap("end transaction", err)
	}
	return nil
}

// deniedTopic returns the topic to which the producer may not write. Before
// transaction.version 2, the client gives the records of all topics the error for one,
// so the broker is asked. If it does not say, the result is the first topic of records,
// which is an event's: the journal has been written to before.
func (p *exclusiveProducer) deniedTopic(records []*kgo.Record, denied map[string]bool) string {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	first := ""
	for _, r := range records {
		if !denied[r.Topic] {
			continue
		}
		delete(denied, r.Topic)
		first = cmp.Or(first, r.Topic)
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(r.Topic)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, p.cl)
	if err != nil {
		return first
	}
	const unknown = math.MinInt32
	for _, t := range resp.Topics {
		if t.Topic != nil && (t.ErrorCode == kerr.TopicAuthorizationFailed.Code ||
			t.AuthorizedOperations != unknown && t.AuthorizedOperations&(1<<kmsg.ACLOperationWrite) == 0) {
			return *t.Topic
		}
	}
	return first
}

// abort aborts the transaction. If it fails, the transaction times out.
func (p *exclusiveProducer) abort() error {
	ctx, cancel := context.WithTimeout(context.Background(), abortTimeout)
	defer cancel()
	return p.cl.EndTransaction(ctx, kgo.TryAbort)
}

func (p *exclusiveProducer) wrap(operation string, err error) error {
	err = fmt.Errorf("%s: %w", operation, err)
	if producer.IsFenced(err) {
		return fmt.Errorf("%w (%w)", ErrFenced, err)
	}
	return &clientError{err}
}

// initialisations counts how often the client initialised its transactional id.
type initialisations struct{ n atomic.Int32 }

var _ kgo.HookBrokerWrite = (*initialisations)(nil)

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (i *initialisations) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.InitProducerID) {
		i.n.Add(1)
	}
}
