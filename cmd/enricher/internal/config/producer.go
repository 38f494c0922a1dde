package config

import (
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
)

// ProducerFlags configure how records are written to Kafka.
type ProducerFlags struct {
	Compression   string   `default:"gzip" values:"${codecs}" help:"Compression of the records written: ${codecs}. Some readers need an additional package for all but none and gzip."`
	BatchMaxBytes ByteSize `default:"1048588" help:"Maximum size of a batch of records, and so of a single one."`
}

// Codecs returns the compressions by the values of --compression. gzip is the default
// because every reader and service accepts it, on the level that favours speed: its
// default level takes nearly three times as long, for a sixth less.
func Codecs() map[string]kgo.CompressionCodec {
	return map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression().WithLevel(1), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
}

// codecNames lists the values of --compression.
func codecNames() []string { return slices.Sorted(maps.Keys(Codecs())) }

const (
	// minBatchMaxBytes is several times what a dead letter takes without its event.
	minBatchMaxBytes = 16 << 10
	// maxBatchMaxBytes is the Kafka client's own limit.
	maxBatchMaxBytes = 1 << 30
	// minRequestBytes leaves room for the largest commit of offsets.
	minRequestBytes = 1_000_000
	// requestOverhead is more than a produce request takes besides a batch.
	requestOverhead = 1 << 10
)

// Check records what is wrong with the values, and adds what they describe to the
// options of the Kafka clients.
func (f *ProducerFlags) Check(src *Sources, kafka *KafkaFlags) {
	src.OneOf("compression", f.Compression)
	src.atLeast("batch-max-bytes", int64(f.BatchMaxBytes), minBatchMaxBytes, "16KiB")
	if f.BatchMaxBytes > maxBatchMaxBytes {
		src.Problem("batch-max-bytes", "must be at most 1GiB")
		return
	}
	kafka.Options = append(kafka.Options, kgo.ProducerBatchCompression(Codecs()[f.Compression]), kgo.ProducerBatchMaxBytes(int32(f.BatchMaxBytes)))
	if f.BatchMaxBytes < producer.DefaultMaxRecordBytes {
		// The brokers may limit requests, which have several batches, to the same size.
		kafka.Options = append(kafka.Options, kgo.BrokerMaxWriteBytes(max(int32(f.BatchMaxBytes)+requestOverhead, minRequestBytes)))
	}
}
