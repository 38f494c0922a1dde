// Package producer makes the Kafka records of outcomes, and reads dead letters
// back. Every record fits into one batch of its topic, and a dead letter holds its
// event's key, value and headers byte for byte.
//
// It sends nothing: transactions are those of packages consumer/session and
// producer/replay.
package producer

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

const (
	// TransactionTimeout is when the broker aborts an open transaction of a
	// producer that it does not hear from. Until then, read_committed consumers and
	// the next owner of the partitions wait, so it is short; a transaction takes a
	// few tens of milliseconds.
	TransactionTimeout = 10 * time.Second

	// DefaultMaxRecordBytes is the broker's default for message.max.bytes.
	DefaultMaxRecordBytes = 1048588
)

// IsFenced reports whether err means that another producer took over the
// transactional id.
func IsFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.FencedInstanceID)
}
