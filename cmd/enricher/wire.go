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
	status   status
}

// newService makes a pipeline and what is measured of it. kafka makes the
// options that reach the brokers.
func newService(cfg consumer.Config, kafka func() []kgo.Opt) (*service, error) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	client := &kafkaMetrics{}
	cfg.Kafka = func() []kgo.Opt { return append(kafka(), client.hook()) }
	cfg.Metrics = consumer.NewMetrics(reg)
	pipeline, err := consumer.New(cfg)
	if err != nil {
		return nil, err
	}
	s := &service{consumer: pipeline, metrics: prometheus.Gatherers{reg, client}, kafka: kafka}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "enricher", Name: "ready", Help: "1 while the instance is ready, as /readyz tells with the reasons.",
	}, func() float64 {
		if len(s.ready()) > 0 {
			return 0
		}
		return 1
	}))
	return s, nil
}

// ready lists why the service is not ready; nothing when it is.
func (s *service) ready() []string {
	if why := s.status.get(); why != "" {
		return []string{why}
	}
	var why []string
	for _, c := range s.consumer.Ready() {
		why = append(why, c.String())
	}
	return why
}

// wire puts the service together. All parts are made here, by hand.
func (c *runCmd) wire() (*service, error) {
	cfg := consumer.Config{
		Group:           c.Group,
		Instance:        c.Instance,
		InputTopics:     c.InputTopics,
		EnrichedTopic:   c.EnrichedTopic,
		DeadLetterTopic: c.DeadLetterTopic,
		AutoOffsetReset: consumer.AutoOffsetReset(c.Start),
		SDKAppID:        c.SDKAppID,
		Client:          c.client,
		APIConcurrency:  c.APIConcurrency,
		Log:             c.log,
	}
	c.apply(&cfg)
	return newService(cfg, func() []kgo.Opt { return append(slices.Clone(c.opts), kafkaLogger(c.log)) })
}
