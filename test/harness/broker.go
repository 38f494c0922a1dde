// Package harness runs consumers against a broker and a simulated API, feeds them
// events and checks with an audit that each event has exactly the outcome that it
// must have.
//
// It is for tests only. The broker is embedded or a real Kafka; a test does not
// see the difference, except that embedded ones also run in virtual time.
package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
	"enricher/test/kafkaproxy"
)

// Broker is an embedded broker or a real Kafka.
type Broker struct {
	T     testing.TB
	Addrs []string
	Dial  kafkaproxy.DialFunc
	// Cluster is the embedded broker; nil: a real Kafka.
	Cluster *kfake.Cluster
	// Client reaches the broker. It produces records to the partitions that they
	// name.
	Client *kgo.Client
}

// InMemory starts an embedded broker whose network is memory, so that it can run
// in a bubble of virtual time.
func InMemory(t testing.TB, opts ...kfake.Opt) *Broker {
	t.Helper()
	network := new(kfake.VirtualNetwork)
	return embedded(t, network.DialContext, append(opts, kfake.Ports(9092), kfake.ListenFn(network.Listen)))
}

// OnLoopback starts an embedded broker that other processes reach.
func OnLoopback(t testing.TB, opts ...kfake.Opt) *Broker {
	t.Helper()
	return embedded(t, new(net.Dialer).DialContext, opts)
}

func embedded(t testing.TB, dial kafkaproxy.DialFunc, opts []kfake.Opt) *Broker {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := connect(t, dial, c.ListenAddrs())
	b.Cluster = c
	return b
}

// Connect uses brokers that are running already.
func Connect(t testing.TB, addrs ...string) *Broker {
	t.Helper()
	return connect(t, new(net.Dialer).DialContext, addrs)
}

func connect(t testing.TB, dial kafkaproxy.DialFunc, addrs []string) *Broker {
	t.Helper()
	b := &Broker{T: t, Addrs: addrs, Dial: dial}
	b.Client = b.NewClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(1048588))
	return b
}

// Opts are the client options that reach the broker.
func (b *Broker) Opts() []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(b.Addrs...), kgo.Dialer(b.Dial), kgo.MetadataMinAge(100 * time.Millisecond)}
}

// NewClient makes a client that is closed at the end of the test.
func (b *Broker) NewClient(opts ...kgo.Opt) *kgo.Client {
	b.T.Helper()
	cl, err := kgo.NewClient(append(b.Opts(), opts...)...)
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(cl.Close)
	return cl
}

// Admin is an administrator's client.
func (b *Broker) Admin() *kadm.Client { return kadm.NewClient(b.Client) }

// CreateTopics creates topics and waits until they can be used.
func (b *Broker) CreateTopics(partitions int, topics ...string) {
	b.T.Helper()
	created, err := b.Admin().CreateTopics(context.Background(), int32(partitions), -1, nil, topics...)
	if err = errors.Join(err, created.Error()); err != nil {
		b.T.Fatal(err)
	}
	for _, topic := range topics {
		b.AwaitTopic(topic, partitions)
	}
}

// AwaitTopic waits until so many partitions of a topic have a leader.
func (b *Broker) AwaitTopic(topic string, partitions int) {
	b.T.Helper()
	b.Eventually(30*time.Second, func() error {
		topics, err := b.Admin().ListTopics(context.Background(), topic)
		if err != nil {
			return err
		}
		if n := len(topics[topic].Partitions); n != partitions {
			return fmt.Errorf("topic %s has %d partitions, want %d", topic, n, partitions)
		}
		for _, p := range topics[topic].Partitions.Sorted() {
			if p.Err != nil || p.Leader < 0 {
				return fmt.Errorf("partition %d of topic %s has no leader: %w", p.Partition, topic, p.Err)
			}
		}
		return nil
	})
	b.Client.ForceMetadataRefresh()
}

// Produce produces records to the partitions that they name.
func (b *Broker) Produce(records ...*kgo.Record) {
	b.T.Helper()
	if err := b.Client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		b.T.Fatal(err)
	}
}

// Read reads topics from start to end, as a read_committed consumer.
func (b *Broker) Read(topics ...string) []*kgo.Record {
	b.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	records, err := audit.Read(ctx, b.Opts(), topics...)
	if err != nil {
		b.T.Fatal(err)
	}
	return records
}

// Eventually waits until check returns nil. It fails the test with check's last
// error after a limit.
func (b *Broker) Eventually(limit time.Duration, check func() error) {
	b.T.Helper()
	deadline := time.Now().Add(limit)
	for pause := 100 * time.Millisecond; ; pause = min(pause*3/2, limit/50, 5*time.Second) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.T.Fatalf("after %v: %v", limit, err)
		}
		<-time.After(pause)
	}
}
