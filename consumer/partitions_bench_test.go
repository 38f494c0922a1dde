package consumer_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/test/harness"
)

// BenchmarkPartitions shows how the cost of an event grows with the partitions
// of the input topic, for cache hits and for the copy loop, which take turns on
// the same embedded broker. CPU time includes the broker's.
func BenchmarkPartitions(b *testing.B) {
	for _, n := range []int{12, 100, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			const events = 300_000
			for b.Loop() {
				run := func(contender func(benchEnv) figures) figures {
					e := manyPartitions(b, n)
					e.fill(n, benchCalls, events)
					f := contender(e)
					e.close()
					return f
				}
				loop := run(func(e benchEnv) figures { return e.loop(events, 200*time.Millisecond) })
				hits := run(func(e benchEnv) figures { return e.pipeline(events) })
				loop.report(b, "loop")
				hits.report(b, "hits")
				b.ReportMetric(float64(hits.cpu)/float64(loop.cpu), "hits÷loop-cpu")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// manyPartitions is an environment whose input topic has so many partitions.
func manyPartitions(b *testing.B, partitions int) benchEnv {
	b.Helper()
	t := harness.DefaultTopics
	broker := harness.OnLoopback(b, kfake.SeedTopics(int32(partitions), t.In), kfake.SeedTopics(harness.Partitions, t.Enriched, t.Dead))
	e := &env{Env: harness.NewEnv(broker, t, fetchtest.Config{})}
	return benchEnv{env: e, url: "http://127.0.0.1", memory: true, close: e.Cluster.Close}
}

// BenchmarkQuietPartitions is the CPU time that 100 events a second take, in
// percent of one processor, for the pipeline and for the copy loop. It includes
// the broker's and the feeder's.
func BenchmarkQuietPartitions(b *testing.B) {
	const perSecond, seconds = 100, 15
	for _, n := range []int{12, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				run := func(contender func(benchEnv, int) figures) float64 {
					e := manyPartitions(b, n)
					e.fill(n, benchCalls, n) // so that every partition has a committed offset
					fed := make(chan struct{})
					go func() {
						defer close(fed)
						for i := range perSecond * seconds {
							<-time.After(time.Second / perSecond)
							e.Client.Produce(context.Background(), &kgo.Record{
								Topic: e.In, Partition: int32(i * 7919 % n), Value: audittest.EndCall(benchCall(i%benchCalls), time.Now()),
							}, e.mustFeed)
						}
					}()
					events := n + perSecond*seconds
					f := contender(e, events)
					<-fed
					e.close()
					return 100 * (f.cpu * time.Duration(events)).Seconds() / seconds
				}
				loop := run(func(e benchEnv, events int) figures { return e.loop(events, 50*time.Millisecond) })
				hits := run(func(e benchEnv, events int) figures { return e.pipeline(events) })
				b.ReportMetric(loop, "loop-cpu-%")
				b.ReportMetric(hits, "hits-cpu-%")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
