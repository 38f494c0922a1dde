package consumer_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/fetch/lookup"
	"enricher/schemas"
)

var (
	seeds     = flag.Int("seeds", 20, "how many scenarios TestSeeds runs")
	firstSeed = flag.Uint64("seed", 1, "the first one")
)

// TestSeeds runs random scenarios on virtual time: events of all kinds, and
// faults of broker, network, API and instance, all by the seed.
//
//	go test ./consumer -run TestSeeds -seeds 1000
//
// In about one of 500 the group is lost at the very moment at which the Kafka
// client ends a transaction and has to try again. It then waits for a mutex of
// its own, which stops the clock of the bubble for good: such a seed shows
// nothing. It is counted, and more than a few are an error.
func TestSeeds(t *testing.T) {
	const limit = 30 * time.Second // a hundred times what one takes
	var stopped atomic.Int64
	t.Run("seed", func(t *testing.T) {
		for n := range uint64(*seeds) {
			seed := *firstSeed + n
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				done := make(chan struct{})
				go func() {
					defer close(done)
					synctest.Test(t, func(t *testing.T) { newGamble(t, seed).run() })
				}()
				select {
				case <-done:
				case <-time.After(limit):
					stopped.Add(1)
					t.Skip("the clock stopped")
				}
			})
		}
	})
	if n := stopped.Load(); n > 2+int64(*seeds)/100 {
		t.Errorf("on %d of %d seeds the clock stopped", n, *seeds)
	}
}

// gamble is one random scenario.
type gamble struct {
	*world
	rng    *rand.Rand
	now    *instance // the one that works
	gone   []*instance
	done   map[string]int // steps, by name
	number int            // of calls so far
}

func newGamble(t *testing.T, seed uint64) *gamble {
	return &gamble{rng: rand.New(rand.NewPCG(seed, 0)), done: make(map[string]int), world: newWorld(t, fetchtest.Config{
		Rate: 200, Seed: seed,
		Latency: func(string) time.Duration { return time.Duration(seed%4) * 25 * time.Millisecond },
		Misbehave: []fetchtest.Chance{
			{Percent: 2, Fault: fetchtest.BadGateway()}, {Percent: 2, Fault: fetchtest.CutBody()},
			{Percent: 1, Fault: fetchtest.WrongCallID()}, {Percent: 1, Fault: fetchtest.Reset()},
		},
	})}
}

func (g *gamble) run() {
	defer g.expireMembers()()
	g.begin("a")
	defer g.comeBack()
	defer func() {
		if g.t.Failed() {
			g.explain()
		}
	}()
	steps := []struct {
		name  string
		cards int
		do    func()
	}{
		{"error answers", 6, g.errorAnswers},
		{"answers lost", 5, g.answersLost},
		{"network cut", 4, g.cut},
		{"crash", 3, g.crash},
		{"drain", 2, g.drain},
		{"API outage", 1, g.outage},
	}
	var deck []int
	for i, s := range steps {
		for range s.cards {
			deck = append(deck, i)
		}
	}
	for range 20 {
		g.events()
		g.pause(3 * time.Second)
		s := steps[deck[g.rng.IntN(len(deck))]]
		g.done[s.name]++
		s.do()
	}
	g.events()
	g.await(20 * time.Minute)
	g.check()
	g.comeBack()
	g.t.Logf("%v; %v", g.done, g.check())
}

// comeBack lets those that were cut off be heard again, too late.
func (g *gamble) comeBack() {
	for _, i := range g.gone {
		i.network.set(false)
	}
	<-time.After(time.Minute)
}

// expireMembers does what the embedded broker leaves out: it does not time a
// member out whose connection ended while a join or a sync waited for others.
// Without it, such a member would keep its partitions for ever.
func (g *gamble) expireMembers() (stop func()) {
	const sessionTimeout = 10 * time.Second
	var mu sync.Mutex
	heard := make(map[string]time.Time) // by member
	note := func(member string) {
		mu.Lock()
		defer mu.Unlock()
		heard[member] = time.Now()
	}
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat} {
		g.cluster.ControlKey(int16(key), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			g.cluster.KeepControl()
			switch req := kreq.(type) {
			case *kmsg.JoinGroupRequest:
				note(req.MemberID)
			case *kmsg.SyncGroupRequest:
				note(req.MemberID)
			case *kmsg.HeartbeatRequest:
				note(req.MemberID)
			}
			return nil, nil, false
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reaper sync.WaitGroup
	reaper.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			groups, err := kadm.NewClient(g.feeder).DescribeGroups(ctx, g.Group)
			if err != nil || groups[g.Group].State != "Stable" {
				continue // a member that waits in a join is not timed out
			}
			for _, m := range groups[g.Group].Members {
				mu.Lock()
				silent := time.Since(heard[m.MemberID])
				mu.Unlock()
				if silent < sessionTimeout {
					continue
				}
				req := kmsg.NewPtrLeaveGroupRequest()
				req.Group = g.Group
				member := kmsg.NewLeaveGroupRequestMember()
				member.MemberID = m.MemberID
				req.Members = append(req.Members, member)
				_, _ = req.RequestWith(ctx, g.feeder) // next time, else
			}
		}
	})
	return func() { cancel(); reaper.Wait() }
}

