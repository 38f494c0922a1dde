package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
	"enricher/test/harness"
	"enricher/test/kafka"
)

// The benchmarks of this file run on a real Kafka, with KAFKA_TESTS=1. Requests to
// the API use TCP; the API is part of this process, and of its figures.

// realEnv starts a Kafka with so many partitions.
func realEnv(b *testing.B, partitions int32, api fetchtest.Config) benchEnv {
	b.Helper()
	if os.Getenv("KAFKA_TESTS") == "" {
		b.Skip("not on a real Kafka: set KAFKA_TESTS=1 (needs java and mvn)")
	}
	c, err := kafka.Start(b.Context(), kafka.Config{})
	if err != nil {
		b.Fatal(err)
	}
	e := &env{Env: harness.NewEnv(harness.Connect(b, c.Brokers...), harness.DefaultTopics, api)}
	e.CreateTopics(int(partitions), e.In, e.Enriched, e.Dead)
	server, err := fetchtest.Listen(e.API)
	if err != nil {
		b.Fatal(err)
	}
	return benchEnv{env: e, url: server.URL, close: func() {
		if err := errors.Join(server.Close(), c.Stop()); err != nil {
			b.Error(err)
		}
	}}
}

// BenchmarkKafkaAgainstCopyLoop is BenchmarkAgainstCopyLoop on a real Kafka.
func BenchmarkKafkaAgainstCopyLoop(b *testing.B) {
	againstCopyLoop(b, 2_000_000, func() benchEnv { return realEnv(b, partitions, fetchtest.Config{}) })
}

// BenchmarkKafkaEventRecord compares events that are enriched from their own records
// with the copy loop on the same events, each of a call of its own.
func BenchmarkKafkaEventRecord(b *testing.B) {
	const events = 1_000_000
	record := fetchtest.RecordFor(0, "any")
	event := func(callID string) []byte {
		record.CallID = callID
		return endCallWith(b, &record, time.Now())
	}
	for name, codec := range map[string]kgo.CompressionCodec{
		"gzip": kgo.GzipCompression().WithLevel(1), "lz4": kgo.Lz4Compression(), "none": kgo.NoCompression(),
	} {
		b.Run(name, func(b *testing.B) {
			first := func(e benchEnv) figures {
				return e.pipeline(events, func(c *consumer.Config) { c.EventRecord = consumer.UseFirst })
			}
			againstLoop(b, events, []contender{{"first", events, events, first}}, func() benchEnv {
				e := realEnv(b, partitions, fetchtest.Config{})
				e.event, e.client = event, []kgo.Opt{kgo.ProducerBatchCompression(codec)}
				return e
			})
		})
	}
}

// BenchmarkKafkaFormats compares cache hits in each output format, and with the
// headers of CloudEvents, with the copy loop, which writes JSON. The compression is
// the program's default.
func BenchmarkKafkaFormats(b *testing.B) {
	const events = 1_000_000
	hits := func(name string, change func(*consumer.Config)) contender {
		return contender{name, benchCalls, events, func(e benchEnv) figures { return e.pipeline(events, change) }}
	}
	contenders := []contender{hits("cloud-events", func(c *consumer.Config) {
		c.CloudEvents = &producer.CloudEvents{Subject: producer.SubjectCaller, Format: schemas.JSON}
	})}
	for _, format := range schemas.Formats() {
		encoder := &schemas.Encoder{Format: format}
		contenders = append(contenders, hits(string(format), func(c *consumer.Config) { c.Encode = encoder.Encode }))
	}
	againstLoop(b, events, contenders, func() benchEnv {
		e := realEnv(b, partitions, fetchtest.Config{})
		e.client = []kgo.Opt{kgo.ProducerBatchCompression(kgo.GzipCompression().WithLevel(1))}
		return e
	})
}

