package fetchtest

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
)

// Proxy is an HTTP proxy that connects its clients with servers. It is an
// http.Handler for Listen.
type Proxy struct {
	// User and Password are required if they are not empty. The response to a client without
	// them quotes those that it sent.
	User, Password string
	// Target is the server that every client is connected with, whichever it asks
	// for; "" for the one that it asks for.
	Target string

	mu   sync.Mutex
	seen strings.Builder
}

// Seen returns everything that clients sent to the proxy itself.
func (p *Proxy) Seen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	dump, _ := httputil.DumpRequest(r, true)
	p.mu.Lock()
	p.seen.Write(dump)
	p.mu.Unlock()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	sent := r.Header.Get("Proxy-Authorization")
	check := &http.Request{Header: http.Header{"Authorization": {sent}}}
	if user, password, _ := check.BasicAuth(); user != p.User || password != p.Password {
		fmt.Fprintf(conn, "HTTP/1.1 407 not %s, %s:%s\r\nContent-Length: 0\r\n\r\n", sent, user, password)
		return
	}
	server, err := net.Dial("tcp", cmp.Or(p.Target, r.Host))
	if r.Method != http.MethodConnect || err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer server.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(server, buffered)
		_ = server.Close()
	}()
	_, _ = io.Copy(conn, server)
}
