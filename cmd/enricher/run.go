package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

type runCmd struct {
	kafkaFlags
	topicFlags
	apiFlags
	policyFlags
	logFlags
	AdminAddr string `default:"127.0.0.1:9464" help:"Address of /livez, /readyz and /metrics."`
}

func (c *runCmd) check(in *inputs) {
	c.kafkaFlags.check(in)
	c.topicFlags.check(in)
	c.policyFlags.check(in)
	c.logFlags.check(in)
	in.required("admin-addr", c.AdminAddr)
	c.apiFlags.check(in) // last: it makes the client if all is well
}

// Run is the service: it waits for Kafka, checks what it finds there, and works
// until it is told to end.
func (c *runCmd) Run(ctx context.Context) (err error) {
	defer func() { _ = c.log.Sync() }() // standard error cannot be synced everywhere
	defer c.client.Close()
	service, err := c.wire()
	if err != nil {
		return err
	}
	service.status.set("starting")
	admin, err := listenAdmin(c.AdminAddr, adminHandler(service.ready, service.metrics))
	if err != nil {
		return fmt.Errorf("--admin-addr: %w", err)
	}
	defer func() {
		if closeErr := admin.close(); closeErr != nil {
			c.log.Warn("admin server", zap.Error(closeErr))
		}
	}()
	b := readBuild()
	c.log.Info("enricher starts", zap.String("version", b.version), zap.String("commit", b.commit),
		zap.String("group", c.Group), zap.String("instance", c.Instance), zap.Strings("input_topics", c.InputTopics),
		zap.Stringer("admin", admin.addr))

	if err := awaitKafka(ctx, service.kafka(), c.needs(), &service.status, c.log); err != nil || ctx.Err() != nil {
		return err
	}
	service.status.set("")
	err = service.consumer.Run(ctx)
	if err == nil {
		c.log.Info("drained; enricher ends")
	}
	return err
}

// status is why the service does not run yet; "" when it does.
type status struct {
	mu  sync.Mutex
	why string
}

func (s *status) set(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = why
}

func (s *status) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// Between two tries to reach Kafka at the start, and between two log lines
// about it.
const (
	retryKafka = time.Second
	sayKafka   = 10 * time.Second
)
