package replay_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/producer/replay"
	"enricher/test/kafka"
)

// onKafka makes a world on a real Kafka: KAFKA_TESTS=1 starts one, KAFKA_BROKERS
// names one that is there already (its topics calls, dead and dead-journal are
// made anew).
func onKafka(t *testing.T) *world {
	t.Helper()
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		if os.Getenv("KAFKA_TESTS") == "" {
			t.Skip("not on a real Kafka: set KAFKA_TESTS=1 (needs java and mvn) or KAFKA_BROKERS")
		}
		c, err := kafka.Start(t.Context(), kafka.Config{})
		if errors.Is(err, kafka.ErrMissing) && os.Getenv("CI") == "" {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
		})
		brokers = strings.Join(c.Brokers, ",")
	}
	w := joinWorld(t, new(net.Dialer).DialContext, strings.Split(brokers, ","))
	w.recreate()
	return w
}

// recreate makes the topics anew, and waits until they are there.
func (w *world) recreate() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, _ = w.admin().DeleteTopics(ctx, inTopic, deadTopic, journal) // there may be none
	for {
		created, err := w.admin().CreateTopics(ctx, partitions, -1, nil, inTopic, deadTopic)
		if err == nil {
			err = created.Error()
		}
		if err == nil {
			w.feeder.PurgeTopicsFromClient(inTopic, deadTopic)
			return
		}
		select { // the old ones take a moment to go
		case <-ctx.Done():
			w.t.Fatal(err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// TestKafkaKilled: 10,000 letters on a real Kafka, and again until enough of the
// replays that die by SIGKILL at random moments died inside a transaction.
func TestKafkaKilled(t *testing.T) {
	w := onKafka(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	kills, inside := 0, 0
	for inside < 5 && w.fed < 100_000 {
		w.letters(10_000)
		for killed := true; killed; {
			v := w.spawn()
			w.awaitTransaction(v)
			timer := time.AfterFunc(time.Duration(rng.IntN(30))*time.Millisecond, v.kill)
			killed = v.end(t)
			timer.Stop()
			if killed {
				kills++
				if w.inTransaction() {
					inside++
				}
			}
		}
	}
	t.Logf("%d letters, %d kills, %d of them inside a transaction", w.fed, kills, inside)
	if inside < 5 {
		t.Error("too few kills hit a transaction: this shows little")
	}
	w.check(all)
}

// awaitTransaction waits until a replay is inside a transaction, or at its end.
func (w *world) awaitTransaction(v *victim) {
	for len(v.done) == 0 && !w.inTransaction() {
		<-time.After(time.Millisecond)
	}
}

// inTransaction asks the broker.
func (w *world) inTransaction() bool {
	w.t.Helper()
	id := replay.TransactionalID(deadTopic)
	open, err := w.admin().DescribeTransactions(context.Background(), id)
	if errors.Is(err, kerr.CoordinatorNotAvailable) {
		return false // a new broker makes its topic of transactions with the first of them
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return open[id].State == "Ongoing"
}

// TestKafkaTwoOperators: a second replay takes over from the first.
func TestKafkaTwoOperators(t *testing.T) {
	w := onKafka(t)
	w.letters(3000)
	for round := range 3 {
		j := w.job()
		j.Rate = 200 // so that it is far from its end when the second comes
		ended := make(chan replay.Result, 1)
		var once sync.Once
		result, err := replay.Run(context.Background(), j, &watch{t: t, committed: func(int) {
			once.Do(func() {
				go func() {
					j := w.job()
					j.Limit = 600
					r, err := replay.Run(context.Background(), j, &watch{t: t})
					if err != nil {
						t.Errorf("round %d: the second: %v", round, err)
					}
					ended <- r
				}()
			})
		}})
		if !errors.Is(err, replay.ErrFenced) {
			t.Fatalf("round %d: the first ended after %d with %v, want %v", round, result.Completed, err, replay.ErrFenced)
		}
		t.Logf("round %d: the first did %d, the second %d", round, result.Completed, (<-ended).Completed)
	}
	w.run(w.job())
	w.check(all)
}
