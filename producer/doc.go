// Package producer builds the Kafka records of outcomes, and parses dead letters.
// Every record fits into one batch of its topic, and a dead letter has the key, the
// value and the headers of its event, byte for byte.
//
// It sends nothing: the transactions are in packages consumer/session and
// producer/replay.
package producer

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

const (
	// TransactionTimeout is after how long the broker aborts the open transaction of
	// a producer that has crashed. Until then read_committed consumers and the next
	// owner of the partitions wait, so it is short; a transaction takes a few tens of
	// milliseconds.
	TransactionTimeout = 10 * time.Second

	// DefaultMaxRecordBytes is the default of the broker setting message.max.bytes.
	DefaultMaxRecordBytes = 1048588
)

// IsFenced reports whether err means that another producer has taken over the
// transactional id.
func IsFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.FencedInstanceID)
}
