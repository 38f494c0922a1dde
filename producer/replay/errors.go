package replay

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
)

// Errors of this package state facts. Which command or flag helps is for the
// caller to say.
var (
	// ErrFenced reports that a run that started later owns the transactional id.
	ErrFenced = errors.New("fenced by another replay")
	// ErrRecreated reports that a topic was deleted and created again during a run.
	ErrRecreated = errors.New("the topic was deleted and re-created")
)

// JournalConfigError reports a journal whose configuration lets brokers delete
// markers, so that their dead letters would be replayed twice.
type JournalConfigError struct {
	Topic, Key, Value string
	Want              string // the value that Key must have
}

func (e *JournalConfigError) Error() string {
	return fmt.Sprintf("journal %q has %s=%s, so replay history would be lost", e.Topic, e.Key, e.Value)
}

// JournalCreateError reports that there is no journal and that creating it failed.
type JournalCreateError struct {
	Topic     string
	Key, Want string // configuration that a journal must have
	Err       error
}

func (e *JournalCreateError) Error() string {
	return fmt.Sprintf("journal %q does not exist and cannot be created: %v", e.Topic, e.Err)
}

func (e *JournalCreateError) Unwrap() error { return e.Err }

// MissingTargetError reports that a topic to replay to does not exist.
type MissingTargetError struct {
	Topic       string
	DeadLetters int // that would be replayed to it
}

func (e *MissingTargetError) Error() string {
	return fmt.Sprintf("topic %q, the destination of %d of the dead letters, does not exist", e.Topic, e.DeadLetters)
}

// OpenTransactionError reports a transaction that stayed open for so long that
// reading was given up: nothing behind it is committed for a reader.
type OpenTransactionError struct {
	Topic     string
	Partition int32
	Offset    int64
	Waited    time.Duration
}

func (e *OpenTransactionError) Error() string {
	return fmt.Sprintf("topic %q, partition %d: a transaction at offset %d has been open for %v", e.Topic, e.Partition, e.Offset, e.Waited)
}

var (
	// errReinitialised reports that the client initialised its transactional id a
	// second time, which takes the id back from a run that may own it by now.
	errReinitialised = errors.New("the client re-initialised its transactional id")
	// errJournalMissing reports that the journal is gone although this run found or
	// created it: the broker asked does not know it yet, or it was deleted. Treating
	// it as empty would replay everything again.
	errJournalMissing = errors.New("the journal topic no longer exists")
)

// refusedError reports that a topic does not accept some events, or others of the
// same batches. Nothing of the transaction is committed.
type refusedError struct {
	positions map[Position]bool // of their dead letters
	err       error             // for the last of them
}

func (e *refusedError) Error() string { return e.err.Error() }

// isRefusal reports whether an error concerns the record, so that others of its
// topic may be accepted.
func isRefusal(err error) bool {
	return isTooLarge(err) || errors.Is(err, kerr.InvalidRecord) || errors.Is(err, kerr.InvalidTimestamp) ||
		errors.Is(err, kerr.PolicyViolation)
}

func isTooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// clientError is any error of a transaction other than ErrFenced.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// retriable reports whether starting over from the journal may help: brokers were
// away, or the result of a transaction is unknown.
func retriable(err error) bool {
	if errors.Is(err, errReinitialised) || errors.Is(err, errJournalMissing) || errors.Is(err, producer.ErrUnanswered) {
		return true
	}
	var broker *kerr.Error
	if !errors.As(err, &broker) {
		var client *clientError
		var network net.Error
		return errors.As(err, &client) || errors.As(err, &network) || kgo.IsRetryableBrokerErr(err)
	}
	switch {
	case errors.Is(broker, kerr.UnknownTopicOrPartition), errors.Is(broker, kerr.UnknownTopicID):
		return false // retriable for Kafka, but the topics were there before
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
