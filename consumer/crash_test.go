package consumer_test

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/fetch/fetchtest"
	"enricher/test/harness"
	"enricher/test/kafkaproxy"
)

// crashPoint is a moment of a transaction: a request that is in flight. Handled
// means that the broker still handles it.
type crashPoint struct {
	Key     kmsg.Key
	Handled bool
}

// crashPoints are the moments at which instances crash. On the embedded broker the
// process has ended before the broker continues.
var crashPoints = map[string]crashPoint{
	"before produce":                {Key: kmsg.Produce},
	"during produce":                {Key: kmsg.Produce, Handled: true},
	"after produce":                 {Key: kmsg.TxnOffsetCommit},
	"after the offsets":             {Key: kmsg.TxnOffsetCommit, Handled: true},
	"before end":                    {Key: kmsg.EndTxn},
	"after end, before it is known": {Key: kmsg.EndTxn, Handled: true},
}

// hang makes the network of the instance hang at the crash point.
func (p *crashPoint) hang(k kmsg.Key) *kafkaproxy.Action {
	switch {
	case k != p.Key:
		return nil
	case p.Handled:
		return &kafkaproxy.Action{After: harness.Hang}
	}
	return &kafkaproxy.Action{Before: harness.Hang}
}

// killAt makes the embedded broker kill the process that is stored, once, when the
// crash point is reached.
func (e *env) killAt(p crashPoint) (armed *atomic.Pointer[harness.Process], died <-chan struct{}) {
	armed = new(atomic.Pointer[harness.Process])
	killed := make(chan struct{}, 1)
	e.Cluster.ControlKey(int16(p.Key), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.Cluster.KeepControl()
		process := armed.Swap(nil)
		if process == nil {
			return nil, nil, false
		}
		process.Kill()
		killed <- struct{}{}
		if p.Handled {
			return nil, nil, false
		}
		return nil, context.Canceled, true
	})
	return armed, killed
}

func (e *env) awaitDeath(died <-chan struct{}) {
	e.T.Helper()
	select {
	case <-died:
	case <-time.After(20 * time.Second):
		e.T.Fatal("the crash point was not reached")
	}
}

// TestCrashPoints kills an instance at every point of a transaction, starts it
// again and kills it again. Then another instance takes over.
func TestCrashPoints(t *testing.T) {
	for name, point := range crashPoints {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := childEnv(t, fetchtest.Config{})
			url := e.serveAPI()
			armed, died := e.killAt(point)
			for round := range 2 {
				p := e.spawn(childInstance{API: url, Instance: "a"})
				e.FeedCalls("warm"+strconv.Itoa(round)+"-", 30)
				e.Await(30 * time.Second)
				armed.Store(p)
				e.FeedCalls("c"+strconv.Itoa(round)+"-", 200)
				e.awaitDeath(died)
			}
			e.spawn(childInstance{API: url, Instance: "b"})
			e.Await(30 * time.Second)
			e.Check()
		})
	}
}

// TestKafkaCrashPoints does the same on a real Kafka, where the instance hangs at
// the crash point until it is killed.
func TestKafkaCrashPoints(t *testing.T) {
	t.Parallel()
	for name, point := range crashPoints {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := kafkaEnv(t, unevenAPI)
			url := e.serveAPI()
			for round := range 2 {
				e.FeedCalls("r"+strconv.Itoa(round)+"-", 5*partitions)
				e.killHanging(childInstance{API: url, Instance: "a", Unlimited: true, Hang: &point})
			}
			e.spawn(childInstance{API: url, Instance: "b", Unlimited: true})
			e.Await(time.Minute)
			e.Check()
		})
	}
}

// killHanging spawns an instance that hangs at a crash point, and kills it there,
// after the checks.
func (e *env) killHanging(c childInstance, checks ...func()) {
	e.T.Helper()
	p := e.spawn(c)
	if err := p.AwaitHang(); err != nil {
		e.T.Fatal(err)
	}
	for _, check := range checks {
		check()
	}
	p.Kill()
}

// TestAuditDetectsLoss checks the check: a pipeline that commits its offsets outside
// the transaction loses events when it crashes before the end, and the audit must
// report them.
func TestAuditDetectsLoss(t *testing.T) {
	t.Parallel()
	e := childEnv(t, fetchtest.Config{})
	url := e.serveAPI()
	// The broker commits at once what should wait for the end of the transaction.
	e.Cluster.ControlKey(int16(kmsg.TxnOffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		e.Cluster.KeepControl()
		req := kreq.(*kmsg.TxnOffsetCommitRequest)
		resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		plain := kmsg.NewPtrOffsetCommitRequest()
		plain.Group, plain.Generation, plain.MemberID = req.Group, req.Generation, req.MemberID
		for _, t := range req.Topics {
			pt, rt := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewTxnOffsetCommitResponseTopic()
			pt.Topic, pt.TopicID, rt.Topic, rt.TopicID = t.Topic, t.TopicID, t.Topic, t.TopicID
			for _, p := range t.Partitions {
				pp, rp := kmsg.NewOffsetCommitRequestTopicPartition(), kmsg.NewTxnOffsetCommitResponseTopicPartition()
				pp.Partition, pp.Offset, pp.Metadata, rp.Partition = p.Partition, p.Offset, p.Metadata, p.Partition
				pt.Partitions, rt.Partitions = append(pt.Partitions, pp), append(rt.Partitions, rp)
			}
			plain.Topics, resp.Topics = append(plain.Topics, pt), append(resp.Topics, rt)
		}
		e.Cluster.SleepControl(func() {
			if _, err := plain.RequestWith(context.Background(), e.Client); err != nil {
				t.Error(err)
			}
		})
		return resp, nil, true
	})
	armed, died := e.killAt(crashPoint{Key: kmsg.EndTxn})
	p := e.spawn(childInstance{API: url, Instance: "a"})
	e.FeedCalls("warm-", 30)
	e.Await(30 * time.Second)
	armed.Store(p)
	e.FeedCalls("c-", 200)
	e.awaitDeath(died)
	e.spawn(childInstance{API: url, Instance: "b"})
	e.FeedCalls("more-", 30)
	<-time.After(10 * time.Second) // until b has completed what it finds
	e.Eventually(20*time.Second, func() error {
		a := e.Audit()
		if a.OK() {
			t.Fatalf("the audit reports no loss: %v", a)
		}
		if a.Enriched < 100 || len(a.Lost) == 0 {
			return fmt.Errorf("want 100 enriched records and some losses: %v", a)
		}
		return nil
	})
}
