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
	"enricher/test/harness"
	"enricher/test/kafka"
)

// newKafkaEnv makes an env on a real Kafka. KAFKA_TESTS=1 starts one; KAFKA_BROKERS
// names a running one, whose topics calls, dead and dead-journal are re-created.
func newKafkaEnv(t *testing.T) *env {
	t.Helper()
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		_, c := harness.OwnKafka(t, kafka.Config{})
		brokers = strings.Join(c.Brokers, ",")
	}
	e := joinEnv(t, new(net.Dialer).DialContext, strings.Split(brokers, ","))
	e.recreate()
	return e
}

// recreate re-creates the topics and waits until that is possible.
func (e *env) recreate() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, _ = e.admin().DeleteTopics(ctx, inTopic, deadTopic, journal) // they may not exist
	for {
		created, err := e.admin().CreateTopics(ctx, partitions, -1, nil, inTopic, deadTopic)
		if err == nil {
			err = created.Error()
		}
		if err == nil {
			e.feeder.PurgeTopicsFromClient(inTopic, deadTopic)
			return
		}
		select { // deleting the old ones takes a moment
		case <-ctx.Done():
			e.t.Fatal(err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// TestKafkaReplaySurvivesKill kills replays of 10,000 dead letters at random
// moments, and repeats that until enough of them died inside a transaction.
func TestKafkaReplaySurvivesKill(t *testing.T) {
	e := newKafkaEnv(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	kills, inside := 0, 0
	for inside < 5 && e.fed < 100_000 {
		e.feed(10_000)
		for killed := true; killed; {
			before := e.openTransaction() // of the replay killed last, perhaps
			c := e.spawn()
			e.awaitTransaction(c, before)
			timer := time.AfterFunc(time.Duration(rng.IntN(30))*time.Millisecond, c.kill)
			killed = c.wait(t)
			timer.Stop()
			if killed {
				kills++
				if open := e.openTransaction(); open != none && open != before {
					inside++
				}
			}
		}
	}
	t.Logf("%d dead letters, %d kills, %d of them inside a transaction", e.fed, kills, inside)
	if inside < 5 {
		t.Error("too few kills hit a transaction for this test to show anything")
	}
	e.checkReplayed(all)
}

// transaction identifies an open transaction: each has an epoch of its own.
type transaction struct {
	producer int64
	epoch    int16
}

// none is a transaction that no producer has.
var none = transaction{-1, -1}

// awaitTransaction waits until a replay is inside a transaction, which is another one
// than before, or has ended.
func (e *env) awaitTransaction(c *childInstance, before transaction) {
	for len(c.exit) == 0 {
		if open := e.openTransaction(); open != none && open != before {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// openTransaction returns the transaction of a replay that the broker has open.
func (e *env) openTransaction() transaction {
	e.t.Helper()
	id := replay.TransactionalID(deadTopic)
	described, err := e.admin().DescribeTransactions(context.Background(), id)
	if errors.Is(err, kerr.CoordinatorNotAvailable) {
		return none // a new broker creates its transaction topic for the first transaction
	}
	if err != nil {
		e.t.Fatal(err)
	}
	if d := described[id]; d.State == "Ongoing" {
		return transaction{d.ProducerID, d.ProducerEpoch}
	}
	return none
}

// TestKafkaSecondReplayFencesFirst starts a second replay while the first one runs.
func TestKafkaSecondReplayFencesFirst(t *testing.T) {
	e := newKafkaEnv(t)
	e.feed(3000)
	for round := range 3 {
		j := e.job()
		j.Rate = 200 // slow enough to be far from its end when the second one starts
		ended := make(chan replay.Result, 1)
		var once sync.Once
		result, err := replay.Run(context.Background(), j, &watch{t: t, committed: func(int) {
			once.Do(func() {
				go func() {
					j := e.job()
					j.Limit = 600
					r, err := replay.Run(context.Background(), j, &watch{t: t})
					if err != nil {
						t.Errorf("round %d: second replay: %v", round, err)
					}
					ended <- r
				}()
			})
		}})
		if !errors.Is(err, replay.ErrFenced) {
			t.Fatalf("round %d: the first replay ended after %d with %v, want %v", round, result.Completed, err, replay.ErrFenced)
		}
		t.Logf("round %d: the first replay completed %d, the second %d", round, result.Completed, (<-ended).Completed)
	}
	e.run(e.job())
	e.checkReplayed(all)
}
