package session

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxBatchBytes is the largest batch that is unpacked. A record of a topic is
// at most max.message.bytes (1 MiB) large, so an honest batch stays far below.
const maxBatchBytes = 64 << 20

// errBudget is polled for a batch that was not unpacked for lack of room. The
// client fetches it again.
var errBudget = errors.New("fetch buffer is full")

// IsBudget reports whether a polled error only means that the fetch buffer was
// full.
func IsBudget(err error) bool { return errors.Is(err, errBudget) }

// fetchBudget is a decompressor that bounds what the client holds unpacked. The
// client itself bounds compressed bytes only, and a batch may be a thousand
// times larger than that.
type fetchBudget struct {
	kgo.Decompressor
	client atomic.Pointer[kgo.Client]
	limit  int64
	mu     sync.Mutex // one batch is unpacked at a time: several brokers may respond at once
	// unpacked is what was unpacked of the response at hand, which the client does
	// not count as buffered yet.
	unpacked atomic.Int64
}

func newFetchBudget(limit int64) (*fetchBudget, error) {
	d, err := boundedDecompressor()
	if err != nil {
		return nil, err
	}
	return &fetchBudget{Decompressor: d, limit: limit}, nil
}

// boundedDecompressor returns one that refuses what unpacks to more than
// maxBatchBytes.
func boundedDecompressor() (kgo.Decompressor, error) {
	// A decompressor of one's own is not bounded by MaxDecompressBatchBytes; the
	// client's own bounded one has to be taken from a client, which never dials.
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"), kgo.MaxDecompressBatchBytes(maxBatchBytes))
	if err != nil {
		return nil, fmt.Errorf("configure decompression: %w", err)
	}
	defer cl.Close()
	d, ok := cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !ok {
		return nil, errors.New("configure decompression: the Kafka client has no decompressor")
	}
	return d, nil
}

// Decompress implements kgo.Decompressor.
func (b *fetchBudget) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.unpacked.Load()
	if cl := b.client.Load(); cl != nil {
		held += cl.BufferedFetchBytes()
	}
	if held > b.limit {
		return nil, errBudget
	}
	out, err := b.Decompressor.Decompress(src, codec)
	b.unpacked.Add(int64(len(out)))
	return out, err
}

// OnBrokerRead implements kgo.HookBrokerRead: a new response is about to be
// unpacked. The client counts all that was unpacked before as buffered by now.
func (b *fetchBudget) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == int16(kmsg.Fetch) {
		b.unpacked.Store(0)
	}
}
