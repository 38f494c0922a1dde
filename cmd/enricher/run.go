package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/cmd/enricher/internal/admin"
	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/credentials"
	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/preflight"
	"enricher/consumer"
	"enricher/consumer/session"
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

// startupStatus is the reason why the service is not running yet, or "" once it
// is running.
type startupStatus struct {
	mu     sync.Mutex
	reason string
}

func (s *startupStatus) set(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason = reason
}

func (s *startupStatus) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
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

// While Kafka is unavailable at the start, the service tries again and logs that
// it is waiting at these intervals.
const (
	retryKafkaEvery = time.Second
	logWaitingEvery = 10 * time.Second
	checkTimeout    = 10 * time.Second // of one try
	// Brokers learn of a new topic or permission some time after its creator.
	problemsLast = 3 * time.Second
)

// awaitKafka waits until Kafka responds. It returns everything in Kafka that
// keeps the service from running, for problemsLast, or nil when ctx ends first.
func awaitKafka(ctx context.Context, opts []kgo.Opt, r preflight.Requirements, s *startupStatus, log *zap.Logger) error {
	cl, err := kgo.NewClient(append(opts, kgo.RequestRetries(0))...)
	if err != nil {
		return fmt.Errorf("configure Kafka client: %w", err)
	}
	defer cl.Close()
	var logged, found time.Time
	for ctx.Err() == nil {
		problems, err := checkKafka(ctx, cl, r)
		if err == nil {
			err = errors.Join(problems...)
			if found.IsZero() {
				found = time.Now()
			}
			if err == nil || time.Since(found) >= problemsLast {
				return err
			}
			logged = time.Now() // nothing to log: what still fails then is the error of the command
		}
		if ctx.Err() != nil {
			return nil
		}
		advice := hint.Connection(err)
		s.set("kafka: " + err.Error() + "; " + advice)
		if time.Since(logged) >= logWaitingEvery {
			logged = time.Now()
			log.Warn("waiting for Kafka", zap.Error(err), zap.String("hint", advice))
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryKafkaEvery):
		}
	}
	return nil
}

// checkKafka checks topics and permissions, and that group and transactional id
// have a coordinator. The error means that Kafka does not respond, or not yet.
func checkKafka(ctx context.Context, cl *kgo.Client, r preflight.Requirements) (problems []error, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	problems, err = r.Problems(ctx, cl)
	if err != nil || len(problems) > 0 {
		return problems, err
	}
	for _, c := range []struct {
		kind, name string
		key        int8
	}{
		{kind: "group", name: r.Group, key: 0},
		{kind: "transactional id", name: r.TransactionalID, key: 1},
	} {
		if err := findCoordinator(ctx, cl, c.name, c.key); err != nil {
			return nil, fmt.Errorf("find the coordinator of %s %q: %w", c.kind, c.name, err)
		}
	}
	return nil, nil
}

func findCoordinator(ctx context.Context, cl *kgo.Client, name string, kind int8) error {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey, req.CoordinatorKeys, req.CoordinatorType = name, []string{name}, kind
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	for _, c := range resp.Coordinators {
		if err := kerr.ErrorForCode(c.ErrorCode); err != nil {
			return err
		}
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}
