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
)

// unevenAPI takes a second for every tenth call, so that the others are done
// ahead of it, and nothing for the rest.
var unevenAPI = fetchtest.Config{Latency: func(callID string) time.Duration {
	if strings.HasSuffix(callID, "7") {
		return time.Second
	}
	return 0
}}

// TestKafkaKill: kill -9 at random moments, most of them inside a transaction;
// the same instance, restarted, goes on soon.
func TestKafkaKill(t *testing.T) {
	t.Parallel()
	w := onKafka(t, unevenAPI)
	server, err := fetchtest.Listen(w.api)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 8 {
		p := w.spawnAs(victim{Brokers: w.brokers, API: server.URL, Instance: "a", Unlimited: true})
		w.calls("r"+strconv.Itoa(round)+"-", 300)
		before := len(w.outputs())
		for start := time.Now(); len(w.outputs()) == before && before < w.ledger.Due(); <-time.After(10 * time.Millisecond) {
			if time.Since(start) > 30*time.Second {
				t.Fatal("no outcome after 30 s")
			}
		}
		<-time.After(time.Duration(rng.IntN(400)) * time.Millisecond)
		p.kill()
	}
	w.spawn("a", server.URL)
	w.await(30 * time.Second)
	w.check()
}

// TestKafkaCrashPoints: kill -9 at every point of a transaction, twice; the
// same instance takes over, and then another one.
func TestKafkaCrashPoints(t *testing.T) {
	t.Parallel()
	for name, point := range failpoints {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := onKafka(t, unevenAPI)
			server, err := fetchtest.Listen(w.api)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
			for round := range 2 {
				w.calls("r"+strconv.Itoa(round)+"-", 5*partitions)
				p := w.spawnAs(victim{Brokers: w.brokers, API: server.URL, Instance: "a", Unlimited: true, Hold: &point})
				p.stuck(t)
				p.kill()
			}
			w.spawnAs(victim{Brokers: w.brokers, API: server.URL, Instance: "b", Unlimited: true})
			w.await(time.Minute)
			w.check()
		})
	}
}

// TestKafkaKillInTransaction: kill -9 when all of a transaction is at the
// broker, save its end. Readers and the next owner of the partitions must not
// wait for its time-out of 10 s if the same instance comes back.
func TestKafkaKillInTransaction(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, next      string
		readers, owners time.Duration // at most until they go on
	}{
		{"itself comes back", "a", 5 * time.Second, 7 * time.Second},
		// Another one does not know whose transaction it is.
		{"another one takes over", "b", 25 * time.Second, 30 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := onKafka(t, fetchtest.Config{})
			server, err := fetchtest.Listen(w.api)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
			w.calls("c", 10*partitions)
			p := w.spawnAs(victim{Brokers: w.brokers, API: server.URL, Instance: "a", Unlimited: true, Hold: &failpoint{kmsg.EndTxn, false}})
			p.stuck(t)
			adm := kadm.NewClient(w.feeder)
			id := session.TransactionalID(w.Group, "a")
			if got, err := adm.DescribeTransactions(t.Context(), id); err != nil || got[id].State != "Ongoing" {
				t.Fatalf("the transaction is %s: %v", got[id].State, err)
			}
			p.kill()
			killed := time.Now()
			w.spawnAs(victim{Brokers: w.brokers, API: server.URL, Instance: c.next, Unlimited: true})
			for w.heldBack(adm) {
				<-time.After(20 * time.Millisecond)
			}
			readers := time.Since(killed)
			for len(w.outputs()) == 0 {
				<-time.After(20 * time.Millisecond)
			}
			owners := time.Since(killed)
			t.Logf("read_committed readers went on after %v, the next owner after %v", readers, owners)
			if readers > c.readers || owners > c.owners {
				t.Errorf("want at most %v and %v", c.readers, c.owners)
			}
			w.await(30 * time.Second)
			w.check()
		})
	}
}

// heldBack says whether an open transaction holds readers of the enriched topic
// back at its first record.
func (w *world) heldBack(adm *kadm.Client) bool {
	w.t.Helper()
	stable, err := adm.ListCommittedOffsets(context.Background(), w.Out)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	held := true
	stable.Each(func(o kadm.ListedOffset) { held = held && o.Offset == 0 })
	return held
}
