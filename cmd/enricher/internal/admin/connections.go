package admin

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxConnections is far above what probes, scrapes and a few people need, and far
// below the files that a process may have open.
const maxConnections = 64

// connections keeps the number of connections of a server below a limit. At the
// limit it closes the one that has done nothing for longest, instead of accepting no
// more: a client that holds many would keep probes out otherwise.
type connections struct {
	max int

	mu   sync.Mutex
	last map[net.Conn]time.Time // when its state changed
}

func newConnections(limit int) *connections {
	return &connections{max: limit, last: map[net.Conn]time.Time{}}
}

// track is for http.Server.ConnState.
func (c *connections) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(c.last, conn)
		return
	}
	c.last[conn] = time.Now()
	if len(c.last) <= c.max {
		return
	}
	longest := conn
	for other, last := range c.last {
		if last.Before(c.last[longest]) {
			longest = other
		}
	}
	delete(c.last, longest)
	if secure, ok := longest.(*tls.Conn); ok {
		longest = secure.NetConn() // the close of secure may wait for the client
	}
	_ = longest.Close()
}