func (g *gamble) begin(name string) {
	g.now = g.start(name, func(c *consumer.Config) {
		c.Retry.LookupDelay = time.Second
		c.Retry.NotFoundWindow = 20 * time.Second
	})
}

// pause is up to d.
func (g *gamble) pause(d time.Duration) { <-time.After(time.Duration(g.rng.Int64N(int64(d)))) }

// events feeds some of every kind.
func (g *gamble) events() {
	for range 1 + g.rng.IntN(40) {
		p := int32(g.rng.IntN(partitions))
		switch kind := g.rng.IntN(20); {
		case kind == 0:
			g.letter(p, []byte("junk"), schemas.Malformed)
		case kind == 1:
			g.feed(p, []byte(`{"CallbackCommand":"Call.CallbackAfterStartCall"}`), audit.Expect{})
		case kind == 2:
			id := "never-" + strconv.Itoa(g.fed)
			g.api.Never(id)
			g.letter(p, callback(id, time.Now()), schemas.NotFound)
		case kind < 6 && g.number > 0:
			g.call(p, "c"+strconv.Itoa(g.rng.IntN(g.number))) // repeated
		default:
			g.call(p, "c"+strconv.Itoa(g.number))
			g.number++
		}
	}
}

// errorAnswers has the broker refuse, or do and yet refuse, some requests of
// the next transactions.
func (g *gamble) errorAnswers() {
	keys := []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.Fetch, kmsg.OffsetFetch}
	errs := []*kerr.Error{
		kerr.UnknownServerError, kerr.RequestTimedOut, kerr.NotCoordinator, kerr.CoordinatorLoadInProgress,
		kerr.ConcurrentTransactions, kerr.InvalidTxnState, kerr.InvalidProducerEpoch, kerr.ProducerFenced,
		kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.TransactionAbortable, kerr.NotEnoughReplicasAfterAppend,
	}
	f := kfake.Fault{
		Keys: []kmsg.Key{keys[g.rng.IntN(len(keys))]}, Err: errs[g.rng.IntN(len(errs))],
		Count: 1 + g.rng.IntN(3), TopLevel: g.rng.IntN(2) == 0,
	}
	switch f.Keys[0] {
	case kmsg.Produce:
		f.Topic = g.Out // the feeder's requests are none of this
	case kmsg.Fetch:
		f.Topic, f.Err = g.In, kerr.NotLeaderForPartition
	case kmsg.OffsetFetch:
		f.Err = kerr.NotCoordinator
	}
	g.cluster.Fault(f)
}

// answersLost cuts the connection instead of letting some answer through.
func (g *gamble) answersLost() {
	keys := []kmsg.Key{kmsg.Produce, kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.EndTxn, kmsg.Heartbeat, kmsg.OffsetFetch}
	key, left := keys[g.rng.IntN(len(keys))], 1+g.rng.IntN(2)
	g.now.network.onRequest(func(k kmsg.Key) *fate {
		if k != key || left == 0 {
			return nil
		}
		left--
		return &fate{cut: true}
	})
}

// cut ends all connections, and some of the time allows no new ones for a
// while, which may be longer than the session time-out.
func (g *gamble) cut() {
	g.now.network.set(true)
	if g.rng.IntN(2) == 0 {
		g.pause(15 * time.Second)
	}
	g.now.network.set(false)
}

// crash: nothing more is heard of the instance; it or another one starts.
func (g *gamble) crash() {
	g.now.die()
	g.gone = append(g.gone, g.now)
	g.pause(3 * time.Second)
	g.begin([]string{"a", "b"}[g.rng.IntN(2)])
}

func (g *gamble) drain() {
	g.now.end()
	if g.now.err != nil {
		g.t.Errorf("drain: %v", g.now.err)
	}
	g.begin([]string{"a", "b"}[g.rng.IntN(2)])
}

func (g *gamble) outage() {
	g.api.SetOutage([]fetchtest.Fault{fetchtest.BadGateway(), fetchtest.Hang(), fetchtest.Named("rate_limited")}[g.rng.IntN(3)])
	g.pause(10 * time.Second)
	g.api.ClearOutage()
}

// explain prints what the instance that works says.
func (g *gamble) explain() {
	g.t.Logf("%v; ready: %v", g.done, g.now.Ready())
	for _, state := range []string{lookup.StateWaiting, lookup.StateLookingUp, lookup.StateCompleted} {
		g.t.Logf("%s: %v", state, g.now.metric("enricher_in_flight_events", state))
	}
	g.t.Logf("backlog %v, aborted %v, committed %v", g.now.metric("enricher_backlog_events"), g.now.metric("enricher_transactions_total", "aborted"), g.now.metric("enricher_transactions_total", "committed"))
	for _, l := range g.now.logs.All() {
		g.t.Log(l.Time.Format("15:04:05.000"), l.Level, l.Message, l.ContextMap())
	}
}
