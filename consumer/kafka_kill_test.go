package consumer_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer/session"
	"enricher/fetch/fetchtest"
	"enricher/test/harness"
)

// unevenAPI takes a second for every tenth call, so that the other calls are
// completed before it.
var unevenAPI = fetchtest.Config{Latency: func(callID string) time.Duration {
	if strings.HasSuffix(callID, "7") {
		return time.Second
	}
	return 0
}}

// TestKafkaKillAtRandom kills an instance at random moments, most of them inside a
// transaction, and starts it again.
func TestKafkaKillAtRandom(t *testing.T) {
	t.Parallel()
	e := kafkaEnv(t, unevenAPI)
	url := e.serveAPI()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 8 {
		p := e.spawn(childInstance{API: url, Instance: "a", Unlimited: true})
		e.FeedCalls("r"+strconv.Itoa(round)+"-", 300)
		before := len(e.Outputs())
		for start := time.Now(); len(e.Outputs()) == before && before < e.Ledger.Due(); <-time.After(10 * time.Millisecond) {
			if time.Since(start) > 30*time.Second {
				t.Fatal("no outcome after 30 s")
			}
		}
		<-time.After(time.Duration(rng.IntN(400)) * time.Millisecond)
		p.Kill()
	}
	e.spawn(childInstance{API: url, Instance: "a"})
	e.Await(30 * time.Second)
	e.Check()
}

// TestKafkaKillInTransaction kills an instance when the broker has all of a
// transaction except its end. Readers and the next owner of the partitions must not
// wait for its timeout of 10 s if the same instance comes back.
func TestKafkaKillInTransaction(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, next     string
		readers, owner time.Duration // the longest time until each continues
	}{
		{name: "same instance comes back", next: "a", readers: harness.ReadersAfterRestart, owner: harness.OwnerAfterRestart},
		{name: "another instance takes over", next: "b", readers: harness.ReadersAfterTakeover, owner: harness.OwnerAfterTakeover},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := kafkaEnv(t, fetchtest.Config{})
			url := e.serveAPI()
			e.FeedCalls("c", 10*partitions)
			end := crashPoint{Key: kmsg.EndTxn}
			e.killHanging(childInstance{API: url, Instance: "a", Unlimited: true, Hang: &end}, func() {
				id := session.TransactionalID(e.Group, "a")
				if got, err := e.Admin().DescribeTransactions(t.Context(), id); err != nil || got[id].State != "Ongoing" {
					t.Fatalf("the transaction is %s: %v", got[id].State, err)
				}
			})
			killed := time.Now()
			e.spawn(childInstance{API: url, Instance: c.next, Unlimited: true})
			for e.heldBack() {
				<-time.After(20 * time.Millisecond)
			}
			readers := time.Since(killed)
			for len(e.Outputs()) == 0 {
				<-time.After(20 * time.Millisecond)
			}
			owner := time.Since(killed)
			t.Logf("read_committed readers continued after %v, the next owner after %v", readers, owner)
			if readers > c.readers || owner > c.owner {
				t.Errorf("want at most %v and %v", c.readers, c.owner)
			}
			e.Await(30 * time.Second)
			e.Check()
		})
	}
}

// heldBack reports whether an open transaction holds readers of the enriched topic
// back at its first record.
func (e *env) heldBack() bool {
	e.T.Helper()
	stable, err := e.Admin().ListCommittedOffsets(context.Background(), e.Enriched)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		e.T.Fatal(err)
	}
	held := true
	stable.Each(func(o kadm.ListedOffset) { held = held && o.Offset == 0 })
	return held
}
