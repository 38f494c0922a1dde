package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/preflight"
	"enricher/cmd/enricher/internal/registry"
)

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

// While Kafka or the schema registry is unavailable at the start, the service tries
// again and logs that it is waiting at these intervals.
const (
	retryEvery      = time.Second
	logWaitingEvery = 10 * time.Second
	checkTimeout    = 10 * time.Second // of one try
	// Brokers learn of a new topic or permission some time after its creator.
	problemsLast = 3 * time.Second
)

// dependency is something that the service needs before it can start.
type dependency struct {
	prefix  string // of its errors in readiness, unless they have one
	waiting string // log message
	// try returns everything that keeps the service from running. The error
	// means that there was no response, or not yet.
	try func(context.Context) (problem, err error)
}

// await waits until a dependency responds. It returns a problem that lasts for
// problemsLast, or nil when ctx ends first.
func await(ctx context.Context, d dependency, s *startupStatus, log *zap.Logger) error {
	var logged, found time.Time
	for ctx.Err() == nil {
		problem, err := d.try(ctx)
		if err == nil {
			if found.IsZero() {
				found = time.Now()
			}
			if problem == nil || time.Since(found) >= problemsLast {
				return problem
			}
			logged = time.Now() // nothing to log: what still fails then is the error of the command
		}
		select {
		case <-ctx.Done(): // the cause of the error
			return nil
		default:
		}
		cause := cmp.Or(err, problem)
		advice := hint.Connection(cause)
		s.set(d.prefix + cause.Error() + "; " + advice)
		if time.Since(logged) >= logWaitingEvery {
			logged = time.Now()
			log.Warn(d.waiting, zap.Error(cause), zap.String("hint", advice))
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
	return nil
}

// awaitKafka waits until Kafka responds. It returns everything in Kafka that keeps
// the service from running.
func awaitKafka(ctx context.Context, opts []kgo.Opt, r preflight.Requirements, s *startupStatus, log *zap.Logger) error {
	cl, err := kgo.NewClient(append(opts, kgo.RequestRetries(0))...)
	if err != nil {
		return fmt.Errorf("configure Kafka client: %w", err)
	}
	defer cl.Close()
	return await(ctx, dependency{"kafka: ", "waiting for Kafka", func(ctx context.Context) (problem, err error) {
		problems, err := checkKafka(ctx, cl, r)
		return errors.Join(problems...), err
	}}, s, log)
}

// awaitSchema waits until the schema registry responds, and returns the schema of
// enriched records. It registers nothing: a new schema is for the team of the
// readers to decide on, and not for the first instance of a new version.
func awaitSchema(ctx context.Context, r *registry.Registry, s *startupStatus, log *zap.Logger) (found registry.Schema, err error) {
	err = await(ctx, dependency{"", "waiting for the schema registry", func(ctx context.Context) (problem, err error) {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		found, err = r.Find(ctx)
		if err != nil && !registry.Temporary(err) {
			return err, nil
		}
		return nil, err
	}}, s, log)
	return found, err
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
