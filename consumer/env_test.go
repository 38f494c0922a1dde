package consumer_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/test/harness"
	"enricher/test/kafka"
	"enricher/test/kafkaproxy"
)

const partitions = harness.Partitions

// shareDelay is when an instance that joined a group makes requests at the latest:
// the timeout of a request and a second after it has its assignment.
const shareDelay = 7 * time.Second

// A scenario runs on an embedded broker and, as the test TestKafka…, on a real one:
//
//	KAFKA_TESTS=1 go test -run ^TestKafka ./consumer
//
// Scenarios run in virtual time where they can, one after another. Those in real
// time run together when the others have ended, which would compete for the
// processors.

// inVirtualTime runs a scenario on an embedded broker in a bubble.
func inVirtualTime(t *testing.T, api fetchtest.Config, scenario func(*testing.T, *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		// Bubbles begin in 2000, which is no time of an event.
		<-time.After(time.Until(time.Unix(1764000000, 0)))
		scenario(t, newEnv(t, api))
	})
}

// inRealTime runs a scenario on an embedded broker next to others. Members that
// join need it: the Kafka client waits for a mutex meanwhile, which stops the
// clock of a bubble.
func inRealTime(t *testing.T, api fetchtest.Config, scenario func(*testing.T, *env)) {
	t.Helper()
	t.Parallel()
	scenario(t, newEnv(t, api))
}

// aloneInRealTime runs a scenario on an embedded broker that needs all processors.
func aloneInRealTime(t *testing.T, api fetchtest.Config, scenario func(*testing.T, *env)) {
	t.Helper()
	scenario(t, newEnv(t, api))
}

// onKafka runs a scenario on a real Kafka next to others.
func onKafka(t *testing.T, api fetchtest.Config, scenario func(*testing.T, *env)) {
	t.Helper()
	t.Parallel()
	scenario(t, kafkaEnv(t, api))
}

// aloneOnKafka runs a scenario on a real Kafka that needs all processors.
func aloneOnKafka(t *testing.T, api fetchtest.Config, scenario func(*testing.T, *env)) {
	t.Helper()
	scenario(t, kafkaEnv(t, api))
}

// env is the environment of a scenario.
type env struct {
	*harness.Env
	real bool // on a real Kafka
}

func newEnv(t testing.TB, api fetchtest.Config) *env {
	t.Helper()
	return &env{Env: harness.NewEnv(harness.InMemory(t, harness.SeedTopics()), harness.DefaultTopics, api)}
}

// childEnv is an environment for child processes, which use the API at a URL.
func childEnv(t testing.TB, api fetchtest.Config) *env {
	t.Helper()
	return &env{Env: harness.NewEnv(harness.OnLoopback(t, harness.SeedTopics()), harness.DefaultTopics, api)}
}

// kafkaEnv is an environment on the shared Kafka.
func kafkaEnv(t testing.TB, api fetchtest.Config) *env {
	t.Helper()
	return onBroker(harness.SharedKafka(t), api)
}

// ownKafkaEnv is an environment on a Kafka that the test may stop.
func ownKafkaEnv(t testing.TB, cfg kafka.Config) (*env, *kafka.Cluster) {
	t.Helper()
	b, c := harness.OwnKafka(t, cfg)
	return onBroker(b, fetchtest.Config{}), c
}

func onBroker(b *harness.Broker, api fetchtest.Config) *env {
	b.T.Helper()
	e := &env{Env: harness.NewEnv(b, harness.UniqueTopics(), api), real: true}
	e.Settings = brief
	e.CreateTopics(partitions, e.In, e.Enriched, e.Dead)
	b.T.Cleanup(func() {
		_, _ = e.Admin().DeleteTopics(context.Background(), e.In, e.Enriched, e.Dead) // the test may have stopped the broker
	})
	return e
}

// pause waits: longer in virtual time, where it costs nothing, than on a real
// Kafka.
func (e *env) pause(virtual, onKafka time.Duration) { <-time.After(e.choose(virtual, onKafka)) }

func (e *env) choose(virtual, onKafka time.Duration) time.Duration {
	if e.real {
		return onKafka
	}
	return virtual
}

// serveAPI serves the API to other processes.
func (e *env) serveAPI() (url string) {
	e.T.Helper()
	server, err := fetchtest.Listen(e.API)
	if err != nil {
		e.T.Fatal(err)
	}
	e.T.Cleanup(func() { _ = server.Close() })
	return server.URL
}

// quick shortens what members wait for.
func quick(c *consumer.Config) {
	c.Retry.LookupDelay = 300 * time.Millisecond
	c.Heartbeat = 100 * time.Millisecond
	c.SessionTimeout = harness.KillSessionTimeout
}

// brief shortens what instances wait for on a real Kafka.
func brief(c *consumer.Config) {
	quick(c)
	c.Retry.NotFoundWindow, c.Retry.RetryWindow = 4*time.Second, 4*time.Second
}

