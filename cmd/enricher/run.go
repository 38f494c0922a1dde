package main

import (
	"context"
	"fmt"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/cmd/enricher/internal/admin"
	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/credentials"
	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/preflight"
	"enricher/consumer"
	"enricher/consumer/session"
	"enricher/schemas"
)

type runCmd struct{ config.ServiceFlags }

// Example returns a command line for the help.
func (*runCmd) Example() string {
	return `enricher run --brokers kafka-1:9092,kafka-2:9092 --region singapore \
    --sdk-app-id 1400000000 --secret-key-file secret-key`
}

// Run waits for Kafka, checks what the service needs there, and processes events
// until ctx is done.
func (c *runCmd) Run(ctx context.Context) (err error) {
	// A log that is not read must not end the process, nor hold it up.
	signal.Ignore(syscall.SIGPIPE)
	defer func() { _ = c.LogSink.Sync() }()
	defer zap.RedirectStdLog(c.Log)()
	defer c.Client.Close()
	cfg := c.Pipeline()
	kafkaLog := admin.KafkaLog(c.Log) // one for all clients, so that it limits what they repeat
	kafka := func() []kgo.Opt { return append(slices.Clone(c.Options), kafkaLog) }
	cfg.Kafka = kafka
	encoder := &schemas.Encoder{Format: c.Format()}
	cfg.Encode = encoder.Encode
	s, err := newService(cfg, c.Credentials)
	if err != nil {
		return err
	}
	defer c.watchCredentials(ctx)()
	s.metrics.ExposeDroppedLines(c.LogSink.Dropped)
	s.status.set("starting")
	server, err := admin.Listen(admin.Config{
		Addr: c.AdminAddr, WebConfigFile: c.WebConfigFile, Profiles: c.AdminPprof,
		Alive: s.alive, Ready: s.ready, Warnings: s.warnings, Metrics: s.metrics, Log: c.Log,
	})
	if err != nil {
		return fmt.Errorf("--admin-addr: %w", err)
	}
	defer func() {
		if closeErr := server.Close(); closeErr != nil {
			c.Log.Warn("admin server shutdown failed", zap.Error(closeErr))
		}
	}()
	b := readBuild()
	c.Log.Info("starting", zap.String("version", b.version), zap.String("commit", b.commit),
		zap.String("group", c.Group), zap.String("instance", c.Instance), zap.Strings("input_topics", c.InputTopics),
		zap.Stringer("admin", server.Addr))

	if err := c.identify(ctx, encoder, &s.status); err != nil || ctx.Err() != nil {
		return err
	}
	if err := awaitKafka(ctx, kafka(), c.requirements(), &s.status, c.Log); err != nil || ctx.Err() != nil {
		return err
	}
	s.status.set("")
	if err := s.pipeline.Run(ctx); err != nil {
		return hint.Explain(err, c.Principal())
	}
	c.Log.Info("stopped")
	return nil
}

// identify makes an encoder write how readers find the schema in the registry, if
// there is one.
func (c *runCmd) identify(ctx context.Context, e *schemas.Encoder, s *startupStatus) error {
	if c.Registry == nil {
		return nil
	}
	found, err := awaitSchema(ctx, c.Registry, s, c.Log)
	if err == nil && ctx.Err() == nil {
		c.Log.Info("schema found in the registry", zap.String("subject", found.Subject), zap.Int("version", found.Version),
			zap.Int("id", found.ID), zap.String("guid", found.GUID))
		err = c.Identify(e, found)
	}
	return hint.Explain(err, "")
}

// watchCredentials looks after the credentials for Kafka until the returned function
// is called.
func (c *runCmd) watchCredentials(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { c.Credentials.Watch(ctx, c.Log) })
	return func() {
		cancel()
		watch.Wait()
	}
}

// service is a pipeline with its metrics and readiness.
type service struct {
	pipeline    *consumer.Consumer
	credentials *credentials.Credentials
	metrics     *admin.Metrics
	status      startupStatus
}

func newService(cfg consumer.Config, login *credentials.Credentials) (*service, error) {
	s := &service{credentials: login, metrics: admin.Instrument(&cfg)}
	var err error
	if s.pipeline, err = consumer.New(cfg); err != nil {
		return nil, err
	}
	s.metrics.ExposeReady(s.ready)
	s.metrics.ExposeCredentialProblems(func() int { return len(login.Problems()) })
	return s, nil
}

// alive reports whether the service is making turns, or has not started yet.
func (s *service) alive() bool { return s.status.get() != "" || s.pipeline.Alive() }

// ready lists why the service is not ready; it returns nothing when it is.
func (s *service) ready() []string {
	if reason := s.status.get(); reason != "" {
		return []string{reason}
	}
	return hint.Conditions(s.pipeline.Ready())
}

// warnings lists what does not keep the service from being ready.
func (s *service) warnings() []string {
	return append(hint.Conditions(s.pipeline.Warnings()), hint.Credentials(s.credentials.Problems())...)
}

// requirements returns what the service uses on the brokers.
func (c *runCmd) requirements() preflight.Requirements {
	return preflight.Requirements{
		Group:           c.Group,
		TransactionalID: session.TransactionalID(c.Group, c.Instance),
		Read:            c.InputTopics,
		Write:           []string{c.EnrichedTopic, c.DeadLetterTopic},
		Principal:       c.Principal(),
	}
}
