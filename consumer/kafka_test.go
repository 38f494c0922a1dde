package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/kafka"
	"enricher/test/oracle"
)

// The tests named TestKafka run on a real Kafka. They take minutes, so they are
// asked for: KAFKA_TESTS=1 starts brokers, KAFKA_BROKERS names some that are
// there already; those that need a broker of their own are skipped then.

// sharedKafka is the broker of all tests that do not need one of their own.
// TestMain ends it.
var sharedKafka struct {
	start   sync.Once
	cluster *kafka.Cluster
	err     error
}

// A transaction past its time-out is ended within the second, not within ten.
var sharedProperties = map[string]string{"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}

// onKafka makes a world on a real Kafka, with names of its own.
func onKafka(t *testing.T, api fetchtest.Config) *world {
	t.Helper()
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		wantKafka(t)
		sharedKafka.start.Do(func() {
			sharedKafka.cluster, sharedKafka.err = kafka.Start(context.Background(), kafka.Config{Properties: sharedProperties})
		})
		mustStart(t, sharedKafka.err)
		brokers = strings.Join(sharedKafka.cluster.Brokers, ",")
	}
	return kafkaWorld(t, api, strings.Split(brokers, ","))
}

// onOwnKafka makes a world on a broker that the test may end or that has
// further properties.
func onOwnKafka(t *testing.T, api fetchtest.Config, cfg kafka.Config) (*world, *kafka.Cluster) {
	t.Helper()
	wantKafka(t)
	c, err := kafka.Start(t.Context(), cfg)
	mustStart(t, err)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return kafkaWorld(t, api, c.Brokers), c
}

func wantKafka(t *testing.T) {
	t.Helper()
	if os.Getenv("KAFKA_TESTS") == "" {
		t.Skip("not on a real Kafka: set KAFKA_TESTS=1 (needs java and mvn), or KAFKA_BROKERS for most of these tests")
	}
}

func mustStart(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, kafka.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func kafkaWorld(t *testing.T, api fetchtest.Config, brokers []string) *world {
	t.Helper()
	w := joinWorld(t, api, new(net.Dialer).DialContext, brokers)
	id := "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	w.names = names{In: "calls" + id, Out: "enriched" + id, Dead: "dead" + id, Group: "g" + id}
	w.settings = brief
	adm := kadm.NewClient(w.feeder)
	created, err := adm.CreateTopics(t.Context(), partitions, -1, nil, w.In, w.Out, w.Dead)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = adm.DeleteTopics(context.Background(), w.In, w.Out, w.Dead) }) // the test may have ended the broker
	return w
}

// brief shortens what instances wait for on a real Kafka.
func brief(c *consumer.Config) {
	quick(c)
	c.Schedule.NotFoundWindow = 4 * time.Second
}

// TestKafkaScenarios: what holds on the embedded broker holds on a real one.
func TestKafkaScenarios(t *testing.T) {
	for _, s := range inRealTime {
		t.Run(s.name, func(t *testing.T) {
			w := onKafka(t, s.api)
			s.run(t, w)
		})
	}
}

// TestKafkaEvents: every kind of event, with short windows.
func TestKafkaEvents(t *testing.T) {
	w := onKafka(t, fetchtest.Config{Rate: 200})
	w.calls("c", 100)
	for n := range 5 {
		id := "never-" + strconv.Itoa(n)
		w.api.Never(id)
		w.letter(int32(n), callback(id, time.Now()), schemas.NotFound)
		w.call(int32(n), "c1") // repeated
		w.letter(int32(n), []byte("junk"), schemas.Malformed)
		w.feed(int32(n), []byte(`{"CallbackCommand":"Call.CallbackAfterStartCall"}`), oracle.Expect{})
	}
	w.letter(3, nil, schemas.Malformed)
	w.letter(0, []byte(strings.Repeat("x", 1_048_300)), schemas.Malformed)
	w.start("a", quick, func(c *consumer.Config) { c.Schedule.NotFoundWindow = 4 * time.Second })
	w.await(time.Minute)
	w.check()
}

// TestKafkaKill: kill -9 at random moments, most of them inside a transaction;
// the same instance, restarted, goes on soon.
func TestKafkaKill(t *testing.T) {
	w := onKafka(t, fetchtest.Config{})
	server, err := fetchtest.Listen(w.api)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var slowest time.Duration
	for round := range 12 {
		p := w.spawnAs(victim{Brokers: w.brokers, API: server.URL, Instance: "a", Unlimited: true})
		w.calls("r"+strconv.Itoa(round)+"-", 300)
		before := len(w.outputs())
		for start := time.Now(); len(w.outputs()) == before && before < w.ledger.Due(); <-time.After(10 * time.Millisecond) {
			if time.Since(start) > 30*time.Second {
				t.Fatal("no outcome after 30 s")
			}
			slowest = max(slowest, time.Since(start))
		}
		<-time.After(time.Duration(rng.IntN(400)) * time.Millisecond)
		p.kill()
	}
	t.Logf("at most %v from a start to the next outcome", slowest)
	w.spawn("a", server.URL)
	w.await(30 * time.Second)
	w.check()
}

