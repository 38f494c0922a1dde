package dlqcmd

import (
	"context"
	"fmt"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"enricher/cmd/enricher/internal/admin"
	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/hint"
)

type exporterCmd struct {
	topicFlags
	config.ProcessFlags `group:"Service:"`
	Interval            time.Duration `args-only:"" default:"1m" group:"Service:" help:"How often to read what is new in the topics."`
}

// Example returns a command line for the help.
func (*exporterCmd) Example() string { return "enricher dlq exporter --admin-addr :9464" }

// Check implements config.Checker.
func (c *exporterCmd) Check(src *config.Sources) {
	c.topicFlags.Check(src)
	c.ProcessFlags.Check(src)
	if c.Interval < time.Second {
		src.Problem("interval", "must be at least 1s")
	}
}

// Run serves metrics about the open dead letters until ctx is done. It reads only.
func (c *exporterCmd) Run(ctx context.Context) (err error) {
	signal.Ignore(syscall.SIGPIPE) // a log that is not read must not end the process
	defer func() { _ = c.LogSink.Sync() }()
	var watch sync.WaitGroup
	defer watch.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch.Go(func() { c.Credentials.Watch(ctx, c.Log) })

	topics := c.topics()
	topics.Kafka = append(topics.Kafka[:len(topics.Kafka):len(topics.Kafka)], admin.KafkaLog(c.Log))
	var problem atomic.Pointer[string] // why the topics are not read
	starting := "not read yet"
	problem.Store(&starting)
	metrics := admin.NewMetrics()
	server, err := admin.Listen(admin.Config{
		Addr: c.AdminAddr, WebConfigFile: c.WebConfigFile, Profiles: c.AdminPprof, Metrics: metrics, Log: c.Log,
		Alive: func() bool { return true }, // it has no main loop
		Ready: func() []string {
			if p := problem.Load(); p != nil {
				return []string{*p}
			}
			return nil
		},
		Warnings: func() []string { return hint.Credentials(c.Credentials.Problems()) },
	})
	if err != nil {
		return fmt.Errorf("--admin-addr: %w", err)
	}
	stop := metrics.WatchDeadLetters(topics, c.Interval, func(err error) {
		var now *string
		if err != nil {
			err = c.explain(err)
			text := err.Error()
			now = &text
		}
		switch before := problem.Swap(now); {
		case now != nil && (before == nil || *before != *now):
			c.Log.Warn("dead letters cannot be read", zap.Error(err), zap.String("hint", hint.For(err)))
		case now == nil && before != nil:
			c.Log.Info("dead letters are read", zap.String("topic", c.DeadLetterTopic))
		}
	})
	c.Log.Info("starting", zap.String("topic", c.DeadLetterTopic), zap.Stringer("admin", server.Addr))
	<-ctx.Done()
	stop()
	return server.Close()
}
