package consumer_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/fetch/fetchtest"
	"enricher/test/harness"
)

// BenchmarkCompressedBacklog is the resident memory of a process with the default
// limits that has a backlog on 48 partitions of three brokers: not compressed,
// compressed about 20:1, and in batches that unpack to just below the largest that
// is read, from almost nothing.
func BenchmarkCompressedBacklog(b *testing.B) {
	length := 90 * time.Second
	if testing.Short() {
		length = 30 * time.Second
	}
	for _, c := range []struct {
		name     string
		codec    kgo.CompressionCodec
		events   int // in each partition
		padding  int // bytes
		maxBatch int32
	}{
		{"plain", kgo.NoCompression(), 10_000, 0, 1 << 20},
		{"zstd", kgo.ZstdCompression(), 60_000, 0, 1 << 20},
		{"bombs", kgo.ZstdCompression(), 110, 500_000, 60 << 20},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				const parts = 48
				t := harness.DefaultTopics
				broker := harness.OnLoopback(b, kfake.NumBrokers(3), kfake.SeedTopics(parts, t.In), kfake.SeedTopics(3, t.Enriched, t.Dead))
				e := &env{Env: harness.NewEnv(broker, t, fetchtest.Config{Latency: func(string) time.Duration { return 20 * time.Millisecond }})}
				sent := &wireBytes{}
				cl := e.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(c.codec),
					kgo.ProducerBatchMaxBytes(c.maxBatch), kgo.ProducerLinger(200*time.Millisecond), kgo.WithHooks(sent))
				padding := bytes.Repeat([]byte{' '}, c.padding)
				raw := 0
				for p := range parts {
					for n := range c.events {
						value := append(endOfCall(n, p), padding...)
						raw += len(value)
						cl.Produce(context.Background(), &kgo.Record{Topic: e.In, Partition: int32(p), Value: value}, benchEnv{env: e}.mustFeed)
					}
					if err := cl.Flush(context.Background()); err != nil {
						b.Fatal(err)
					}
				}
				p := e.spawn(childInstance{API: e.serveAPI(), Instance: "a"})
				<-time.After(length)
				b.ReportMetric(float64(raw)/float64(sent.Load()), "ratio")
				b.ReportMetric(float64(e.API.Requests())/length.Seconds(), "requests/s")
				reportMemory(b, p, "VmRSS", "MB")
				reportMemory(b, p, "VmHWM", "peak-MB")
				p.Kill()
				e.Cluster.Close()
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// endOfCall is a callback of about 550 bytes, of which most are the same as in
// others.
func endOfCall(n, partition int) []byte {
	ended := time.Now().UnixMilli()
	return fmt.Appendf(make([]byte, 0, 600), `{"CallbackCommand":"Call.CallbackAfterEndCall","EventTime":%d,"SdkAppId":1400000000,"CallRecord":{`+
		`"CallId":"0f6c2a4e-90d1-4b7a-%04d-%012d","Caller_Account":"subscriber_%d","MediaType":"Video","CallType":"SingleCall",`+
		`"StartTime":%d,"AcceptTime":%d,"EndTime":%d,"CallResult":"NormalEnd","CalleeList_Account":["subscriber_%d"],"RoomId":"%d","RoomIdType":1,`+
		`"Client":{"os":"Android 15","network":"5G","sdk":"12.4.0.18560","device":"Pixel 9 Pro","region":"eu-frankfurt","quality":"good","hangup":"callee"}}}`,
		ended, partition, n, n, ended-90_000, ended-80_000, ended, n+partition, n)
}

// wireBytes counts the bytes of produced batches, as they are sent.
type wireBytes struct{ atomic.Int64 }

func (w *wireBytes) OnProduceBatchWritten(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.ProduceBatchMetrics) {
	w.Add(int64(m.CompressedBytes))
}
