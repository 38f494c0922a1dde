package harness

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/kafkaproxy"
)

// Partitions is how many each topic of an environment has.
const Partitions = 12

// Topics are the names of a service's topics and of its group.
type Topics struct{ In, Enriched, Dead, Group string }

// DefaultTopics are the names on a broker that no other test uses.
var DefaultTopics = Topics{In: "calls", Enriched: "enriched", Dead: "dead", Group: "g"}

// UniqueTopics are names that no other test has.
func UniqueTopics() Topics {
	id := "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	return Topics{In: "calls" + id, Enriched: "enriched" + id, Dead: "dead" + id, Group: "g" + id}
}

// Apply sets the names in a configuration.
func (t Topics) Apply(c *consumer.Config) {
	c.Group, c.InputTopics, c.EnrichedTopic, c.DeadLetterTopic = t.Group, []string{t.In}, t.Enriched, t.Dead
}

// SeedTopics creates the default topics on an embedded broker.
func SeedTopics() kfake.Opt {
	return kfake.SeedTopics(Partitions, DefaultTopics.In, DefaultTopics.Enriched, DefaultTopics.Dead)
}

// Env is all that surrounds the consumers of a test: a broker with their topics, a
// simulated API, and a ledger of the events fed so far.
type Env struct {
	*Broker
	Topics
	API    *fetchtest.API
	Ledger audit.Ledger
	// Fed is the number of events fed by Feed.
	Fed int
	// Settings changes the configuration of every instance, if not nil.
	Settings func(*consumer.Config)
	// OnRequest is that of the proxy of every instance, from its start, if not nil.
	OnRequest func(kmsg.Key) *kafkaproxy.Action

	feeder audittest.Feeder

	mu        sync.Mutex
	instances map[string]*Instance // the last one by each name; nil before the first
}

// NewEnv surrounds consumers with a broker that has the topics, and an API.
func NewEnv(b *Broker, topics Topics, api fetchtest.Config) *Env {
	e := &Env{Broker: b, Topics: topics, API: fetchtest.New(api)}
	e.feeder = audittest.Feeder{Client: b.Client, Topic: topics.In, Ledger: &e.Ledger}
	return e
}

// Feed produces an event and adds it to the ledger. It sets a key if the event
// has none.
func (e *Env) Feed(partition int32, event audit.Expect) {
	e.T.Helper()
	if err := e.feeder.Feed(context.Background(), partition, e.withKey(event)); err != nil {
		e.T.Fatal(err)
	}
}

// FeedAll feeds events to partition 0 without waiting for each.
func (e *Env) FeedAll(events ...audit.Expect) {
	e.T.Helper()
	for _, event := range events {
		e.feeder.Send(context.Background(), 0, e.withKey(event))
	}
	if err := e.feeder.Flush(context.Background()); err != nil {
		e.T.Fatal(err)
	}
}

func (e *Env) withKey(event audit.Expect) audit.Expect {
	if event.Key == nil {
		event.Key = []byte("key-" + strconv.Itoa(e.Fed))
	}
	e.Fed++
	return event
}

// FeedValue feeds an event that must become an enriched record of a call.
func (e *Env) FeedValue(partition int32, value, callID string) {
	e.T.Helper()
	event := audittest.Enriched(e.API, callID)
	event.Value = []byte(value)
	e.Feed(partition, event)
}

// FeedCall feeds the end of a call whose record exists.
func (e *Env) FeedCall(partition int32, callID string) {
	e.T.Helper()
	e.FeedValue(partition, string(audittest.EndCall(callID, time.Now())), callID)
}

// FeedCalls feeds the ends of n calls, over all partitions. The prefix makes
// their CallIds unique.
func (e *Env) FeedCalls(prefix string, n int) {
	e.T.Helper()
	for i := range n {
		e.FeedCall(int32(i%Partitions), prefix+strconv.Itoa(i))
	}
}

// FeedDead feeds an event that must become a dead letter for one of the reasons.
func (e *Env) FeedDead(partition int32, value []byte, reasons ...schemas.Reason) {
	e.T.Helper()
	e.Feed(partition, audit.Expect{Value: value, Reasons: reasons})
}

// KeepFeeding feeds a call at every interval until the caller calls stop, which
// returns when the last one has been fed.
func (e *Env) KeepFeeding(every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
				e.FeedCall(int32(n%Partitions), "c"+strconv.Itoa(n))
			}
		}
	}()
	return func() {
		cancel()
		<-fed
	}
}

// Outputs reads both output topics.
func (e *Env) Outputs() []*kgo.Record {
	e.T.Helper()
	return e.Read(e.Enriched, e.Dead)
}

// Audit compares the outputs so far with the ledger.
func (e *Env) Audit() *audit.Report {
	e.T.Helper()
	return e.Ledger.Check(e.Outputs())
}

// Await waits until there are as many outputs as the ledger expects.
func (e *Env) Await(limit time.Duration) {
	e.T.Helper()
	e.Eventually(limit, func() error {
		outputs := e.Outputs()
		if n := e.Ledger.Due(); len(outputs) < n {
			return fmt.Errorf("%d outputs of %d; %v", len(outputs), n, e.Ledger.Check(outputs))
		}
		return nil
	})
}

// Check fails the test unless every event has exactly the outcome that it must
// have, and the group has committed all events.
func (e *Env) Check() *audit.Report {
	e.T.Helper()
	report := e.Audit()
	if !report.OK() {
		e.T.Fatal(report)
	}
	e.CheckOffsets()
	return report
}

// CheckOffsets waits until the committed offset of every partition with events is
// its end. A skipped event has no outcome to wait for, so its commit may follow.
func (e *Env) CheckOffsets() {
	e.T.Helper()
	e.Eventually(20*time.Second, func() error {
		committed, err := e.Admin().FetchOffsets(context.Background(), e.Group)
		if err != nil {
			return err
		}
		ends, err := e.Admin().ListEndOffsets(context.Background(), e.In)
		if err != nil {
			return err
		}
		behind := ""
		ends.Each(func(end kadm.ListedOffset) {
			at, ok := committed.Lookup(e.In, end.Partition)
			if end.Offset > 0 && (!ok || at.At != end.Offset) {
				behind += fmt.Sprintf("partition %d: committed %d, end %d; ", end.Partition, at.At, end.Offset)
			}
		})
		if behind != "" {
			return errors.New(behind)
		}
		return nil
	})
}
