package consumer_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
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
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
	"enricher/test/harness"
)

const (
	benchLookups = 600_000 // events, each of a call of its own
	benchCalls   = 1_000   // the events of the cache's benchmark are of so many calls
	benchRounds  = 3
)

// figures are a contender's events per second and, for each event, the CPU time and
// the allocations of this process.
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
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails only for wrong arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAgainstCopyLoop compares the pipeline with a bare exactly-once copy
// loop on the same embedded broker, in the same run, taking turns. Cache hits
// and lookups, here of an API in memory, are the pipeline's two extremes. Broker
// and API are part of this process and its CPU time.
func BenchmarkAgainstCopyLoop(b *testing.B) {
	againstCopyLoop(b, 600_000, func() benchEnv {
		e := childEnv(b, fetchtest.Config{})
		return benchEnv{env: e, url: "http://127.0.0.1", memory: true, close: e.Cluster.Close}
	})
}

// againstCopyLoop lets the contenders take turns with so many events, each in an
// environment of its own, and reports the median of each.
func againstCopyLoop(b *testing.B, events int, start func() benchEnv) {
	b.Helper()
	againstLoop(b, events, []contender{
		{"hits", benchCalls, events, func(e benchEnv) figures { return e.pipeline(events) }},
		{"lookups", benchLookups, benchLookups, func(e benchEnv) figures { return e.pipeline(benchLookups) }},
	}, start)
}

// contender processes so many events of so many calls.
type contender struct {
	name          string
	calls, events int
	run           func(benchEnv) figures
}

