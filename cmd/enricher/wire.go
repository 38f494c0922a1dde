package main

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
)

// service is a pipeline and what belongs to it.
type service struct {
	consumer *consumer.Consumer
	metrics  prometheus.Gatherer
	kafka    func() []kgo.Opt // for a further client
}

// wire puts the service together. All parts are made here, by hand.
func (c *runCmd) wire() (*service, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	client := &kafkaMetrics{}
	plain := func() []kgo.Opt { return append(slices.Clone(c.opts), kafkaLogger(c.log)) }
	cfg := consumer.Config{
		Kafka:           func() []kgo.Opt { return append(plain(), client.hook()) },
		Group:           c.Group,
		Instance:        c.Instance,
		InputTopics:     c.InputTopics,
		EnrichedTopic:   c.EnrichedTopic,
		DeadLetterTopic: c.DeadLetterTopic,
		Start:           consumer.Start(c.Start),
		SDKAppID:        c.SDKAppID,
		Client:          c.client,
		APIConcurrency:  c.APIConcurrency,
		Metrics:         consumer.NewMetrics(reg),
		Log:             c.log,
	}
	c.apply(&cfg)
	pipeline, err := consumer.New(cfg)
	if err != nil {
		return nil, err
	}
	return &service{pipeline, prometheus.Gatherers{reg, client}, plain}, nil
}
