package credentials

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// renewTimeout bounds a request for a credential. It is shorter than the timeout
	// for opening a connection to a broker, which may wait for it.
	renewTimeout = 8 * time.Second
	// retryRenewal is how long to wait after a request that failed.
	retryRenewal = 5 * time.Second
	// renewAfter is the part of its life after which a credential is renewed, so
	// that an outage of a fifth of it goes unnoticed. The Kafka client
	// re-authenticates after 95 % of a session's life.
	renewAfter = 0.8
	// unknownLife is how long a credential is used that does not say when it expires.
	unknownLife = time.Minute
)

// renewed is a credential that is requested from elsewhere and renewed before it
// expires. While it can be used, at most one goroutine waits for its renewal.
type renewed[T any] struct {
	flag  string // for problems whose cause is not known better
	fetch func(context.Context) (value T, expires time.Time, err error)

	renewing sync.Mutex // held during a request

	mu      sync.Mutex // guards what follows
	value   T
	usable  bool      // until expires
	expires time.Time // zero: not known
	due     time.Time // for renewal
	failed  *Error    // the last request; nil: it did not
	retry   time.Time // no request before
}

// get returns the credential. It requests one if there is none that can be used.
func (r *renewed[T]) get(ctx context.Context) (T, error) {
	value, due, err := r.look(time.Now())
	switch {
	case !due:
		return value, err
	case err == nil:
		if !r.renewing.TryLock() {
			return value, nil
		}
	default:
		r.renewing.Lock()
	}
	defer r.renewing.Unlock()
	if value, due, err := r.look(time.Now()); !due { // another goroutine was faster
		return value, err
	}
	r.request(ctx)
	value, _, err = r.look(time.Now())
	return value, err
}

// look returns the credential, or why there is none, and whether to request one.
func (r *renewed[T]) look(now time.Time) (value T, due bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.valid(now) {
		err = r.describe(now)
	}
	return r.value, (err != nil || !now.Before(r.due)) && !now.Before(r.retry), err
}

func (r *renewed[T]) valid(now time.Time) bool {
	return r.usable && (r.expires.IsZero() || now.Before(r.expires))
}

// request makes a request and stores its result.
func (r *renewed[T]) request(ctx context.Context) {
	attempt, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	value, expires, err := r.fetch(attempt)
	now := time.Now()
	if err == nil && !expires.IsZero() && !now.Before(expires) {
		err = fmt.Errorf("what was received expired at %s; is the clock right?", formatTime(expires))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.value, r.usable, r.expires, r.failed, r.retry = value, true, expires, nil, time.Time{}
		life := unknownLife
		if !expires.IsZero() {
			life = time.Duration(renewAfter * float64(expires.Sub(now)))
		}
		r.due = now.Add(life)
		return
	}
	failed := &Error{Flag: r.flag, Text: err.Error()}
	errors.As(err, &failed) // names its own flag
	r.failed = failed
	if ctx.Err() == nil { // the Kafka client has closed otherwise, which says nothing about the next one
		r.retry = now.Add(retryRenewal)
	}
}

func (r *renewed[T]) renew(ctx context.Context) { _, _ = r.get(ctx) } // problem has the error

func (r *renewed[T]) problem(now time.Time) *Error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.usable && r.failed == nil {
		return nil // not requested yet
	}
	return r.describe(now)
}

// describe returns why the credential cannot be used or renewed. It requires mu to
// be held.
func (r *renewed[T]) describe(now time.Time) *Error {
	switch {
	case r.failed != nil && r.valid(now) && !r.expires.IsZero():
		return &Error{Flag: r.failed.Flag, Text: fmt.Sprintf("cannot be renewed, and expires at %s: %s", formatTime(r.expires), r.failed.Text)}
	case r.failed != nil && r.valid(now):
		return &Error{Flag: r.failed.Flag, Text: "cannot be renewed: " + r.failed.Text}
	case r.failed != nil:
		return r.failed
	case !r.valid(now) && r.usable:
		return &Error{Flag: r.flag, Text: "expired at " + formatTime(r.expires)}
	case !r.valid(now):
		return &Error{Flag: r.flag, Text: "not requested yet"}
	}
	return nil
}
