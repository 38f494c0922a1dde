package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/producer"
)

// preflight is what the service needs of Kafka.
type preflight struct {
	group, transactionalID string
	read, write            []string // topics
}

func (c *runCmd) preflight() preflight {
	return preflight{
		group:           c.Group,
		transactionalID: producer.TransactionalID(c.Group, c.Instance),
		read:            c.InputTopics,
		write:           []string{c.EnrichedTopic, c.DeadLetterTopic},
	}
}

// awaitKafka waits until Kafka answers and returns everything that is wrong
// with what it finds there; nil also when ctx ends first.
func awaitKafka(ctx context.Context, opts []kgo.Opt, p preflight, s *status, log *zap.Logger) error {
	cl, err := kgo.NewClient(append(opts, kgo.RequestRetries(0))...)
	if err != nil {
		return fmt.Errorf("configure Kafka client: %w", err)
	}
	defer cl.Close()
	var said time.Time
	for ctx.Err() == nil {
		problems, err := p.check(ctx, cl)
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

// check looks at topics and rights. err: Kafka does not answer, or not yet.
func (p *preflight) check(ctx context.Context, cl *kgo.Client) (problems []error, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	problems, err = p.topics(ctx, cl)
	if err != nil {
		return nil, err
	}
	for _, c := range []struct {
		kind, name string
		key        int8
		denied     error
	}{
		{"group", p.group, 0, kerr.GroupAuthorizationFailed},
		{"transactional-id", p.transactionalID, 1, kerr.TransactionalIDAuthorizationFailed},
	} {
		switch err := findCoordinator(ctx, cl, c.name, c.key); {
		case errors.Is(err, c.denied):
			operations := "--operation Read"
			if c.key == 1 {
				operations = "--operation Describe --operation Write"
			}
			problems = append(problems, fmt.Errorf("no right to use %s %q; grant it: kafka-acls --add --allow-principal User:… %s --%s %s",
				c.kind, c.name, operations, c.kind, c.name))
		case err != nil:
			return nil, fmt.Errorf("find the coordinator of %s %q: %w", c.kind, c.name, err)
		}
	}
	return problems, nil
}

// topics checks that they exist and may be read or written.
func (p *preflight) topics(ctx context.Context, cl *kgo.Client) (problems []error, err error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	req.IncludeTopicAuthorizedOperations = true
	for _, t := range slices.Concat(p.read, p.write) {
		r := kmsg.NewMetadataRequestTopic()
		r.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, r)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	for _, t := range resp.Topics {
		name := *t.Topic
		need := kmsg.ACLOperationRead
		if slices.Contains(p.write, name) {
			need = kmsg.ACLOperationWrite
		}
		grant := fmt.Sprintf("grant it: kafka-acls --add --allow-principal User:… --operation Describe --operation %s --topic %s", operationName(need), name)
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			problems = append(problems, fmt.Errorf("topic %q does not exist; create it: kafka-topics --create --topic %s --partitions … --replication-factor …", name, name))
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			problems = append(problems, fmt.Errorf("no right to see topic %q; %s", name, grant))
		case errors.Is(err, kerr.InvalidTopicException):
			problems = append(problems, fmt.Errorf("%q is no valid name of a topic; use letters, digits, '.', '_' and '-'", name))
		case err != nil:
			return nil, fmt.Errorf("topic %q: %w", name, err)
		case !allowed(t.AuthorizedOperations, need):
			problems = append(problems, fmt.Errorf("no right to %s topic %q; %s", map[kmsg.ACLOperation]string{
				kmsg.ACLOperationRead: "read", kmsg.ACLOperationWrite: "write to"}[need], name, grant))
		}
	}
	return problems, nil
}

func operationName(op kmsg.ACLOperation) string {
	if op == kmsg.ACLOperationWrite {
		return "Write"
	}
	return "Read"
}

// allowed reads a bit field of operations; brokers too old to tell allow all.
func allowed(operations int32, need kmsg.ACLOperation) bool {
	const unknown = -1 << 31
	ops := kadm.DecodeACLOperations(operations)
	return operations == unknown || slices.Contains(ops, need) || slices.Contains(ops, kmsg.ACLOperationAll)
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
