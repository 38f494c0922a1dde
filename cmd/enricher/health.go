package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/alecthomas/kong"
)

// healthCmd is the health check of a container, whose image contains nothing but
// this program. It checks liveness, not readiness: an engine that restarts
// unhealthy containers must not restart an instance that waits for Kafka or the
// API.
type healthCmd struct {
	AdminAddr string `default:"127.0.0.1:9464" group:"Service:" help:"Address of the running instance's /livez."`
}

// Example returns a command line for the help.
func (*healthCmd) Example() string { return "enricher health --admin-addr 127.0.0.1:9464" }

// Run requests /livez once and fails unless the instance responds in time.
func (c *healthCmd) Run(ctx context.Context, k *kong.Kong) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	resp, err := c.livez(ctx, "http")
	if err == nil && resp.StatusCode == http.StatusBadRequest { // what Go's server responds if it expects TLS
		_ = resp.Body.Close()
		resp, err = c.livez(ctx, "https")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.AdminAddr, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", c.AdminAddr, resp.Status)
	}
	_, err = io.Copy(k.Stdout, io.LimitReader(resp.Body, 1<<10))
	return err
}

// livez requests /livez, which requires no login.
func (c *healthCmd) livez(ctx context.Context, scheme string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://localhost/livez", nil)
	if err != nil {
		return nil, err
	}
	// No proxy, whatever the environment says, and no look-up of the host for an
	// address without one, such as :9464: it means this machine.
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, c.AdminAddr)
		},
		// The certificate is for other names than this machine's own. Nothing secret is
		// sent, and the connection stays within the machine or the pod.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	return transport.RoundTrip(req)
}
