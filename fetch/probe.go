package fetch

import (
	"context"
	"crypto/tls"
	"time"
)

// ProbeCallID is a CallId of the usual form that no call has.
const ProbeCallID = "00000000-0000-0000-0000-000000000000"

// ProbeResult is what a request for ProbeCallID shows about the API and the
// connection to it.
type ProbeResult struct {
	Host  string // with the port, if it is not the default one
	Proxy string // on the way there, without credentials; "" for none
	// Response is the API's response, or why there is none.
	Response Response
	// Accepted reports that the API accepted app, identifier and UserSig, and
	// returned that it has no such record.
	Accepted bool
	// Responded reports that an HTTP response of any kind came.
	Responded bool
	// TLS is the version of TLS, such as "TLS 1.3"; "" for plain HTTP.
	TLS string
	// CertificateEnds is when the server's certificate expires; zero without TLS.
	CertificateEnds time.Time
	// Clock is the API's time, from the header Date, to the second; zero if there
	// was none.
	Clock time.Time
	// ClockAhead is how far this machine's clock is ahead of the API's, negative if
	// behind; accurate to a few seconds, and meaningful only if Clock is set.
	ClockAhead time.Duration
	// SmallHello is the result of a second probe, with ClientConfig.SmallHello; nil
	// unless Response.HelloUnanswered called for one.
	SmallHello *ProbeResult
}

// Probe sends one request for ProbeCallID, or two if the UserSig has expired and is
// replaced. If nothing came back after a large first message of TLS, it tries once
// more with a small one. The requests count towards the API's quota.
func (c *Client) Probe(ctx context.Context) ProbeResult {
	p := c.probe(ctx)
	if p.Response.HelloUnanswered {
		other := *c
		other.conns, other.bigHello = c.newConns(true), false
		defer other.conns.close()
		small := other.probe(ctx)
		p.SmallHello = &small
	}
	return p
}

func (c *Client) probe(ctx context.Context) ProbeResult {
	at := &attempt{}
	r := c.lookup(ctx, ProbeCallID, at)
	if row, known := codeByNumber[r.Code]; known && row.Resign && r.Verdict == Retry {
		at = &attempt{}
		r = c.lookup(ctx, ProbeCallID, at)
	}
	now := time.Now()
	p := ProbeResult{
		Host:     c.url.Host,
		Proxy:    c.proxy,
		Response: r,
		Accepted: r.Verdict == NotYet && !r.NotEnded,
	}
	if at.resp == nil {
		return p
	}
	p.Responded = true
	if s := at.resp.TLS; s != nil {
		p.TLS = tls.VersionName(s.Version)
		if len(s.PeerCertificates) > 0 {
			p.CertificateEnds = s.PeerCertificates[0].NotAfter
		}
	}
	if !r.Date.IsZero() {
		p.Clock, p.ClockAhead = r.Date, now.Sub(r.Date)
	}
	return p
}
