package consumer

import (
	"fmt"
	"time"

	"enricher/fetch/lookup"
)

// Condition is one reason why an instance is not ready, or a warning.
type Condition struct {
	// Reason is one of the constants below, or the name of a lookup.Reason.
	Reason string
	// Detail holds the facts in words, without any secret.
	Detail string
	Err    error // behind it, nil if there is none to tell apart
}

// The reasons that concern Kafka and the process. Those that concern the API are
// the names of lookup.Reasons, those of one partition are the BlockReasons.
const (
	ReasonDraining   = "draining"
	ReasonKafka      = "kafka"        // there is no session
	ReasonNotInGroup = "not_in_group" // no heartbeat was acknowledged lately
)

func (c Condition) String() string { return c.Reason + ": " + c.Detail }

// conditions is what Ready reports besides the lease and the lookups.
type conditions struct {
	draining bool
	session  string      // why there is no session; "" when there is one
	blocked  []Condition // partitions and events that wait
}

func (c *Consumer) setConditions(change func(*conditions)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.conditions)
}

// livenessTimeout is how long the main loop may take for a turn: everything that
// it waits for has a deadline well below.
const livenessTimeout = time.Minute

// turn notes that the main loop has turned.
func (c *Consumer) turn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastTurn = time.Now()
}

// Alive reports whether the main loop has turned within the last minute. An
// instance that is not alive does not recover by itself.
func (c *Consumer) Alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.lastTurn) < livenessTimeout
}

// setSession sets why there is no session; "": there is one.
func (c *Consumer) setSession(why string) {
	c.setConditions(func(s *conditions) { s.session = why })
}

// Ready returns why this instance is not ready; nothing when it is.
func (c *Consumer) Ready() []Condition {
	c.mu.Lock()
	s := c.conditions
	c.mu.Unlock()
	now := time.Now()
	var all []Condition
	if s.draining {
		all = append(all, Condition{Reason: ReasonDraining, Detail: "the process is shutting down"})
	}
	cause, last := c.errors.explain(now)
	switch {
	case s.session != "":
		all = append(all, Condition{Reason: ReasonKafka, Detail: s.session + cause, Err: last})
	case !c.lease.Valid(now):
		all = append(all, Condition{Reason: ReasonNotInGroup,
			Detail: fmt.Sprintf("no successful heartbeat in group %q within the session timeout; lookups paused%s", c.cfg.Group, cause), Err: last})
	}
	return append(append(all, c.lookups(false)...), s.blocked...)
}

// Warnings returns what an operator should know although the instance makes
// progress.
func (c *Consumer) Warnings() []Condition { return c.lookups(true) }

// lookups returns the conditions of lookups that are warnings, or those that are not.
func (c *Consumer) lookups(warnings bool) []Condition {
	var all []Condition
	for _, l := range c.scheduler.Conditions() {
		if l.Reason.IsWarning() == warnings {
			all = append(all, Condition{Reason: l.Reason.String(), Detail: l.Detail})
		}
	}
	return all
}

// Reasons returns every reason that a Condition can have.
func Reasons() []string {
	all := []string{ReasonDraining, ReasonKafka, ReasonNotInGroup}
	for _, r := range lookup.Reasons() {
		all = append(all, r.String())
	}
	for _, r := range BlockReasons() {
		all = append(all, string(r))
	}
	return all
}
