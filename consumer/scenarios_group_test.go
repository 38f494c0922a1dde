package consumer_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/consumer"
	"enricher/consumer/session"
	"enricher/fetch/fetchtest"
	"enricher/test/harness"
	"enricher/test/kafkaproxy"
)

// faultyAPI fails some requests at random.
var faultyAPI = fetchtest.Config{Rate: 200, Misbehave: []fetchtest.Chance{
	{Percent: 3, Fault: fetchtest.BadGateway()}, {Percent: 2, Fault: fetchtest.NotJSON()}, {Percent: 2, Fault: fetchtest.CutBody()},
}}

func TestMembersJoinLeaveAndCrash(t *testing.T) { inRealTime(t, faultyAPI, membersJoinLeaveAndCrash) }
func TestKafkaMembersJoinLeaveAndCrash(t *testing.T) {
	aloneOnKafka(t, faultyAPI, membersJoinLeaveAndCrash)
}

// membersJoinLeaveAndCrash under load, within the rate limit.
func membersJoinLeaveAndCrash(t *testing.T, e *env) {
	feeding := make(chan struct{})
	go func() {
		defer close(feeding)
		for n := range 3000 {
			e.FeedCall(int32(n%partitions), "c"+strconv.Itoa(n/2))
			<-time.After(4 * time.Millisecond)
		}
	}()
	pause := func(ms int) { <-time.After(time.Duration(ms) * time.Millisecond) }
	a := e.Start("a", quick)
	pause(1500)
	b := e.Start("b", quick)
	pause(1700)
	c := e.Start("c", quick)
	pause(1500)
	a.CutOff()
	pause(3000)
	b.Drain()
	<-a.Done
	e.Start("a", quick)
	pause(1300)
	c.CutOff()
	pause(2500)
	<-c.Done
	e.Start("c", quick)
	<-feeding
	e.Await(time.Minute)
	e.Check()
	if n := e.API.MaxInAnyWindow(time.Second); n > 200 {
		t.Errorf("%d requests in one second", n)
	}
	if n := e.API.OverQuota(); n > 0 {
		t.Errorf("%d requests exceeded the API's quota", n)
	}
}

var latencyAPI = fetchtest.Config{Rate: 200, Latency: func(string) time.Duration { return 40 * time.Millisecond }}

func TestRateLimitIsUsed(t *testing.T)      { aloneInRealTime(t, latencyAPI, rateLimitIsUsed) }
func TestKafkaRateLimitIsUsed(t *testing.T) { aloneOnKafka(t, latencyAPI, rateLimitIsUsed) }

// rateLimitIsUsed by three members with a backlog on all partitions.
func rateLimitIsUsed(t *testing.T, e *env) {
	e.FeedCalls("c", 5000)
	for _, name := range []string{"a", "b", "c"} {
		e.Start(name, quick)
		<-time.After(time.Second)
	}
	// Five seconds after the last share the limiter has seen how fast the API is.
	<-time.After(shareDelay + 5*time.Second)
	// The median of eleven seconds, because the machine may be busy in one of them.
	start := time.Now()
	<-time.After(11 * time.Second)
	seconds := make([]int, 11)
	for _, at := range e.API.Arrivals() {
		if n := int(at.Sub(start) / time.Second); !at.Before(start) && n < len(seconds) {
			seconds[n]++
		}
	}
	slices.Sort(seconds)
	if used := seconds[len(seconds)/2]; used < 200*harness.MinRateUsedPercent/100 {
		t.Errorf("%d requests in a second, want %d %% of 200; all seconds: %v", used, harness.MinRateUsedPercent, seconds)
	}
	if n := e.API.MaxInAnyWindow(time.Second); n > 200 {
		t.Errorf("%d requests in one second", n)
	}
}

func TestJoinsAbortFewTransactions(t *testing.T) {
	aloneInRealTime(t, fetchtest.Config{}, joinsAbortFewTransactions)
}

func TestKafkaJoinsAbortFewTransactions(t *testing.T) {
	aloneOnKafka(t, fetchtest.Config{}, joinsAbortFewTransactions)
}

// joinsAbortFewTransactions when a third member joins and leaves five times, with a
// transaction open nearly all the time.
func joinsAbortFewTransactions(t *testing.T, e *env) {
	stop := e.KeepFeeding(4 * time.Millisecond)
	busy := func(c *consumer.Config) {
		quick(c)
		c.APIRate, c.CommitInterval = 0, 5*time.Millisecond
	}
	instances := []*harness.Instance{e.Start("a", busy), e.Start("b", busy)}
	<-time.After(2 * time.Second)
	for range 5 {
		c := e.Start("c", busy)
		instances = append(instances, c)
		<-time.After(1500 * time.Millisecond)
		c.Drain()
		<-time.After(500 * time.Millisecond)
	}
	stop()
	e.Await(time.Minute)
	e.Check()
	aborted, committed := 0.0, 0.0
	for _, i := range instances {
		aborted += i.Metric("enricher_transactions_total", "aborted")
		committed += i.Metric("enricher_transactions_total", "committed")
	}
	t.Logf("%v transactions committed, %v aborted", committed, aborted)
	if aborted > harness.MaxAbortedByJoins {
		t.Errorf("%v transactions aborted, want at most %d", aborted, harness.MaxAbortedByJoins)
	}
}

