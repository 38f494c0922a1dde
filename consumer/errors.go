package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/consumer/session"
	"enricher/producer"
)

// fatalError is one that a new session would not fix.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// DuplicateInstanceError means that another process with the same instance name
// started later and took over.
type DuplicateInstanceError struct {
	Instance string
	Err      error // the fence
}

func (e *DuplicateInstanceError) Error() string {
	return fmt.Sprintf("another process with instance name %q started later and took over: %v", e.Instance, e.Err)
}

func (e *DuplicateInstanceError) Unwrap() error { return e.Err }

// explainAuthError names the permission whose lack ended a session. A new session
// does not get further. The start-up checks need less than these.
func (c *Consumer) explainAuthError(err error) error {
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return &fatalError{&producer.NotAuthorizedError{
			Operations: []string{"Read"}, ResourceType: "group", Resource: c.cfg.Group, Err: err}}
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return &fatalError{&producer.NotAuthorizedError{
			Operations: []string{"Describe", "Write"}, ResourceType: "transactional-id", Resource: session.TransactionalID(c.cfg.Group, c.cfg.Instance), Err: err}}
	}
	return err
}

// How long a process that fenced this one may take to join the group: it may have
// to find its brokers first.
const (
	fencingTimeout  = 5 * time.Second
	fencingInterval = 500 * time.Millisecond
)

// classifyFencing makes a fence by a later process with our instance name fatal:
// this one gives way. A new session overcomes other fences.
func (c *Consumer) classifyFencing(s *session.Session, fence error) error {
	s.AllowRebalance() // the other process may wait for it
	ctx, cancel := context.WithTimeout(context.Background(), fencingTimeout)
	defer cancel()
	for {
		newer, err := s.NewerInstance(ctx)
		if newer {
			return &fatalError{&DuplicateInstanceError{c.cfg.Instance, fence}}
		}
		select {
		case <-ctx.Done():
			if err != nil {
				err = fmt.Errorf("look for another process with instance name %q: %w", c.cfg.Instance, err)
			}
			return errors.Join(fence, err)
		case <-time.After(fencingInterval):
		}
	}
}