// BenchmarkKafkaGrowth shows how the cost of an event grows with the partitions
// and with the backlog, for cache hits and for the copy loop.
func BenchmarkKafkaGrowth(b *testing.B) {
	for _, c := range []struct {
		name               string
		partitions, events int
	}{
		{"1-partition", 1, 1_000_000},
		{"12-partitions", 12, 1_000_000},
		{"100-partitions", 100, 1_000_000},
		{"12-partitions-short-backlog", 12, 200_000},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				run := func(contender func(benchEnv) figures) figures {
					e := realEnv(b, int32(c.partitions), fetchtest.Config{})
					e.fill(c.partitions, benchCalls, c.events)
					f := contender(e)
					e.close()
					return f
				}
				loop := run(func(e benchEnv) figures { return e.loop(c.events, 200*time.Millisecond) })
				hits := run(func(e benchEnv) figures { return e.pipeline(c.events) })
				loop.report(b, "loop")
				hits.report(b, "hits")
				b.ReportMetric(float64(hits.cpu)/float64(loop.cpu), "hits÷loop-cpu")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkKafkaCached shows how it grows with the cache. The events are fed
// while the meter runs, so the figures hold the feeder's work as well.
func BenchmarkKafkaCached(b *testing.B) {
	const events = 300_000
	for _, calls := range []int{1_000, 100_000, 1_000_000} {
		b.Run(strconv.Itoa(calls), func(b *testing.B) {
			for b.Loop() {
				e := realEnv(b, partitions, fetchtest.Config{})
				e.fill(partitions, calls, calls)
				i, stop := e.run(unlimited, func(c *consumer.Config) { c.CacheSize, c.CacheBytes = calls, 4<<30 })
				awaitOutcomes(i, calls)
				m := startMeter()
				e.fill(partitions, calls, events)
				awaitOutcomes(i, calls+events)
				f := m.read(events)
				stop()
				e.close()
				f.report(b, "events")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkKafkaLatency feeds 150 events a second, evenly spaced, to one
// instance, and times each from the moment it was meant to be sent until a
// read_committed reader has its enriched record. The API takes 50 ms; in the
// second part 1 to 4 s for every tenth call, which is not counted itself. Neither
// are the first 20 s: a new broker takes seconds for its first transaction.
func BenchmarkKafkaLatency(b *testing.B) {
	const perSecond, usual = 150, 50 * time.Millisecond
	const warmUp = 20 * perSecond
	events := warmUp + 30_000
	if testing.Short() {
		events = warmUp + 1_500
	}
	for _, slow := range []bool{false, true} {
		b.Run(fmt.Sprintf("slow=%v", slow), func(b *testing.B) {
			late := func(n int) bool { return slow && n%10 == 0 }
			for b.Loop() {
				e := realEnv(b, partitions, fetchtest.Config{Latency: func(callID string) time.Duration {
					if n := callNumber(callID); late(n) {
						return time.Second + time.Duration(n*37%3001)*time.Millisecond
					}
					return usual
				}})
				i, stop := e.run(func(c *consumer.Config) { c.Retry.LookupDelay = 0 })
				for len(i.Ready()) > 0 {
					<-time.After(10 * time.Millisecond)
				}
				var took []time.Duration
				for n, d := range e.timeEvents(events, time.Second/perSecond) {
					if n >= warmUp && !late(n) {
						took = append(took, d)
					}
				}
				stop()
				e.close()
				reportLatency(b, took)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func callNumber(callID string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(callID, "call-"))
	if err != nil {
		panic(err)
	}
	return n
}

// timeEvents feeds events of a call each at even intervals, and returns how long
// it took from the moment each was due until a reader had its enriched record.
func (e benchEnv) timeEvents(events int, every time.Duration) []time.Duration {
	e.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(events)*every+time.Minute)
	defer cancel()
	feeder, err := kgo.NewClient(append(e.Opts(), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		e.T.Fatal(err)
	}
	defer feeder.Close()
	reader, err := kgo.NewClient(append(e.Opts(), kgo.ConsumeTopics(e.Enriched),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		e.T.Fatal(err)
	}
	defer reader.Close()
	start := time.Now().Add(time.Second)
	due := func(n int) time.Time { return start.Add(time.Duration(n) * every) }
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for n := range events {
			<-time.After(time.Until(due(n)))
			feeder.Produce(ctx, &kgo.Record{
				Topic: e.In, Partition: int32(n % partitions), Value: audittest.EndCall("call-"+strconv.Itoa(n), due(n)),
			}, e.mustFeed)
		}
	}()
	took := make([]time.Duration, events)
	for n := 0; n < events; {
		fetches := reader.PollFetches(ctx)
		now := time.Now()
		if err := fetches.Err(); err != nil {
			e.T.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			took[callNumber(string(r.Key))] = now.Sub(due(callNumber(string(r.Key))))
			n++
		})
	}
	<-fed
	return took
}

// reportLatency reports quantiles, and prints a histogram.
func reportLatency(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99.9", .999}, {"max", 1}} {
		b.ReportMetric(float64(took[int(q.at*float64(len(took)-1))].Microseconds())/1000, q.name+"-ms")
	}
	const step = 10 * time.Millisecond
	for i, at := 0, time.Duration(0); i < len(took); at += step {
		n := 0
		for i < len(took) && took[i] < at+step {
			i++
			n++
		}
		if n > 0 {
			_, _ = fmt.Fprintf(os.Stderr, "%4d to %4d ms %6d %s\n", at.Milliseconds(), (at + step).Milliseconds(), n, strings.Repeat("#", n*200/len(took)))
		}
	}
}

// BenchmarkKafkaLongRun is the resident memory of a process with a full cache
// that is renewed all the time: every event is a call of its own.
func BenchmarkKafkaLongRun(b *testing.B) {
	const lap, laps = 500_000, 5
	for b.Loop() {
		e := realEnv(b, partitions, fetchtest.Config{})
		p := e.spawn(childInstance{API: e.url, Instance: "a", Unlimited: true})
		for n := 1; n <= laps; n++ {
			for k := range lap {
				id := benchCall((n-1)*lap + k)
				e.Client.Produce(context.Background(), &kgo.Record{Topic: e.In, Partition: int32(k % partitions), Value: audittest.EndCall(id, time.Now())}, e.mustFeed)
			}
			for e.API.Requests() < n*lap {
				<-time.After(100 * time.Millisecond)
			}
			reportMemory(b, p, "VmRSS", fmt.Sprintf("MB-after-%.1fM", float64(n*lap)/1e6))
		}
		p.Kill()
		e.close()
	}
	b.ReportMetric(0, "ns/op")
}
