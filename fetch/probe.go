package fetch

import (
	"context"
	"crypto/tls"
	"net/http"
	"time"
)

// ProbeCallID is a CallId of the usual form that no call ever has.
const ProbeCallID = "00000000-0000-0000-0000-000000000000"

// ProbeResult is what a lookup of ProbeCallID shows of the API and of the way there.
type ProbeResult struct {
	Host string // asked; with the port if it is not the usual one
	// Response is the API's, or why there is none.
	Response Response
	// Accepted: the API took app, identifier and UserSig for good, and says no
	// more than that it has no such record.
	Accepted bool
	// Responded: an HTTP response came, of whatever kind.
	Responded bool
	// TLS is the protocol's version, such as "TLS 1.3"; "" for plain http.
	TLS string
	// CertificateEnds is when the server's certificate runs out; zero without TLS.
	CertificateEnds time.Time
	// Clock is the time by the API's header Date, to the second; zero when there
	// was none.
	Clock time.Time
	// ClockAhead is how far this machine's clock is ahead of the API's, negative
	// when behind; good to a few seconds, and only if Clock is set.
	ClockAhead time.Duration
}

// Probe requests ProbeCallID: one request that counts for the rate limit, or two
// when the UserSig has expired and is made anew.
func (c *Client) Probe(ctx context.Context) ProbeResult {
	at := &attempt{}
	a := c.lookup(ctx, ProbeCallID, at)
	if row, known := codeByNumber[a.Code]; known && row.Resign && a.Verdict == Retry {
		at = &attempt{}
		a = c.lookup(ctx, ProbeCallID, at)
	}
	now := time.Now()
	p := ProbeResult{
		Host:     c.url.Host,
		Response: a,
		Accepted: a.Verdict == NotYet && !a.NotEnded,
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
	if t, err := http.ParseTime(at.resp.Header.Get("Date")); err == nil {
		p.Clock, p.ClockAhead = t, now.Sub(t)
	}
	return p
}