func TestJoinsRepeatFewRequests(t *testing.T) {
	inRealTime(t, api300ms, joinsRepeatFewRequests)
}
func TestKafkaJoinsRepeatFewRequests(t *testing.T) { onKafka(t, api300ms, joinsRepeatFewRequests) }

var api300ms = fetchtest.Config{Latency: func(string) time.Duration { return 300 * time.Millisecond }}

// joinsRepeatFewRequests when a second member joins five times: each time half of
// the 15 requests in flight are for partitions that the first one gives up.
func joinsRepeatFewRequests(t *testing.T, e *env) {
	stop := e.KeepFeeding(20 * time.Millisecond)
	usual := func(c *consumer.Config) {
		quick(c)
		c.SessionTimeout = 10 * time.Second // long enough for b to begin at once
	}
	e.Start("a", usual)
	<-time.After(2 * time.Second)
	for range 5 {
		b := e.Start("b", usual)
		e.awaitMembers(2)
		<-time.After(time.Second)
		b.Drain()
		<-b.Done
	}
	stop()
	e.Await(time.Minute)
	e.Check()
	repeated := e.API.Requests() - e.API.UniqueCallIDs()
	t.Logf("%d requests, %d of them repeated", e.API.Requests(), repeated)
	if repeated > 5 {
		t.Errorf("%d requests were repeated, want at most 5", repeated)
	}
}

func TestDuplicateInstance(t *testing.T)      { inRealTime(t, fetchtest.Config{}, duplicateInstance) }
func TestKafkaDuplicateInstance(t *testing.T) { onKafka(t, fetchtest.Config{}, duplicateInstance) }

// duplicateInstance ends the process of that name that started first, with an error
// that names the instance.
func duplicateInstance(t *testing.T, e *env) {
	stop := e.KeepFeeding(10 * time.Millisecond)
	first := e.Start("a", quick)
	<-time.After(2 * time.Second)
	second := e.Start("a", quick)
	select {
	case <-first.Done:
	case <-time.After(30 * time.Second):
		t.Fatal("both continue")
	}
	var duplicate *consumer.DuplicateInstanceError
	if !errors.As(first.Err, &duplicate) || duplicate.Instance != "a" {
		t.Errorf("the first ended with %v", first.Err)
	}
	stop()
	e.Await(30 * time.Second)
	e.Check()
	select {
	case <-second.Done:
		t.Errorf("the second ended too: %v", second.Err)
	default:
	}
}

func TestTwoJoinsWithoutTransaction(t *testing.T) {
	inRealTime(t, fetchtest.Config{}, twoJoinsWithoutTransaction)
}

func TestKafkaTwoJoinsWithoutTransaction(t *testing.T) {
	onKafka(t, fetchtest.Config{}, twoJoinsWithoutTransaction)
}

// twoJoinsWithoutTransaction of the first member in between. Its Kafka client
// reports only the first loss of partitions, and it must not commit for those of
// the second.
func twoJoinsWithoutTransaction(t *testing.T, e *env) {
	e.FeedCalls("c", 10*partitions)
	late := func(c *consumer.Config) {
		quick(c)
		c.Retry.LookupDelay = 6 * time.Second
	}
	a := e.Start("a", late)
	e.awaitMembers(1)
	e.Start("b", late)
	e.awaitMembers(2)
	e.Start("c", late)
	e.awaitMembers(3)
	if a.Metric("enricher_transactions_total") > 0 {
		t.Fatal("a transaction ended before the second join: this test shows nothing")
	}
	e.Await(time.Minute)
	e.FeedCalls("d", 2*partitions)
	e.Await(time.Minute)
	e.Check()
}

// removeFromGroup makes the coordinator forget an instance.
func (e *env) removeFromGroup(instance string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	groups, err := e.Admin().DescribeGroups(ctx, e.Group)
	if err != nil {
		e.T.Error(err)
		return
	}
	for _, m := range groups[e.Group].Members {
		if !strings.HasPrefix(m.ClientID, instance+"@") {
			continue
		}
		req := kmsg.NewPtrLeaveGroupRequest()
		req.Group, req.MemberID = e.Group, m.MemberID
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID = m.MemberID
		req.Members = append(req.Members, member)
		resp, err := req.RequestWith(ctx, e.Client)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			e.T.Error(err)
		}
		return
	}
	e.T.Errorf("%s is not a member", instance)
}

