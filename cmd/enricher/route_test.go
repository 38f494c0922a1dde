package main

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"enricher/fetch/fetchtest"
)

// secureAPI starts a simulated API with TLS, writes its certificate to ca.pem and the key
// to ca-key.pem, and
// sets $API_HOST, $FILTERED_HOST, behind which a connection goes silent whose first
// message is larger than one packet, and $SILENT_HOST, behind which each does.
func secureAPI(ts *testscript.TestScript, _ bool, _ []string) {
	sim := fetchtest.New(fetchtest.Config{})
	*ts.Value(simulator{}).(**fetchtest.API) = sim
	sim.Never("never")
	server := httptest.NewUnstartedServer(sim)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	ts.Defer(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	ts.Setenv("API_HOST", host)
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("ca-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))

	const packet = 1460 // the payload of one on Ethernet
	filter(ts, "FILTERED_HOST", host, packet)
	filter(ts, "SILENT_HOST", host, 0)
}

// filter sets a variable to an address that leads to a host, except for connections
// whose first message is larger than most.
func filter(ts *testscript.TestScript, variable, host string, most int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv(variable, l.Addr().String())
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go passSmall(conn, host, most)
		}
	}()
}

// passSmall connects a client with a server unless its first message is larger than
// most.
func passSmall(conn net.Conn, host string, most int) {
	defer conn.Close()
	first := make([]byte, 4096)
	n, err := conn.Read(first)
	if err != nil {
		return
	}
	if n > most {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	server, err := net.Dial("tcp", host)
	if err != nil {
		return
	}
	defer server.Close()
	if _, err := server.Write(first[:n]); err != nil {
		return
	}
	go func() { _, _ = io.Copy(server, conn) }()
	_, _ = io.Copy(conn, server)
}

// startProxy starts a proxy that requires a user and a password, connects every
// client with $API_HOST, and sets $PROXY_HOST.
func startProxy(ts *testscript.TestScript, _ bool, args []string) {
	server, err := fetchtest.Listen(&fetchtest.Proxy{User: args[0], Password: args[1], Target: ts.Getenv("API_HOST")})
	ts.Check(err)
	ts.Defer(func() { _ = server.Close() })
	ts.Setenv("PROXY_HOST", strings.TrimPrefix(server.URL, "http://"))
}
