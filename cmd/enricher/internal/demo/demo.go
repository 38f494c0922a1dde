// Package demo shows the whole pipeline in one command: two instances, an
// embedded Kafka broker and a simulated API that fails now and then. It kills one
// instance and verifies afterwards that every event has exactly one outcome.
//
// The instances are those of production with shorter times; the package does not
// change how the pipeline works.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/cmd/enricher/internal/admin"
	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/terminal"
	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/producer/replay"
)

// The times are shorter than in production, so that a dead letter appears within
// seconds.
const (
	lookupDelay    = time.Second
	notFoundWindow = 6 * time.Second
	apiRate        = 200
	partitions     = 12
	apiTimeout     = 3100 * time.Millisecond // the shortest that a client accepts is 3 s
	sessionTimeout = 3 * time.Second
	// Brokers refuse a shorter one by default.
	externalSessionTimeout = 6 * time.Second
	// deadLettersEvery is how often the dead letters are counted.
	deadLettersEvery = time.Second
	// outcomeTimeout bounds the wait for the last outcomes, beyond the window.
	outcomeTimeout = 30 * time.Second
)

// Command is the demo.
type Command struct {
	Events      int         `default:"2000" group:"Events:" help:"Number of events to produce."`
	Rate        float64     `default:"250" group:"Events:" help:"Events per second."`
	Seed        int         `default:"1" group:"Events:" help:"Random seed."`
	EventRecord string      `default:"never" values:"never,fallback,first" group:"Lookups:" help:"When to use the record that an event carries: never, fallback or first, as in enricher run."`
	Brokers     config.List `placeholder:"HOST:PORT" group:"Kafka:" help:"Use this Kafka (with temporary topics) instead of the embedded broker."`
	Admin       string      `name:"admin-addr" placeholder:"HOST:PORT" group:"Service:" help:"Address of /livez, /readyz and /metrics of instance a."`
}

// Example returns a command line for the help.
func (*Command) Example() string { return "enricher demo --events 500 --admin-addr 127.0.0.1:9464" }

// Check implements config.Checker.
func (c *Command) Check(src *config.Sources) {
	if c.Events < 1 {
		src.Problem("events", "must be at least 1")
	}
	if c.Rate <= 0 {
		src.Problem("rate", "must be more than 0")
	}
	src.OneOf("event-record", c.EventRecord)
}

// settings is what an instance needs to know. The demo passes it to its child
// process as JSON.
type settings struct {
	Brokers               []string
	API                   string // base URL
	Group                 string
	Input, Enriched, Dead string // topics
	SessionTimeout        time.Duration
	EventRecord           consumer.EventRecord
}