func TestRemovedFromGroup(t *testing.T)      { inRealTime(t, fetchtest.Config{}, removedFromGroup) }
func TestKafkaRemovedFromGroup(t *testing.T) { onKafka(t, fetchtest.Config{}, removedFromGroup) }

// removedFromGroup while the member blocks rebalances, between its poll and the end
// of its transaction. The end waits for the heartbeats, which wait for a rebalance
// to be allowed.
func removedFromGroup(t *testing.T, e *env) {
	i := e.Start("a", quick)
	e.FeedCalls("warm-", partitions)
	e.Await(time.Minute)
	var armed atomic.Bool
	i.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
		if k != kmsg.Produce || !armed.CompareAndSwap(true, false) {
			return nil
		}
		return &kafkaproxy.Action{Before: func() {
			e.removeFromGroup("a")
			<-time.After(400 * time.Millisecond) // until the response to a heartbeat reports it
		}}
	})
	for n := range 3 {
		armed.Store(true)
		e.FeedCalls("c"+strconv.Itoa(n)+"-", partitions)
		e.Await(15 * time.Second)
		if armed.Load() {
			t.Fatal("the member was not removed: this test shows nothing")
		}
	}
	e.Check()
	if n := i.Metric("enricher_kafka_session_restarts_total"); n > 0 {
		t.Errorf("%v session restarts, want none: the member joins again", n)
	}
}

func TestBlackholedMember(t *testing.T)      { inRealTime(t, fetchtest.Config{}, blackholedMember) }
func TestKafkaBlackholedMember(t *testing.T) { onKafka(t, fetchtest.Config{}, blackholedMember) }

// blackholedMember loses all packets in the middle of the end of a transaction.
// The other member takes over. Requests that arrive late do no harm. The member
// continues when packets pass again, and drains while they do not.
func blackholedMember(t *testing.T, e *env) {
	a := e.Start("a", quick, func(c *consumer.Config) { c.DrainTimeout = 3 * time.Second })
	e.Start("b", quick)
	e.awaitMembers(2)
	e.FeedCalls("warm-", 2*partitions)
	e.Await(time.Minute)

	gone := make(chan struct{})
	var once atomic.Bool
	a.Proxy.OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
		if k != kmsg.EndTxn || !once.CompareAndSwap(false, true) {
			return nil
		}
		return &kafkaproxy.Action{Before: func() {
			a.Proxy.SetBlackhole(true)
			close(gone)
		}}
	})
	e.FeedCalls("c", 2*partitions)
	<-gone
	start := time.Now()
	e.FeedCalls("d", 2*partitions)
	// b waits for the session timeout and for the timeout of the transaction, which
	// may still commit offsets.
	e.Await(30 * time.Second)
	t.Logf("the other member continued after %v", time.Since(start))
	a.Proxy.SetBlackhole(false)
	e.awaitMembers(2)
	e.FeedCalls("e", 2*partitions)
	e.Await(30 * time.Second)
	e.Check()

	a.Proxy.SetBlackhole(true)
	start = time.Now()
	a.Stop()
	<-a.Done
	if took := time.Since(start); a.Err != nil || took > 4*time.Second {
		t.Errorf("ended after %v: %v", took, a.Err)
	}
	e.FeedCalls("f", 2*partitions)
	e.Await(30 * time.Second)
	e.Check()
}

func TestCloseInBlackhole(t *testing.T)      { inRealTime(t, fetchtest.Config{}, closeInBlackhole) }
func TestKafkaCloseInBlackhole(t *testing.T) { onKafka(t, fetchtest.Config{}, closeInBlackhole) }

// closeInBlackhole ends within seconds. The Kafka client's own close takes minutes.
func closeInBlackhole(t *testing.T, e *env) {
	p := kafkaproxy.New(e.Dial)
	s := e.openSession(kgo.Dialer(p.DialContext))
	for len(s.TakeAssignments()) == 0 {
		s.AllowRebalance()
		e.poll(s)
	}
	p.SetBlackhole(true)
	defer p.SetBlackhole(false)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.Close()
	}()
	select {
	case <-closed:
	case <-time.After(9 * time.Second):
		t.Error("the close took more than 9 s")
	}
}

// openSession opens a session without a consumer around it.
func (e *env) openSession(opts ...kgo.Opt) *session.Session {
	e.T.Helper()
	s, err := session.Open(context.Background(), session.Config{
		Kafka: e.Opts, GroupOpts: opts, Group: e.Group, Instance: "alone", Started: time.Now(),
		Topics: []string{e.In}, Log: zap.NewNop(),
	})
	if err != nil {
		e.T.Fatal(err)
	}
	return s
}

// poll polls for a moment and returns the number of records.
func (e *env) poll(s *session.Session) int {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	fetches := s.Poll(ctx, 100)
	return fetches.NumRecords()
}
