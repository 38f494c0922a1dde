package session

import (
	"bytes"
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The decompressor unpacks nothing once the limit is reached, until the client has
// taken over what was unpacked: then a new response begins.
func TestFetchBudgetBoundsUnpackedBytes(t *testing.T) {
	const mib = 1 << 20
	packed := pack(t, mib)
	b, err := newFetchBudget(3 * mib)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for range 100 {
		out, err := b.Decompress(packed, kgo.CodecZstd)
		if err != nil && !IsBudget(err) {
			t.Fatal(err)
		}
		total += len(out)
	}
	if total != 4*mib { // the check is before the batch is unpacked
		t.Errorf("%d bytes unpacked, want the limit and one batch", total)
	}
	b.OnBrokerRead(kgo.BrokerMetadata{}, int16(kmsg.Heartbeat), 0, 0, 0, nil)
	if _, err := b.Decompress(packed, kgo.CodecZstd); !IsBudget(err) {
		t.Errorf("a heartbeat made room: %v", err)
	}
	b.OnBrokerRead(kgo.BrokerMetadata{}, int16(kmsg.Fetch), 0, 0, 0, nil)
	if out, err := b.Decompress(packed, kgo.CodecZstd); err != nil || len(out) != mib {
		t.Errorf("%d bytes after a new response: %v", len(out), err)
	}
}

// A batch that unpacks to more than any honest one is refused, with an error of its
// own.
func TestFetchBudgetRefusesHugeBatch(t *testing.T) {
	b, err := newFetchBudget(DefaultFetchBufferBytes)
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.Decompress(pack(t, maxBatchBytes+1), kgo.CodecZstd)
	if err == nil || errors.Is(err, errBudget) || len(out) > maxBatchBytes {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

func pack(t *testing.T, size int) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(bytes.Repeat([]byte{'x'}, size), nil)
}
