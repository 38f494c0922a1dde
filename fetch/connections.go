package fetch

import (
	"net/http"
	"sync"
	"time"
)

const (
	// defaultConnectionAge is below the TTL that names of cloud services usually
	// have, a minute, so that an instance follows a change of address about as soon
	// as a resolver does. At full rate it costs about one handshake a second.
	defaultConnectionAge = 30 * time.Second
	// recentlyGood is for how long a good response shows that the connections lead
	// to an API that works. The circuit breaker of package lookup uses the same.
	recentlyGood = time.Second
)

// connections makes the client's connections, in generations. A request uses those
// of the newest generation, and a new one begins when the last is too old or the API
// fails. So a changed address takes effect: a name is resolved only for a new
// connection, and one that is in use would otherwise last for as long as its server
// likes, also when all that it responds are errors.
//
// Requests in flight stay with their generation, whose connections are closed as
// they become idle.
type connections struct {
	open   func() *http.Transport
	maxAge time.Duration

	mu      sync.Mutex
	current *generation // nil before the first request
}

// generation is a pool of connections that were opened at about the same time.
type generation struct {
	*http.Transport
	since time.Time
	good  time.Time // of the last good response; guarded by connections.mu
}

// get returns the generation for a request that begins now.
func (c *connections) get(now time.Time) *generation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && now.Sub(c.current.since) >= c.maxAge {
		c.retire()
	}
	if c.current == nil {
		c.current = &generation{Transport: c.open(), since: now}
	}
	return c.current
}

// judge learns the verdict on a request that used g. A bad one ends the generation
// if there was no good one lately: single calls may fail while the API works. A
// response shows that connections can be made, so a new generation then has as much
// time; one that carries nothing has nothing to lose.
func (c *connections) judge(g *generation, v Verdict, responded bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lately := now.Sub(g.good) < recentlyGood || responded && now.Sub(g.since) < recentlyGood
	switch {
	case v.Good():
		g.good = now
	case v.Bad() && g == c.current && !lately:
		c.retire()
	}
}

// retire makes the next request begin a new generation. c.mu is held.
func (c *connections) retire() {
	c.current.CloseIdleConnections() // and those that become idle later
	c.current = nil
}

// close closes idle connections.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		c.retire()
	}
}
