package preflight

import (
	"context"
	"fmt"
	"time"

	"enricher/cmd/enricher/internal/hint"
	"enricher/fetch"
)

// clockTolerance is how far this machine's clock may differ from the API's. The
// API rejects a UserSig from the future and one that seems to have expired.
const clockTolerance = time.Minute

// certificateNotice is how long before its expiry a certificate causes a warning.
const certificateNotice = 14 * 24 * time.Hour

// api looks up a CallId that cannot exist. An API that accepts the credentials
// responds that it has no record of it.
func (r *run) api(ctx context.Context) {
	p := r.cfg.API.Probe(ctx)
	r.judgeReach(&p)
	if p.SmallHello != nil {
		p = *p.SmallHello // the rest of the check needs a response
	}
	if p.Responded {
		r.judgeClock(&p)
		r.judgeUserSig(&p)
		return
	}
	r.skip(checkClock, p.Host, "the API does not respond")
	r.skip(checkUserSig, p.Host, "the API does not respond")
}

func (r *run) judgeReach(p *fetch.ProbeResult) {
	over := p.TLS
	if p.Proxy != "" {
		over += " through the proxy " + p.Proxy
	}
	switch left, small := time.Until(p.CertificateEnds), p.SmallHello; {
	case small != nil && small.Responded:
		r.add(checkAPI, p.Host, Fatal, fmt.Sprintf("no response: %s; with --api-tls-small-hello it responds over %s", p.Response.Message, small.TLS),
			"set --api-tls-small-hello: the network drops the first message of TLS, which is larger than one packet without it")
	case small != nil:
		r.add(checkAPI, p.Host, Fatal, fmt.Sprintf("no response: %s; nor with --api-tls-small-hello: %s", p.Response.Message, small.Response.Message),
			hint.NoResponse(&small.Response, p.Proxy))
	case !p.Responded:
		r.add(checkAPI, p.Host, Fatal, "no response: "+p.Response.Message, hint.NoResponse(&p.Response, p.Proxy))
	case p.TLS == "":
		r.ok(checkAPI, p.Host, "responds over plain HTTP")
	case left < certificateNotice:
		r.add(checkAPI, p.Host, Warning, fmt.Sprintf("responds over %s; its certificate expires on %s", over, p.CertificateEnds.UTC().Format(time.DateOnly)),
			"if it is your own gateway, renew its certificate")
	default:
		r.ok(checkAPI, p.Host, "responds over %s", over)
	}
}

func (r *run) judgeClock(p *fetch.ProbeResult) {
	ahead := p.ClockAhead.Round(time.Second)
	switch {
	case p.Clock.IsZero():
		r.skip(checkClock, p.Host, "its response has no valid Date header")
	case ahead > clockTolerance:
		r.add(checkClock, p.Host, Warning, fmt.Sprintf("this machine's clock is %v ahead: the API may reject a UserSig from the future", ahead), "synchronise the clock with NTP")
	case ahead < -clockTolerance:
		r.add(checkClock, p.Host, Warning, fmt.Sprintf("this machine's clock is %v behind: UserSigs expire and time windows end at the wrong time", -ahead), "synchronise the clock with NTP")
	default:
		r.ok(checkClock, p.Host, "this machine's clock agrees within a minute")
	}
}

func (r *run) judgeUserSig(p *fetch.ProbeResult) {
	resp := &p.Response
	if p.Accepted {
		r.ok(checkUserSig, p.Host, "accepted")
		return
	}
	status, found, remedy := Fatal, resp.Message, ""
	switch resp.Verdict {
	case fetch.AccountRejected:
		remedy = "check --region or --api-url, --sdk-app-id, --identifier and the secret key"
	case fetch.Throttled:
		// The requests may be those of this very service.
		status, remedy = Warning, "the app's request quota is used up at the moment: try again, and find out which other clients use it"
	case fetch.Retry:
		remedy = "the API is failing at the moment: try again"
	case fetch.Found, fetch.NotYet:
		found, remedy = "the API has a record of a call that cannot exist", "check --api-url: something else responds there"
	case fetch.Rejected, fetch.Unknown:
		remedy = "check that --api-url is the API of version 4"
	}
	r.add(checkUserSig, p.Host, status, found, remedy)
}