// TestKafkaMetadata: a flood of calls that are never found presses the offset
// metadata of one partition against the broker's limit.
func TestKafkaMetadata(t *testing.T) {
	w := onKafka(t, fetchtest.Config{})
	rng := rand.New(rand.NewPCG(1, 1))
	for n := range 30_000 {
		id := "c" + strconv.Itoa(n)
		if rng.IntN(5) == 0 {
			w.api.Never(id)
			w.letter(0, callback(id, time.Now()), schemas.NotFound)
		} else {
			w.call(0, id)
		}
	}
	i := w.start("a", quick, func(c *consumer.Config) {
		c.APIRate, c.FloodGuard, c.MaxInFlight = 0, 0, 30_000
		c.Schedule.NotFoundWindow = 15 * time.Second // all others are done before the first of these is
	})
	widest := 0.0
	for len(w.outputs()) < w.ledger.Due() {
		widest = max(widest, i.metric("enricher_offset_metadata_bytes"))
		<-time.After(50 * time.Millisecond)
		if i.metric("enricher_session_rebuilds_total") > 0 {
			t.Fatal("the session was rebuilt")
		}
	}
	w.check()
	if widest < 3000 || widest > 4096 {
		t.Errorf("metadata of up to %v bytes: the limit was to be neared, and kept", widest)
	}
}

// TestKafkaManyPartitions: 600 partitions whose metadata together would pass
// the broker's batch limit.
func TestKafkaManyPartitions(t *testing.T) {
	w := onKafka(t, fetchtest.Config{})
	if _, err := kadm.NewClient(w.feeder).CreatePartitions(t.Context(), 600-partitions, w.In); err != nil {
		t.Fatal(err)
	}
	w.feeder.ForceMetadataRefresh()
	<-time.After(3 * time.Second)
	for n := range 6000 {
		id := "c" + strconv.Itoa(n)
		if n%3 == 0 {
			w.api.Never(id)
			w.letter(int32(n%600), callback(id, time.Now()), schemas.NotFound)
		} else {
			w.call(int32(n%600), id)
		}
	}
	w.start("a", quick, func(c *consumer.Config) {
		c.APIRate, c.FloodGuard = 0, 0
		c.Schedule.NotFoundWindow = 4 * time.Second
	})
	w.await(time.Minute)
	w.check()
}

// TestKafkaExpiredID: the broker forgets the transactional id of an instance
// that was idle; the session is rebuilt.
func TestKafkaExpiredID(t *testing.T) {
	w, _ := onOwnKafka(t, fetchtest.Config{}, kafka.Config{Properties: map[string]string{
		"transactional.id.expiration.ms": "3000", "transaction.remove.expired.transaction.cleanup.interval.ms": "1000",
		"producer.id.expiration.ms": "3000", "producer.id.expiration.check.interval.ms": "1000",
	}})
	i := w.start("a", quick)
	for round := range 3 {
		w.calls(fmt.Sprint("r", round, "-"), 60)
		w.await(30 * time.Second)
		<-time.After(8 * time.Second)
	}
	w.check()
	if i.metric("enricher_session_rebuilds_total") == 0 {
		t.Error("the id did not expire: this test shows nothing")
	}
}

// TestKafkaRestart: the broker is ended, in order and by kill -9, under load.
func TestKafkaRestart(t *testing.T) {
	w, c := onOwnKafka(t, fetchtest.Config{}, kafka.Config{})
	w.start("a", quick)
	w.start("b", quick)
	feeding := make(chan struct{})
	go func() {
		defer close(feeding)
		for n := range 1500 {
			w.call(int32(n%partitions), "c"+strconv.Itoa(n))
			<-time.After(10 * time.Millisecond)
		}
	}()
	for _, end := range []func(int) error{c.Shutdown, c.Kill} {
		<-time.After(4 * time.Second)
		if err := end(0); err != nil {
			t.Error(err)
		}
		<-time.After(time.Second)
		if err := c.Run(0); err != nil {
			t.Error(err)
		}
		if err := c.Await(context.Background(), 1); err != nil {
			t.Error(err)
		}
	}
	<-feeding
	w.await(time.Minute)
	w.check()
}
