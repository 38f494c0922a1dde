package consumer_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
)

const (
	benchEvents = 600_000
	benchCalls  = 1_000 // the events of the cache's benchmark are of so many calls
	benchRounds = 3
)

// figures are what a contender reached: events a second, and CPU time of this
// process (broker and simulated API included) for each event.
type figures struct {
	perSecond float64
	cpu       time.Duration
}

// BenchmarkAgainstCopyLoop compares the pipeline with a bare exactly-once copy
// loop on the same embedded broker, in the same run, taking turns. Cache hits
// and lookups are the pipeline's two extremes.
func BenchmarkAgainstCopyLoop(b *testing.B) {
	contenders := []struct {
		name string
		run  func(*testing.B) figures
	}{
		{"loop-50ms", func(b *testing.B) figures { return benchLoop(b, 50*time.Millisecond) }},
		{"loop-200ms", func(b *testing.B) figures { return benchLoop(b, 200*time.Millisecond) }},
		{"loop-1s", func(b *testing.B) figures { return benchLoop(b, time.Second) }},
		{"hits", func(b *testing.B) figures { return benchPipeline(b, benchCalls) }},
		{"lookups", func(b *testing.B) figures { return benchPipeline(b, benchEvents) }},
	}
	for b.Loop() {
		all := make(map[string][]figures)
		for range benchRounds {
			for _, c := range contenders {
				all[c.name] = append(all[c.name], c.run(b))
			}
		}
		median := func(name string) figures {
			fs := all[name]
			slices.SortFunc(fs, func(x, y figures) int { return int(x.perSecond - y.perSecond) })
			return fs[len(fs)/2]
		}
		best := 0.0
		for _, c := range contenders {
			m := median(c.name)
			if strings.HasPrefix(c.name, "loop") {
				best = max(best, m.perSecond)
			}
			b.ReportMetric(m.perSecond, c.name+"/s")
			b.ReportMetric(float64(m.cpu.Nanoseconds())/1000, c.name+"-cpu-µs")
		}
		b.ReportMetric(median("hits").perSecond/best, "hits÷loop")
		b.ReportMetric(median("lookups").perSecond/best, "lookups÷loop")
	}
	b.ReportMetric(0, "ns/op")
}