// Run produces events for two instances, kills one of them halfway, and compares
// the outcomes with what was expected.
func (c *Command) Run(ctx context.Context, k *kong.Kong) (err error) {
	api := fetchtest.New(fetchtest.Config{Rate: apiRate, Latency: latency, Misbehave: faults(), Seed: uint64(c.Seed)})
	server, err := fetchtest.Listen(api)
	if err != nil {
		return fmt.Errorf("start the simulated API: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	s, closeKafka, err := c.kafka(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeKafka()) }()
	s.API, s.EventRecord = server.URL, consumer.EventRecord(c.EventRecord)
	_, _ = fmt.Fprintf(k.Stdout, `%d events at %v per second. Records are looked up %v after the call ends
(production: 5s); missing records are retried for %v (production: 2m).
Instance b is killed (SIGKILL) halfway and restarted.

`, c.Events, c.Rate, lookupDelay, notFoundWindow)

	feed := &feeder{topic: s.Input, events: c.Events, rate: c.Rate, seed: uint64(c.Seed), api: api, eventRecord: s.EventRecord}
	v := newView(terminal.NewWriter(k.Stdout), c.Events)
	if err := c.play(ctx, s, feed, v, api); err != nil {
		return err
	}
	records, err := audit.Read(ctx, []kgo.Opt{kgo.SeedBrokers(s.Brokers...)}, s.Enriched, s.Dead)
	if err != nil {
		return fmt.Errorf("read the outcomes: %w", err)
	}
	report := feed.ledger.Check(records)
	printReport(k.Stdout, report, api)
	if !report.OK() {
		return errors.New("reconciliation failed")
	}
	return nil
}

// play runs the instances until every event has an outcome or the time is up.
func (c *Command) play(ctx context.Context, s settings, feed *feeder, v *view, api *fetchtest.API) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a, err := startInProcess(s, "a")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if c.Admin != "" {
		defer a.metrics.WatchDeadLetters(replay.Topics{
			Kafka: []kgo.Opt{kgo.SeedBrokers(s.Brokers...)}, DeadLetterTopic: s.Dead, JournalTopic: s.Dead + "-journal",
		}, deadLettersEvery, func(error) {})() // the embedded broker does not fail
		server, listenErr := admin.Listen(admin.Config{Addr: c.Admin, Alive: a.alive, Ready: a.ready, Warnings: a.warnings, Metrics: a.metrics, Log: zap.NewNop()})
		if listenErr != nil {
			return fmt.Errorf("--admin-addr: %w", listenErr)
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		v.out.Print("instance a: http://%v/metrics", server.Addr)
	}
	b, err := startChild(s, "b")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	watching := make(chan error, 1)
	go func() { watching <- v.watch(ctx, s, feed, api) }()
	defer func() { cancel(); err = errors.Join(err, <-watching) }()

	feed.halfway = func() {
		if err := b.kill(); err != nil {
			v.out.Print("instance b could not be killed: %v", err)
			return
		}
		v.out.Print("✗ instance b is killed (SIGKILL)")
	}
	feed.later = func() {
		if err := b.start(); err != nil {
			v.out.Print("instance b could not be restarted: %v", err)
			return
		}
		v.out.Print("✓ instance b is back")
	}
	if err := feed.produce(ctx, s.Brokers); err != nil {
		return err
	}
	deadline := time.NewTimer(notFoundWindow + outcomeTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for v.outcomes() < feed.ledger.Due() {
		select {
		case <-ctx.Done():
			return errors.New("interrupted before reconciliation")
		case <-deadline.C:
			return nil // the report will list what is missing
		case <-tick.C:
		}
	}
	// Callbacks of other types leave no trace but their offset.
	select {
	case <-ctx.Done():
	case <-time.After(500 * time.Millisecond):
	}
	return nil
}

// kafka starts the embedded broker, or creates temporary topics in another Kafka.
// The function that it returns stops the broker or deletes the topics.
func (c *Command) kafka(ctx context.Context) (settings, func() error, error) {
	if len(c.Brokers) == 0 {
		s := settings{Group: "call-enricher", Input: "call-ended", Enriched: "call-enriched", Dead: "call-dead-letters", SessionTimeout: sessionTimeout}
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, s.Input, s.Enriched, s.Dead),
			kfake.GroupMinSessionTimeout(time.Second),
			kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
		if err != nil {
			return s, nil, fmt.Errorf("start the embedded broker: %w", err)
		}
		s.Brokers = cluster.ListenAddrs()
		return s, func() error { cluster.Close(); return nil }, nil
	}
	name := "enricher-demo-" + strconv.FormatInt(time.Now().Unix(), 36)
	s := settings{Brokers: c.Brokers, Group: name, Input: name + "-call-ended", Enriched: name + "-call-enriched", Dead: name + "-call-dead-letters", SessionTimeout: externalSessionTimeout}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...))
	if err != nil {
		return s, nil, fmt.Errorf("--brokers: %w", err)
	}
	adm := kadm.NewClient(cl)
	topics := []string{s.Input, s.Enriched, s.Dead}
	creating, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	created, err := adm.CreateTopics(creating, partitions, -1, nil, topics...)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		cl.Close()
		return s, nil, fmt.Errorf("create the demo's topics in %v: %w", c.Brokers, err)
	}
	return s, func() error {
		defer cl.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		deleted, err := adm.DeleteTopics(ctx, topics...)
		if err == nil {
			err = deleted.Error()
		}
		if err != nil {
			return fmt.Errorf("delete topics %v: %w", topics, err)
		}
		return nil
	}, nil
}

// printReport prints the reconciliation. What it says about events comes from the
// expected outcomes and a read_committed consumer, not from the pipeline.
func printReport(w io.Writer, r *audit.Report, api *fetchtest.API) {
	deadLetters, reasons := 0, ""
	for _, reason := range sortedReasons(r.DeadLetters) {
		deadLetters += r.DeadLetters[reason]
		reasons += fmt.Sprintf("  %s %d", reason, r.DeadLetters[reason])
	}
	quantile := func(q float64) time.Duration {
		if len(r.Latency) == 0 {
			return 0
		}
		return r.Latency[int(q*float64(len(r.Latency)-1))].Round(time.Millisecond)
	}
	_, _ = fmt.Fprintf(w, `
events in            %6d
  enriched           %6d
  dead letters       %6d %s
  skipped            %6d   (callbacks of other types)
lost                 %6d
duplicated           %6d
wrong                %6d
API requests         %6d   for %d distinct CallIds (%.2f each)
peak request rate    %6s   (limit %d/s)
end-to-end latency     p50 %v  p99 %v
`, r.Events, r.Enriched, deadLetters, reasons, r.Skipped, len(r.Lost), len(r.Duplicated), len(r.Wrong),
		api.Requests(), api.UniqueCallIDs(), api.RequestsPerCallID(),
		fmt.Sprintf("%d/s", api.MaxInAnyWindow(time.Second)), apiRate, quantile(.5), quantile(.99))
	if !r.OK() {
		_, _ = fmt.Fprintln(w, r)
	}
}
