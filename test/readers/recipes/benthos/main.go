// Command benthos is the core of Redpanda Connect, which runs the recipes for it, with
// an input kafka_franz. Redpanda Connect has its own, and under another licence; this
// one has the fields that the recipes set.
package main

import (
	"context"
	"fmt"

	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
)

func main() {
	spec := service.NewConfigSpec().Fields(
		service.NewStringListField("seed_brokers"),
		service.NewStringListField("topics"),
		service.NewStringField("consumer_group"),
		service.NewStringEnumField("transaction_isolation_level", "read_uncommitted", "read_committed").Default("read_uncommitted"),
	)
	err := service.RegisterInput("kafka_franz", spec, func(c *service.ParsedConfig, _ *service.Resources) (service.Input, error) {
		in, err := newInput(c)
		if err != nil {
			return nil, err
		}
		return service.AutoRetryNacks(in), nil
	})
	if err != nil {
		panic(err)
	}
	service.RunCLI(context.Background())
}

// input reads topics from their start.
type input struct {
	opts    []kgo.Opt
	client  *kgo.Client
	records []*kgo.Record
}

func newInput(c *service.ParsedConfig) (*input, error) {
	brokers, err := c.FieldStringList("seed_brokers")
	if err != nil {
		return nil, err
	}
	topics, err := c.FieldStringList("topics")
	if err != nil {
		return nil, err
	}
	group, err := c.FieldString("consumer_group")
	if err != nil {
		return nil, err
	}
	isolation, err := c.FieldString("transaction_isolation_level")
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topics...), kgo.ConsumerGroup(group)}
	if isolation == "read_committed" {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	return &input{opts: opts}, nil
}

// Connect implements service.Input.
func (in *input) Connect(context.Context) (err error) {
	in.client, err = kgo.NewClient(in.opts...)
	return err
}

// Read implements service.Input.
func (in *input) Read(ctx context.Context) (*service.Message, service.AckFunc, error) {
	for len(in.records) == 0 {
		fetches := in.client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, nil, fmt.Errorf("poll: %w", err)
		}
		in.records = fetches.Records()
	}
	r := in.records[0]
	in.records = in.records[1:]
	return service.NewMessage(r.Value), func(context.Context, error) error { return nil }, nil
}

// Close implements service.Input.
func (in *input) Close(context.Context) error {
	if in.client != nil {
		in.client.Close()
	}
	return nil
}
