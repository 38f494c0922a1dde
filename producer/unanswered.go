package producer

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrUnanswered means that a record was given up that may be in its partition, so
// that its client must not produce again; see Unanswered.
var ErrUnanswered = errors.New("a produce request got no response")

// Unanswered is a hook that counts the produce requests of a Kafka client that have
// no response, or none yet.
//
// If a record fails and the number has grown since its transaction began, a
// transactional client must not produce again. The broker may have the batches of a
// request whose response was lost. Usually the client sends them again and the
// broker recognises them by their sequence numbers. But if that attempt is refused
// or takes too long, the client gives the batches up and gives their numbers to the
// next ones, in the next transaction too. The broker then confirms a batch that it
// takes for a duplicate, without writing it. With transaction.version 2 each
// transaction has an epoch of its own, and the numbers start again.
type Unanswered struct{ n atomic.Int64 }

var (
	_ kgo.HookBrokerWrite = (*Unanswered)(nil)
	_ kgo.HookBrokerRead  = (*Unanswered)(nil)
)

// Count returns the number. While nothing is being produced, all of them have lost
// their response.
func (u *Unanswered) Count() int64 { return u.n.Load() }

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (u *Unanswered) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, bytes int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.Produce) && bytes > 0 {
		u.n.Add(1)
	}
}

// OnBrokerRead implements kgo.HookBrokerRead.
func (u *Unanswered) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == int16(kmsg.Produce) && err == nil {
		u.n.Add(-1)
	}
}
