package main

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

	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
)

// The demo's times are shorter than production's, so that one need not wait
// for minutes to see a dead letter.
const (
	demoSettle     = time.Second
	demoNotFound   = 6 * time.Second
	demoRate       = 200
	demoPartitions = 12
	demoSession    = 3 * time.Second
	// A Kafka of its own settings refuses shorter ones by default.
	demoSessionOutside = 6 * time.Second
	demoPatience       = 30 * time.Second // for the last outcomes, beyond the not-found window
)

type demoCmd struct {
	Events  int     `default:"2000" help:"Events to feed."`
	Rate    float64 `default:"250" help:"Events a second."`
	Seed    int     `default:"1" help:"Varies events, records and faults."`
	Brokers list    `placeholder:"HOST:PORT" help:"Use this Kafka, with topics made for the purpose, instead of the embedded one."`
	Admin   string  `name:"admin-addr" placeholder:"HOST:PORT" help:"Serve /livez, /readyz and /metrics of instance a."`
}

func (c *demoCmd) check(in *inputs) {
	if c.Events < 1 {
		in.problem("events", "must be at least 1")
	}
	if c.Rate <= 0 {
		in.problem("rate", "must be more than 0")
	}
}

// demoSettings is what an instance of the demo needs to know.
type demoSettings struct {
	Brokers               []string
	API                   string // base URL
	Group                 string
	Input, Enriched, Dead string // topics
	SessionTimeout        time.Duration
}

// Run feeds events to two instances, of which one is killed half-way, and
// settles the account.
func (c *demoCmd) Run(ctx context.Context, k *kong.Kong) (err error) {
	api := fetchtest.New(fetchtest.Config{Rate: demoRate, Latency: demoLatency, Misbehave: demoFaults(), Seed: uint64(c.Seed)})
	server, err := fetchtest.Listen(api)
	if err != nil {
		return fmt.Errorf("start the simulated API: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	settings, closeKafka, err := c.kafka(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeKafka()) }()
	settings.API = server.URL
	_, _ = fmt.Fprintf(k.Stdout, "%d events at %v a second; the record of a call is asked for %v after its end (production: 5s), one that is missing for %v (2m).\n"+
		"Instance b is killed half-way, without warning, and comes back.\n\n", c.Events, c.Rate, demoSettle, demoNotFound)

	feeder := &demoFeeder{topic: settings.Input, events: c.Events, rate: c.Rate, seed: uint64(c.Seed), api: api}
	view := newDemoView(k.Stdout, c.Events)
	if err := c.play(ctx, settings, feeder, view, api); err != nil {
		return err
	}
	records, err := audit.Read(ctx, []kgo.Opt{kgo.SeedBrokers(settings.Brokers...)}, settings.Enriched, settings.Dead)
	if err != nil {
		return fmt.Errorf("read the outcomes: %w", err)
	}
	account := feeder.ledger.Check(records)
	printAccount(k.Stdout, account, api)
	if !account.OK() {
		return errors.New("the account is not right")
	}
	return nil
}

// play runs the instances until every event has its outcome, or long enough.
func (c *demoCmd) play(ctx context.Context, s demoSettings, feeder *demoFeeder, view *demoView, api *fetchtest.API) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a, err := startInside(s, "a")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if c.Admin != "" {
		admin, listenErr := listenAdmin(c.Admin, adminHandler(a.ready, a.metrics))
		if listenErr != nil {
			return fmt.Errorf("--admin-addr: %w", listenErr)
		}
		defer func() { err = errors.Join(err, admin.close()) }()
		view.say("instance a: http://%v/metrics", admin.addr)
	}
	b, err := startChild(s, "b")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	watching := make(chan error, 1)
	go func() { watching <- view.watch(ctx, s, feeder, api) }()
	defer func() { cancel(); err = errors.Join(err, <-watching) }()

	feeder.halfway = func() {
		if err := b.kill(); err != nil {
			view.say("instance b could not be killed: %v", err)
			return
		}
		view.say("✗ instance b is killed (SIGKILL)")
	}
	feeder.later = func() {
		if err := b.start(); err != nil {
			view.say("instance b could not be started again: %v", err)
			return
		}
		view.say("✓ instance b is back")
	}
	if err := feeder.feed(ctx, s.Brokers); err != nil {
		return err
	}
	deadline := time.NewTimer(demoNotFound + demoPatience)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for view.outcomes() < feeder.ledger.Due() {
		select {
		case <-ctx.Done():
			return errors.New("interrupted; no account is made")
		case <-deadline.C:
			return nil // the account will say what is missing
		case <-tick.C:
		}
	}
	// Callbacks of other kinds leave no trace but their offset.
	select {
	case <-ctx.Done():
	case <-time.After(500 * time.Millisecond):
	}
	return nil
}

// kafka is the embedded broker, or topics of the demo's own in another Kafka,
// and how to get rid of them.
func (c *demoCmd) kafka(ctx context.Context) (demoSettings, func() error, error) {
	if len(c.Brokers) == 0 {
		s := demoSettings{Group: "call-enricher", Input: "call-ended", Enriched: "call-enriched", Dead: "call-dead-letters", SessionTimeout: demoSession}
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(demoPartitions, s.Input, s.Enriched, s.Dead),
			kfake.GroupMinSessionTimeout(time.Second),
			kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
		if err != nil {
			return s, nil, fmt.Errorf("start the embedded broker: %w", err)
		}
		s.Brokers = cluster.ListenAddrs()
		return s, func() error { cluster.Close(); return nil }, nil
	}
	name := "enricher-demo-" + strconv.FormatInt(time.Now().Unix(), 36)
	s := demoSettings{Brokers: c.Brokers, Group: name, Input: name + "-call-ended", Enriched: name + "-call-enriched", Dead: name + "-call-dead-letters", SessionTimeout: demoSessionOutside}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...))
	if err != nil {
		return s, nil, fmt.Errorf("--brokers: %w", err)
	}
	adm := kadm.NewClient(cl)
	topics := []string{s.Input, s.Enriched, s.Dead}
	make, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	created, err := adm.CreateTopics(make, demoPartitions, -1, nil, topics...)
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

// printAccount is the closing account. Whatever it says of events comes from
// the feeder's ledger and a read_committed reader, not from the pipeline.
func printAccount(w io.Writer, a *audit.Report, api *fetchtest.API) {
	letters, reasons := 0, ""
	for _, r := range sortedReasons(a.DeadLetters) {
		letters += a.DeadLetters[r]
		reasons += fmt.Sprintf("  %s %d", r, a.DeadLetters[r])
	}
	quantile := func(q float64) time.Duration {
		if len(a.Latency) == 0 {
			return 0
		}
		return a.Latency[int(q*float64(len(a.Latency)-1))].Round(time.Millisecond)
	}
	_, _ = fmt.Fprintf(w, `
events in            %6d
  enriched           %6d
  dead letters       %6d %s
  skipped            %6d   callbacks of other kinds
lost                 %6d
duplicated           %6d
wrong                %6d
API requests         %6d   for %d calls: %.2f per CallId
most in one second   %6d   of %d allowed
latency                p50 %v, p99 %v, from the event to its outcome
`, a.Events, a.Enriched, letters, reasons, a.Skipped, len(a.Lost), len(a.Duplicated), len(a.Wrong),
		api.Requests(), api.UniqueCallIDs(), api.RequestsPerCallID(),
		api.MaxInAnyWindow(time.Second), demoRate, quantile(.5), quantile(.99))
	if !a.OK() {
		_, _ = fmt.Fprintln(w, a)
	}
}