// againstLoop lets contenders take turns with the copy loop.
func againstLoop(b *testing.B, events int, others []contender, start func() benchEnv) {
	b.Helper()
	calls := others[0].calls
	contenders := append([]contender{
		{"loop-50ms", calls, events, func(e benchEnv) figures { return e.loop(events, 50*time.Millisecond) }},
		{"loop-200ms", calls, events, func(e benchEnv) figures { return e.loop(events, 200*time.Millisecond) }},
		{"loop-1s", calls, events, func(e benchEnv) figures { return e.loop(events, time.Second) }},
	}, others...)
	rounds := benchRounds
	if testing.Short() {
		rounds = 1
	}
	for b.Loop() {
		all := make(map[string][]figures)
		for range rounds {
			for _, c := range contenders {
				e := start()
				e.fill(partitions, c.calls, c.events)
				all[c.name] = append(all[c.name], c.run(e))
				e.close()
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
		for _, c := range others {
			b.ReportMetric(median(c.name).perSecond/best, c.name+"÷loop")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// benchEnv is the environment of one contender.
type benchEnv struct {
	*env
	url    string                     // of the API
	memory bool                       // the API is reached in memory
	event  func(callID string) []byte // nil: a callback with no more than a CallId
	client []kgo.Opt                  // of loop and pipeline
	close  func()
}

// fill feeds events of that many calls to so many partitions.
func (e benchEnv) fill(partitions, calls, events int) {
	e.T.Helper()
	event := e.event
	if event == nil {
		event = func(callID string) []byte { return audittest.EndCall(callID, time.Now()) }
	}
	for n := range events {
		e.Client.Produce(context.Background(), &kgo.Record{
			Topic: e.In, Partition: int32(n % partitions), Value: event(benchCall(n % calls)),
		}, e.mustFeed)
	}
	if err := e.Client.Flush(context.Background()); err != nil {
		e.T.Fatal(err)
	}
}

func (e benchEnv) mustFeed(_ *kgo.Record, err error) {
	if err != nil {
		e.T.Error(err)
	}
}

func benchCall(n int) string { return "8a1f77c2-4be0-4d51-9d0c-" + fmt.Sprintf("%012d", n) }

// loop is the bare loop: poll, decode the CallId, encode an enriched record,
// produce, and end the transaction every so often.
func (e benchEnv) loop(events int, every time.Duration) figures {
	e.T.Helper()
	m := startMeter()
	s, err := kgo.NewGroupTransactSession(append(append(e.Opts(), e.client...),
		kgo.ConsumerGroup("loop"), kgo.ConsumeTopics(e.In), kgo.TransactionalID("loop"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchMaxBytes(16<<20),
		kgo.ProducerBatchMaxBytes(1048588), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))...)
	if err != nil {
		e.T.Fatal(err)
	}
	defer s.CloseAllowingRebalance()
	record := fetchtest.RecordFor(0, "any")
	out := producer.RecordBuilder{EnrichedTopic: e.Enriched, SDKAppID: "1400000000"}
	ctx := context.Background()
	for done, open := 0, 0; done < events; {
		if err := s.Begin(); err != nil {
			e.T.Fatal(err)
		}
		var failed kgo.FirstErrPromise
		for deadline := time.Now().Add(every); time.Now().Before(deadline) && done+open < events; {
			poll, cancel := context.WithDeadline(ctx, deadline)
			fetches := s.PollRecords(poll, 10_000)
			cancel()
			fetches.EachRecord(func(r *kgo.Record) {
				event, err := schemas.ParseEvent(r.Value)
				if err != nil {
					e.T.Error(err)
				}
				record.CallID = event.CallID
				s.Produce(ctx, out.Enriched(r, producer.Enrichment{
					CallID: event.CallID, Encoded: schemas.EncodeJSON(&record), RecordSource: schemas.FromAPI, Cache: "miss", RequestID: "request",
				}), failed.Promise())
				open++
			})
		}
		if err := s.Client().Flush(ctx); err != nil || failed.Err() != nil {
			e.T.Fatal(err, failed.Err())
		}
		ok, err := s.End(ctx, kgo.TryCommit)
		if err != nil || !ok {
			e.T.Fatal("the loop's transaction did not commit: ", err)
		}
		done, open = done+open, 0
		s.AllowRebalance()
	}
	return m.read(events)
}

// pipeline is the program, with an API that takes no time, until so many events
// have their outcome. When there are fewer calls than events, nearly all of them
// are cache hits.
func (e benchEnv) pipeline(events int, change ...func(*consumer.Config)) figures {
	e.T.Helper()
	m := startMeter()
	i, stop := e.run(append(change, unlimited)...)
	defer stop()
	awaitOutcomes(i, events)
	return m.read(events)
}

func unlimited(c *consumer.Config) { c.APIRate, c.Retry.LookupDelay = 0, 0 }

// awaitOutcomes waits until so many events have their outcome.
func awaitOutcomes(i *harness.Instance, n int) {
	for i.Metric("enricher_events_total") < float64(n) {
		<-time.After(20 * time.Millisecond) // each look costs as much as a few hundred events
	}
}

// run runs the program. Unlike env.start it puts nothing between the program and
// the broker.
func (e benchEnv) run(change ...func(*consumer.Config)) (i *harness.Instance, stop func()) {
	e.T.Helper()
	var transport http.RoundTripper
	if e.memory {
		transport = fetchtest.Transport(e.API)
	}
	i = &harness.Instance{T: e.T, Registry: prometheus.NewRegistry()}
	cfg, err := harness.Config("a", e.url, transport, i.Registry)
	if err != nil {
		e.T.Fatal(err)
	}
	e.Apply(&cfg)
	cfg.Kafka = func() []kgo.Opt { return append(e.Opts(), e.client...) }
	for _, c := range change {
		c(&cfg)
	}
	i.Consumer, err = consumer.New(cfg)
	if err != nil {
		e.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- i.Run(ctx) }()
	return i, func() {
		cancel()
		if err := <-ended; err != nil {
			e.T.Error(err)
		}
		cfg.Client.Close()
	}
}

// BenchmarkMemory is the resident memory of a process with 100,000 records in
// the cache and 20,000 events in flight.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		e := benchEnv{env: childEnv(b, fetchtest.Config{})}
		e.fill(partitions, 100_000, 100_000)
		p := e.spawn(childInstance{API: e.serveAPI(), Instance: "a", Unlimited: true})
		for len(e.Outputs()) < 100_000 {
			<-time.After(500 * time.Millisecond)
		}
		reportMemory(b, p, "VmRSS", "cached-MB")
		for n := range 20_000 {
			id := "never-" + strconv.Itoa(n)
			e.API.Never(id)
			e.Client.Produce(context.Background(), &kgo.Record{Topic: e.In, Partition: int32(n % partitions), Value: audittest.EndCall(id, time.Now())}, e.mustFeed)
		}
		if err := e.Client.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
		for e.API.UniqueCallIDs() < 120_000 {
			<-time.After(100 * time.Millisecond)
		}
		<-time.After(10 * time.Second) // some rounds of repeats
		reportMemory(b, p, "VmRSS", "in-flight-MB")
		reportMemory(b, p, "VmHWM", "peak-MB")
		p.Kill()
		e.Cluster.Close()
	}
	b.ReportMetric(0, "ns/op")
}

// reportMemory reports a field of a process's status.
func reportMemory(b *testing.B, p *harness.Process, field, name string) {
	b.Helper()
	mb, err := p.MemoryMB(field)
	if err != nil {
		b.Skip("memory is read from /proc: ", err)
	}
	b.ReportMetric(mb, name)
}
