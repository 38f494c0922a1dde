package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
	"enricher/test/kafka"
)

// The benchmarks of this file run on a real Kafka, with KAFKA_TESTS=1. The API
// is asked over TCP; it is part of this process, and of its figures.

// realWorld starts a Kafka with so many partitions.
func realWorld(b *testing.B, partitions int32, api fetchtest.Config) benchWorld {
	b.Helper()
	if os.Getenv("KAFKA_TESTS") == "" {
		b.Skip("not on a real Kafka: set KAFKA_TESTS=1 (needs java and mvn)")
	}
	c, err := kafka.Start(b.Context(), kafka.Config{})
	if err != nil {
		b.Fatal(err)
	}
	w := joinWorld(b, api, new(net.Dialer).DialContext, c.Brokers)
	created, err := kadm.NewClient(w.feeder).CreateTopics(b.Context(), partitions, 1, nil, w.In, w.Out, w.Dead)
	if err = errors.Join(err, created.Error()); err != nil {
		b.Fatal(err)
	}
	server, err := fetchtest.Listen(w.api)
	if err != nil {
		b.Fatal(err)
	}
	return benchWorld{world: w, url: server.URL, close: func() {
		if err := errors.Join(server.Close(), c.Stop()); err != nil {
			b.Error(err)
		}
	}}
}

// BenchmarkKafkaAgainstCopyLoop is BenchmarkAgainstCopyLoop on a real Kafka.
func BenchmarkKafkaAgainstCopyLoop(b *testing.B) {
	againstCopyLoop(b, 2_000_000, func() benchWorld { return realWorld(b, partitions, fetchtest.Config{}) })
}

// BenchmarkKafkaGrowth shows how the cost of an event grows with the partitions
// and with the backlog; all events are cache hits.
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
				w := realWorld(b, int32(c.partitions), fetchtest.Config{})
				w.fill(c.partitions, benchCalls, c.events)
				f := w.pipeline(c.events)
				w.close()
				f.report(b, "events")
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
				w := realWorld(b, partitions, fetchtest.Config{})
				w.fill(partitions, calls, calls)
				i, stop := w.run(unlimited, func(c *consumer.Config) { c.CacheSize, c.CacheBytes = calls, 4<<30 })
				i.outcomes(calls)
				m := startMeter()
				w.fill(partitions, calls, events)
				i.outcomes(calls + events)
				f := m.read(events)
				stop()
				w.close()
				f.report(b, "events")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkKafkaLatency feeds 150 events a second, evenly spaced, to one
// instance, and times each from the moment it was meant to be sent until a
// read_committed reader has its enriched record. The API takes 50 ms; in the
// second part 1 to 4 s for every tenth call, which is not counted itself.
func BenchmarkKafkaLatency(b *testing.B) {
	const perSecond, usual = 150, 50 * time.Millisecond
	events := 30_000
	if testing.Short() {
		events = 1_500
	}
	for _, slow := range []bool{false, true} {
		b.Run(fmt.Sprintf("slow=%v", slow), func(b *testing.B) {
			late := func(n int) bool { return slow && n%10 == 0 }
			for b.Loop() {
				w := realWorld(b, partitions, fetchtest.Config{Latency: func(callID string) time.Duration {
					if n := callNumber(callID); late(n) {
						return time.Second + time.Duration(n*37%3001)*time.Millisecond
					}
					return usual
				}})
				i, stop := w.run(func(c *consumer.Config) { c.Retry.LookupDelay = 0 })
				for len(i.Ready()) > 0 {
					<-time.After(10 * time.Millisecond)
				}
				var took []time.Duration
				for n, d := range w.timeEvents(events, time.Second/perSecond) {
					if !late(n) {
						took = append(took, d)
					}
				}
				stop()
				w.close()
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
func (w benchWorld) timeEvents(events int, every time.Duration) []time.Duration {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(events)*every+time.Minute)
	defer cancel()
	feeder, err := kgo.NewClient(append(w.opts(), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer feeder.Close()
	reader, err := kgo.NewClient(append(w.opts(), kgo.ConsumeTopics(w.Out),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		w.t.Fatal(err)
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
				Topic: w.In, Partition: int32(n % partitions), Value: callback("call-"+strconv.Itoa(n), due(n)),
			}, w.mustFeed)
		}
	}()
	took := make([]time.Duration, events)
	for n := 0; n < events; {
		fetches := reader.PollFetches(ctx)
		now := time.Now()
		if err := fetches.Err(); err != nil {
			w.t.Fatal(err)
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
		w := realWorld(b, partitions, fetchtest.Config{})
		p := w.spawnAs(victim{Brokers: w.brokers, API: w.url, Instance: "a", Unlimited: true})
		for n := 1; n <= laps; n++ {
			for k := range lap {
				id := benchCall((n-1)*lap + k)
				w.feeder.Produce(context.Background(), &kgo.Record{Topic: w.In, Partition: int32(k % partitions), Value: callback(id, time.Now())}, w.mustFeed)
			}
			for w.api.Requests() < n*lap {
				<-time.After(100 * time.Millisecond)
			}
			b.ReportMetric(p.resident(b, "VmRSS"), fmt.Sprintf("MB-after-%.1fM", float64(n*lap)/1e6))
		}
		p.kill()
		w.close()
	}
	b.ReportMetric(0, "ns/op")
}