// awaitMembers waits until the group has n members, each with partitions, which
// are all assigned.
func (e *env) awaitMembers(n int) {
	e.T.Helper()
	e.Eventually(20*time.Second, func() error {
		groups, err := e.Admin().DescribeGroups(context.Background(), e.Group)
		if err != nil {
			return err // the group has no coordinator yet
		}
		g := groups[e.Group]
		assigned, idle := 0, 0
		for _, m := range g.Members {
			size := 0
			if a, ok := m.Assigned.AsConsumer(); ok {
				for _, t := range a.Topics {
					size += len(t.Partitions)
				}
			}
			assigned += size
			if size == 0 {
				idle++
			}
		}
		if g.State != "Stable" || len(g.Members) != n || assigned != partitions || idle > 0 {
			return fmt.Errorf("the group is %s, with %d members, %d of them idle, and %d partitions assigned", g.State, len(g.Members), idle, assigned)
		}
		return nil
	})
}

// topicID is that of the input topic. A new client reads it, because clients cache
// topics.
func (e *env) topicID() [16]byte {
	e.T.Helper()
	topics, err := kadm.NewClient(e.NewClient()).ListTopics(context.Background(), e.In)
	if err != nil {
		e.T.Fatal(err)
	}
	return topics[e.In].ID
}

// setOffsets commits an offset for every partition, as an operator does.
func (e *env) setOffsets(at int64, epoch int32, metadata string) {
	e.T.Helper()
	var offsets kadm.Offsets
	for p := range int32(partitions) {
		offsets.Add(kadm.Offset{Topic: e.In, Partition: p, At: at, LeaderEpoch: epoch, Metadata: metadata})
	}
	e.commit(offsets)
}

func (e *env) commit(offsets kadm.Offsets) {
	e.T.Helper()
	if err := e.Admin().CommitAllOffsets(context.Background(), e.Group, offsets); err != nil {
		e.T.Fatal(err)
	}
}

// deadLetters are the dead letters so far, by the event's value.
func (e *env) deadLetters() map[string]*producer.DeadLetter {
	e.T.Helper()
	m := map[string]*producer.DeadLetter{}
	for _, r := range e.Outputs() {
		if l, ok := producer.ParseDeadLetter(r); ok {
			m[string(l.Value)] = l
		}
	}
	return m
}

// childInstance is the configuration of a child process: one instance, which runs
// until it is killed.
type childInstance struct {
	harness.Topics
	Brokers  []string
	API      string
	Instance string
	// Unlimited means no rate limit, no lookup delay and no limit on dead letters.
	Unlimited bool
	// Hang is where the instance hangs; nil: nowhere.
	Hang *crashPoint
}

func TestMain(m *testing.M) {
	// The tests in real time wait for brokers and members most of the time.
	flag.Parse()
	if len(os.Args) > 1 && flag.Lookup("test.bench").Value.String() == "" { // neither in a child nor in a benchmark
		consumer.CheckEveryTurn()
	}
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8") // a number, so it cannot fail
	}
	harness.Main(m, func(config []byte) error {
		var c childInstance
		if err := json.Unmarshal(config, &c); err != nil {
			return err
		}
		return c.run()
	})
}

func (c childInstance) run() error {
	cfg, err := harness.Config(c.Instance, c.API, nil, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	c.Apply(&cfg)
	quick(&cfg)
	cfg.Kafka = func() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(c.Brokers...)} }
	if c.Hang != nil {
		p := kafkaproxy.New(new(net.Dialer).DialContext)
		p.OnRequest(c.Hang.hang)
		cfg.Kafka = func() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(c.Brokers...), kgo.Dialer(p.DialContext)} }
	}
	if c.Unlimited {
		cfg.APIRate, cfg.Retry.LookupDelay, cfg.MaxConsecutiveDeadLetters = 0, 0, 0
	}
	instance, err := consumer.New(cfg)
	if err != nil {
		return err
	}
	return instance.Run(context.Background())
}

// spawn runs an instance as a child process.
func (e *env) spawn(c childInstance) *harness.Process {
	e.T.Helper()
	c.Topics, c.Brokers = e.Topics, e.Addrs
	return harness.Spawn(e.T, c)
}

// awaitWithin waits for the outcomes of matching events, and fails the test if one
// of them was written later than the limit after its event was produced.
func (e *env) awaitWithin(limit time.Duration, match func(audit.Source, audit.Expect) bool) {
	e.T.Helper()
	var n int
	var longest time.Duration
	e.Eventually(limit+10*time.Second, func() error {
		n, longest = 0, 0
		written := make(map[audit.Source]time.Time)
		for _, r := range e.Outputs() {
			if s, err := audit.SourceOf(r); err == nil {
				written[s] = r.Timestamp
			}
		}
		for s, event := range e.Ledger.Events() {
			if !match(s, event) {
				continue
			}
			at, ok := written[s]
			if !ok {
				return fmt.Errorf("%v has no outcome", s)
			}
			n++
			longest = max(longest, at.Sub(event.Produced))
		}
		if longest > limit {
			e.T.Fatalf("an outcome came after %v, want at most %v", longest, limit)
		}
		return nil
	})
	if n == 0 {
		e.T.Fatal("no event matches: this shows nothing")
	}
	e.T.Logf("%d events had their outcomes within %v", n, longest.Round(time.Millisecond))
}