// benchWorld has events of that many calls on all partitions.
func benchWorld(b *testing.B, calls, events int) *world {
	b.Helper()
	w := makeWorld(b, fetchtest.Config{}, new(net.Dialer).DialContext)
	for n := range events {
		w.feeder.Produce(context.Background(), &kgo.Record{
			Topic: inTopic, Partition: int32(n % partitions), Value: callback(benchCall(n%calls), time.Now()),
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	if err := w.feeder.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	return w
}

func benchCall(n int) string { return "8a1f77c2-4be0-4d51-9d0c-" + fmt.Sprintf("%012d", n) }

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for wrong arguments only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchLoop is the bare loop: poll, decode the CallId, encode an enriched
// record, produce, and end the transaction every so often.
func benchLoop(b *testing.B, every time.Duration) figures {
	b.Helper()
	w := benchWorld(b, benchCalls, benchEvents)
	defer w.cluster.Close()
	start, cpu := time.Now(), cpuTime()
	s, err := kgo.NewGroupTransactSession(append(w.opts(),
		kgo.ConsumerGroup("loop"), kgo.ConsumeTopics(inTopic), kgo.TransactionalID("loop"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchMaxBytes(16<<20),
		kgo.ProducerBatchMaxBytes(1048588), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))...)
	if err != nil {
		b.Fatal(err)
	}
	defer s.CloseAllowingRebalance()
	record := fetchtest.RecordFor(0, "any")
	out := producer.Outputs{EnrichedTopic: outTopic, SDKAppID: "1400000000"}
	ctx := context.Background()
	for done, open := 0, 0; done < benchEvents; {
		if err := s.Begin(); err != nil {
			b.Fatal(err)
		}
		var failed kgo.FirstErrPromise
		for deadline := time.Now().Add(every); time.Now().Before(deadline) && done+open < benchEvents; {
			poll, cancel := context.WithDeadline(ctx, deadline)
			fetches := s.PollRecords(poll, 10_000)
			cancel()
			fetches.EachRecord(func(r *kgo.Record) {
				e, err := schemas.ParseEvent(r.Value)
				if err != nil {
					b.Error(err)
				}
				record.CallID = e.CallID
				s.Produce(ctx, out.Enriched(r, e.CallID, schemas.Enrich(&record).Encode(), false, "request"), failed.Promise())
				open++
			})
		}
		if err := s.Client().Flush(ctx); err != nil || failed.Err() != nil {
			b.Fatal(err, failed.Err())
		}
		ok, err := s.End(ctx, kgo.TryCommit)
		if err != nil || !ok {
			b.Fatal("the loop's transaction did not commit: ", err)
		}
		done, open = done+open, 0
		s.AllowRebalance()
	}
	return figures{benchEvents / time.Since(start).Seconds(), (cpuTime() - cpu) / benchEvents}
}

// benchPipeline is the program, with an API that takes no time. When there are
// fewer calls than events, the records of all of them are in the cache before.
func benchPipeline(b *testing.B, calls int) figures {
	b.Helper()
	w := benchWorld(b, calls, benchEvents)
	defer w.cluster.Close()
	reg := prometheus.NewRegistry()
	cfg, err := config("a", "http://127.0.0.1", fetchtest.Transport(w.api), reg)
	if err != nil {
		b.Fatal(err)
	}
	cfg.Kafka = w.opts
	cfg.APIRate, cfg.Schedule.Settle = 0, 0
	c, err := consumer.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	i := &instance{w: w, reg: reg}
	start, cpu := time.Now(), cpuTime()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	for i.metric("enricher_events_total") < benchEvents {
		<-time.After(2 * time.Millisecond)
	}
	f := figures{benchEvents / time.Since(start).Seconds(), (cpuTime() - cpu) / benchEvents}
	stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	return f
}

// BenchmarkMemory is the resident memory of a process with 100,000 records in
// the cache and 20,000 events in flight.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		w := benchWorld(b, 100_000, 100_000)
		server, err := fetchtest.Listen(w.api)
		if err != nil {
			b.Fatal(err)
		}
		p := w.spawnAs(victim{Brokers: w.brokers, API: server.URL, Instance: "a", Unlimited: true})
		for len(w.outputs()) < 100_000 {
			<-time.After(500 * time.Millisecond)
		}
		b.ReportMetric(p.resident(b, "VmRSS"), "cached-MB")
		for n := range 20_000 {
			id := "never-" + strconv.Itoa(n)
			w.api.Never(id)
			w.feeder.Produce(context.Background(), &kgo.Record{Topic: inTopic, Partition: int32(n % partitions), Value: callback(id, time.Now())}, func(_ *kgo.Record, err error) {
				if err != nil {
					b.Error(err)
				}
			})
		}
		if err := w.feeder.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
		for w.api.UniqueCallIDs() < 120_000 {
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(10 * time.Second) // some rounds of repeats
		b.ReportMetric(p.resident(b, "VmRSS"), "in-flight-MB")
		b.ReportMetric(p.resident(b, "VmHWM"), "peak-MB")
		p.kill()
		if err := server.Close(); err != nil {
			b.Fatal(err)
		}
		w.cluster.Close()
	}
	b.ReportMetric(0, "ns/op")
}

// resident reads a figure of the process's status, in MB.
func (p *process) resident(b *testing.B, field string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		b.Skip("resident memory is read from /proc: ", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			if err != nil {
				b.Fatal(err)
			}
			return float64(kb) / 1000
		}
	}
	b.Fatalf("no %s in the process's status", field)
	return 0
}
