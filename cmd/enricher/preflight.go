package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/cmd/enricher/internal/preflight"
	"enricher/consumer/session"
)

// needs is what the service uses on the brokers.
func (c *runCmd) needs() preflight.Needs {
	n := preflight.Needs{
		Group:           c.Group,
		TransactionalID: session.TransactionalID(c.Group, c.Instance),
		Read:            c.InputTopics,
		Write:           []string{c.EnrichedTopic, c.DeadLetterTopic},
	}
	if c.SASLUser != "" {
		n.Principal = "User:" + c.SASLUser
	}
	return n
}

// awaitKafka waits until Kafka answers and returns everything that is wrong
// with what it finds there; nil also when ctx ends first.
func awaitKafka(ctx context.Context, opts []kgo.Opt, n preflight.Needs, s *status, log *zap.Logger) error {
	cl, err := kgo.NewClient(append(opts, kgo.RequestRetries(0))...)
	if err != nil {
		return fmt.Errorf("configure Kafka client: %w", err)
	}
	defer cl.Close()
	var said time.Time
	for ctx.Err() == nil {
		problems, err := lookAtKafka(ctx, cl, n)
		if err == nil {
			return errors.Join(problems...)
		}
		if ctx.Err() != nil {
			return nil
		}
		s.set("kafka: " + err.Error())
		if time.Since(said) >= sayKafka {
			said = time.Now()
			log.Warn("waiting for Kafka; check --brokers and the network if it should be there", zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryKafka):
		}
	}
	return nil
}

// lookAtKafka looks at topics and rights, and whether group and transactional id
// have a coordinator. err: Kafka does not answer, or not yet.
func lookAtKafka(ctx context.Context, cl *kgo.Client, n preflight.Needs) (problems []error, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	problems, err = n.Problems(ctx, cl)
	if err != nil || len(problems) > 0 {
		return problems, err
	}
	for _, c := range []struct {
		kind, name string
		key        int8
	}{{"group", n.Group, 0}, {"transactional id", n.TransactionalID, 1}} {
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
