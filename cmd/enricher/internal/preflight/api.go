package preflight

import (
	"context"
	"fmt"
	"time"

	"enricher/fetch"
)

// clockTolerance is how far apart this machine's clock and the API's may be: a
// UserSig from the future, or one that seems to have expired, is refused.
const clockTolerance = time.Minute

// certificateNotice is how long before its end a certificate is worth a warning.
const certificateNotice = 14 * 24 * time.Hour

// api asks for a call that cannot exist: an API that takes us for who we say we
// are has no record of it, and says so.
func (l *look) api(ctx context.Context) {
	p := l.cfg.API.Probe(ctx)
	l.judgeReach(&p)
	if p.Responded {
		l.judgeClock(&p)
		l.judgeUserSig(&p)
		return
	}
	l.skip(checkClock, p.Host, "the API does not answer")
	l.skip(checkUserSig, p.Host, "the API does not answer")
}

func (l *look) judgeReach(p *fetch.ProbeResult) {
	switch left := time.Until(p.CertificateEnds); {
	case !p.Responded:
		l.add(checkAPI, p.Host, Fatal, "no answer: "+p.Response.Message, "look at --region or --api-url, the name server, and firewalls on the way")
	case p.TLS == "":
		l.ok(checkAPI, p.Host, "answers, over plain http")
	case left < certificateNotice:
		l.add(checkAPI, p.Host, Warning, fmt.Sprintf("answers, over %s; its certificate ends on %s", p.TLS, p.CertificateEnds.UTC().Format(time.DateOnly)),
			"if it is a proxy of yours: renew its certificate")
	default:
		l.ok(checkAPI, p.Host, "answers, over %s", p.TLS)
	}
}

func (l *look) judgeClock(p *fetch.ProbeResult) {
	ahead := p.ClockAhead.Round(time.Second)
	switch {
	case p.Clock.IsZero():
		l.skip(checkClock, p.Host, "its answer has no readable Date")
	case ahead > clockTolerance:
		l.add(checkClock, p.Host, Warning, fmt.Sprintf("this machine's clock is %v ahead: the API may refuse a UserSig from the future", ahead), "set the clock by NTP")
	case ahead < -clockTolerance:
		l.add(checkClock, p.Host, Warning, fmt.Sprintf("this machine's clock is %v behind: UserSigs and windows of time end at the wrong time", -ahead), "set the clock by NTP")
	default:
		l.ok(checkClock, p.Host, "this machine's clock agrees, to the minute")
	}
}

func (l *look) judgeUserSig(p *fetch.ProbeResult) {
	a := &p.Response
	if p.Accepted {
		l.ok(checkUserSig, p.Host, "accepted")
		return
	}
	status, found, remedy := Fatal, a.Message, ""
	switch a.Verdict {
	case fetch.AccountRejected:
		remedy = "look at --region or --api-url, --sdk-app-id, --identifier and the secret key"
	case fetch.Throttled:
		// Whoever asks too fast may be this very service.
		status, remedy = Warning, "the quota is used up at the moment: try again, and see who else uses this app's quota"
	case fetch.Retry:
		remedy = "the API fails at the moment: try again"
	case fetch.Found, fetch.NotYet:
		found, remedy = "the API has a record of a call that cannot exist", "look at --api-url: something else answers there"
	case fetch.Rejected, fetch.Unknown:
		remedy = "look at --api-url: is it the API of version 4?"
	}
	l.add(checkUserSig, p.Host, status, found, remedy)
}
