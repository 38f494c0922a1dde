package consumer_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
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
	benchLookups = 600_000 // events, each of a call of its own
	benchCalls   = 1_000   // the events of the cache's benchmark are of so many calls
	benchRounds  = 3
)

// figures are what a contender reached: events a second, and for each event the
// CPU time and the allocations of this process.
type figures struct {
	perSecond float64
	cpu       time.Duration
	allocs    float64
}

func (f figures) report(b *testing.B, name string) {
	b.ReportMetric(f.perSecond, name+"/s")
	b.ReportMetric(float64(f.cpu.Nanoseconds())/1000, name+"-cpu-µs")
	b.ReportMetric(f.allocs, name+"-allocs")
}

// meter measures figures.
type meter struct {
	start  time.Time
	cpu    time.Duration
	allocs uint64
}

func startMeter() meter {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return meter{time.Now(), cpuTime(), m.Mallocs}
}

func (m meter) read(events int) figures {
	now := startMeter()
	return figures{
		perSecond: float64(events) / now.start.Sub(m.start).Seconds(),
		cpu:       (now.cpu - m.cpu) / time.Duration(events),
		allocs:    float64(now.allocs-m.allocs) / float64(events),
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for wrong arguments only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAgainstCopyLoop compares the pipeline with a bare exactly-once copy
// loop on the same embedded broker, in the same run, taking turns. Cache hits
// and lookups, here of an API in memory, are the pipeline's two extremes. Broker
// and API are part of this process and its CPU time.
func BenchmarkAgainstCopyLoop(b *testing.B) {
	againstCopyLoop(b, 600_000, func() benchWorld {
		w := makeWorld(b, fetchtest.Config{}, new(net.Dialer).DialContext)
		return benchWorld{world: w, url: "http://127.0.0.1", memory: true, close: w.cluster.Close}
	})
}

// againstCopyLoop lets the contenders take turns with so many events, each in a
// world of its own, and reports the median of each.
func againstCopyLoop(b *testing.B, events int, world func() benchWorld) {
	b.Helper()
	contenders := []struct {
		name          string
		calls, events int
		run           func(benchWorld) figures
	}{
		{"loop-50ms", benchCalls, events, func(w benchWorld) figures { return w.loop(events, 50*time.Millisecond) }},
		{"loop-200ms", benchCalls, events, func(w benchWorld) figures { return w.loop(events, 200*time.Millisecond) }},
		{"loop-1s", benchCalls, events, func(w benchWorld) figures { return w.loop(events, time.Second) }},
		{"hits", benchCalls, events, func(w benchWorld) figures { return w.pipeline(events) }},
		{"lookups", benchLookups, benchLookups, func(w benchWorld) figures { return w.pipeline(benchLookups) }},
	}
	rounds := benchRounds
	if testing.Short() {
		rounds = 1
	}
	for b.Loop() {
		all := make(map[string][]figures)
		for range rounds {
			for _, c := range contenders {
				w := world()
				w.fill(partitions, c.calls, c.events)
				all[c.name] = append(all[c.name], c.run(w))
				w.close()
			}
		}
		median := func(name string) figures {
			fs := all[name]
			slices.SortFunc(fs, func(x, y figures) int { return cmp.Compare(x.perSecond, y.perSecond) })
			return fs[len(fs)/2]
		}
		best := 0.0
		for _, c := range contenders {
			m := median(c.name)
			if strings.HasPrefix(c.name, "loop") {
				best = max(best, m.perSecond)
			}
			m.report(b, c.name)
		}
		b.ReportMetric(median("hits").perSecond/best, "hits÷loop")
		b.ReportMetric(median("lookups").perSecond/best, "lookups÷loop")
	}
	b.ReportMetric(0, "ns/op")
}

// benchWorld is a world for one contender.
type benchWorld struct {
	*world
	url    string // of the API
	memory bool   // the API is reached in memory
	close  func()
}

// fill feeds events of that many calls to so many partitions.
func (w benchWorld) fill(partitions, calls, events int) {
	w.t.Helper()
	for n := range events {
		w.feeder.Produce(context.Background(), &kgo.Record{
			Topic: w.In, Partition: int32(n % partitions), Value: callback(benchCall(n%calls), time.Now()),
		}, w.mustFeed)
	}
	if err := w.feeder.Flush(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

func (w benchWorld) mustFeed(_ *kgo.Record, err error) {
	if err != nil {
		w.t.Error(err)
	}
}

func benchCall(n int) string { return "8a1f77c2-4be0-4d51-9d0c-" + fmt.Sprintf("%012d", n) }

// loop is the bare loop: poll, decode the CallId, encode an enriched record,
// produce, and end the transaction every so often.
func (w benchWorld) loop(events int, every time.Duration) figures {
	w.t.Helper()
	m := startMeter()
	s, err := kgo.NewGroupTransactSession(append(w.opts(),
		kgo.ConsumerGroup("loop"), kgo.ConsumeTopics(w.In), kgo.TransactionalID("loop"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchMaxBytes(16<<20),
		kgo.ProducerBatchMaxBytes(1048588), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))...)
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.CloseAllowingRebalance()
	record := fetchtest.RecordFor(0, "any")
	out := producer.RecordBuilder{EnrichedTopic: w.Out, SDKAppID: "1400000000"}
	ctx := context.Background()
	for done, open := 0, 0; done < events; {
		if err := s.Begin(); err != nil {
			w.t.Fatal(err)
		}
		var failed kgo.FirstErrPromise
		for deadline := time.Now().Add(every); time.Now().Before(deadline) && done+open < events; {
			poll, cancel := context.WithDeadline(ctx, deadline)
			fetches := s.PollRecords(poll, 10_000)
			cancel()
			fetches.EachRecord(func(r *kgo.Record) {
				e, err := schemas.ParseEvent(r.Value)
				if err != nil {
					w.t.Error(err)
				}
				record.CallID = e.CallID
				s.Produce(ctx, out.Enriched(r, e.CallID, schemas.Enrich(&record).Encode(), "miss", "request"), failed.Promise())
				open++
			})
		}
		if err := s.Client().Flush(ctx); err != nil || failed.Err() != nil {
			w.t.Fatal(err, failed.Err())
		}
		ok, err := s.End(ctx, kgo.TryCommit)
		if err != nil || !ok {
			w.t.Fatal("the loop's transaction did not commit: ", err)
		}
		done, open = done+open, 0
		s.AllowRebalance()
	}
	return m.read(events)
}

// pipeline is the program, with an API that takes no time, until so many events
// have their outcome. When there are fewer calls than events, nearly all of them
// are cache hits.
func (w benchWorld) pipeline(events int, change ...func(*consumer.Config)) figures {
	w.t.Helper()
	m := startMeter()
	i, stop := w.run(append(change, unlimited)...)
	defer stop()
	i.outcomes(events)
	return m.read(events)
}

func unlimited(c *consumer.Config) { c.APIRate, c.Retry.LookupDelay = 0, 0 }

// outcomes waits until so many events have theirs.
func (i *instance) outcomes(n int) {
	for i.metric("enricher_events_total") < float64(n) {
		<-time.After(2 * time.Millisecond)
	}
}

// run runs the program. Unlike world.start it puts nothing between the program
// and the broker.
func (w benchWorld) run(change ...func(*consumer.Config)) (i *instance, stop func()) {
	w.t.Helper()
	var transport http.RoundTripper
	if w.memory {
		transport = fetchtest.Transport(w.api)
	}
	i = &instance{w: w.world, reg: prometheus.NewRegistry()}
	cfg, err := config("a", w.url, transport, i.reg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.apply(&cfg)
	cfg.Kafka = w.opts
	for _, c := range change {
		c(&cfg)
	}
	i.Consumer, err = consumer.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- i.Run(ctx) }()
	return i, func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
		cfg.Client.Close()
	}
}

// BenchmarkMemory is the resident memory of a process with 100,000 records in
// the cache and 20,000 events in flight.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		w := benchWorld{world: makeWorld(b, fetchtest.Config{}, new(net.Dialer).DialContext)}
		w.fill(partitions, 100_000, 100_000)
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
			w.feeder.Produce(context.Background(), &kgo.Record{Topic: w.In, Partition: int32(n % partitions), Value: callback(id, time.Now())}, w.mustFeed)
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
