package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

// minTimeout: the API's backend gives up after 3 s; a client that does so first
// would throw away answers that are on their way.
const minTimeout = 3 * time.Second

// ClientConfig is what a Client needs. Fields without a default must be set.
type ClientConfig struct {
	// BaseURL is where the API is, without the command's path: see RegionURL.
	BaseURL string
	// Insecure allows plain http to hosts other than this machine.
	Insecure bool
	// SDKAppID is the app, 1 to 4294967295.
	SDKAppID int
	// Identifier is the account to sign for; it must be an administrator of
	// the app. Default: administrator.
	Identifier string
	// Key signs.
	Key *SecretKey
	// Timeout bounds one request, connecting and reading included; over 3 s.
	// Default: 5 s.
	Timeout time.Duration
	// Concurrency is the number of connections, and of idle ones kept for the
	// next requests; more lookups than that wait for one. Default: 256.
	Concurrency int
	// Transport sends the requests. It must send each at most once. Default: a
	// pool of HTTP/1.1 connections of the client's own.
	Transport http.RoundTripper
	// UserAgent names this program to the API. Default: enricher.
	UserAgent string
}

// Client sends lookups. It is safe for use by many goroutines.
type Client struct {
	signer    *signer
	red       *redactor
	key       *SecretKey
	timeout   time.Duration
	timedOut  error // the cause of a context whose attempt took too long
	transport http.RoundTripper
	close     func()

	url      url.URL       // RawQuery is empty; copied for every request
	template *http.Request // copied for every request; its header is shared and only read
}

// NewClient checks cfg and reports everything that is wrong with it at once. It
// opens no connection.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Identifier == "" {
		cfg.Identifier = "administrator"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 256
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "enricher"
	}
	base, err := parseBaseURL(cfg.BaseURL, cfg.Insecure)
	problems := []error{err}
	if cfg.SDKAppID < 1 || cfg.SDKAppID > math.MaxUint32 {
		problems = append(problems, fmt.Errorf("SDKAppID %d: not between 1 and %d", cfg.SDKAppID, uint32(math.MaxUint32)))
	}
	if cfg.Key == nil {
		problems = append(problems, errors.New("secret key: missing"))
	}
	if cfg.Timeout <= minTimeout {
		problems = append(problems, fmt.Errorf("time-out %v: must exceed %v, after which the API's backend gives up itself", cfg.Timeout, minTimeout))
	}
	if cfg.Concurrency < 1 {
		problems = append(problems, fmt.Errorf("concurrency %d: must be at least 1", cfg.Concurrency))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}

	red := &redactor{}
	c := &Client{
		signer:    &signer{appID: cfg.SDKAppID, identifier: cfg.Identifier, key: cfg.Key, red: red},
		red:       red,
		key:       cfg.Key,
		timeout:   cfg.Timeout,
		timedOut:  fmt.Errorf("no complete answer within %v", cfg.Timeout),
		transport: cfg.Transport,
		close:     func() {},
		url:       *base,
	}
	if c.transport == nil {
		t := newTransport(cfg)
		c.transport, c.close = t, t.CloseIdleConnections
	}
	c.template = &http.Request{
		Method:     http.MethodPost,
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Host:       base.Host,
		Header: http.Header{
			"Content-Type": {"application/json"},
			"Accept":       {"application/json"},
			"User-Agent":   {cfg.UserAgent},
		},
	}
	return c, nil
}

// Close closes the connections that are idle. Lookups under way go on.
func (c *Client) Close() { c.close() }

// SecretChanged reports, once per change, that the secret key is another one
// than when it was last asked: a gate that is shut for a wrong key may probe at
// once. It looks at the key's file at most once a second.
func (c *Client) SecretChanged(now time.Time) bool { return c.key.Changed(now) }

// Observer follows one request. Its methods may run on goroutines of the
// transport and must not block.
type Observer interface {
	// Begin is called right before the request is handed to the transport, at
	// most once. If it returns false, the request is not made.
	Begin() bool
	// Connected is called when the request has its connection and is about to be
	// written: again if that connection turns out to be dead.
	Connected()
	// Written is called when the request is written, after Connected.
	Written()
}

// Timeout bounds one request, connecting and reading included.
func (c *Client) Timeout() time.Duration { return c.timeout }

// Lookup asks for the record of callID with one request, or none if ctx is done
// already or the observer does not let it begin, and never with two. Whatever
// goes wrong is in the Response. The observer may be nil.
func (c *Client) Lookup(ctx context.Context, callID string, o Observer) Response {
	return c.lookup(ctx, callID, &attempt{observer: o})
}

func (c *Client) lookup(ctx context.Context, callID string, at *attempt) Response {
	defer func() {
		if v := recover(); v != nil { // it goes on, without a secret in it; the stack stays whole
			panic(c.red.clean(fmt.Sprint(v), maxMessage))
		}
	}()
	if ctx.Err() != nil {
		return c.seal(cancelled(ctx))
	}
	sig, err := c.signer.get(time.Now())
	if err != nil {
		return c.seal(Response{Verdict: AccountRejected, Label: labelNoSignature, Message: err.Error(), ProbeEvery: accountProbeInterval})
	}
	return c.finish(c.ask(ctx, callID, sig, at), sig)
}

// ask sends the request and reads the answer.
func (c *Client) ask(parent context.Context, callID string, sig *signature, at *attempt) Response {
	ctx, cancel := context.WithTimeoutCause(parent, c.timeout, c.timedOut)
	defer cancel()
	at.trace.GotConn, at.trace.WroteRequest = at.gotConn, at.wroteRequest
	req := c.request(httptrace.WithClientTrace(ctx, &at.trace), callID, sig)
	// The deadline runs before the observer is asked, so that a process that is
	// stopped in between does not send the request long after.
	if at.observer != nil && !at.observer.Begin() {
		return Response{Verdict: Retry, Label: labelCancelled, Message: "the request was not allowed to begin"}
	}

	// The transport is called directly, not through an http.Client: that would
	// follow redirects, and its errors quote the signed URL.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return c.failed(ctx, at, err)
	}
	defer resp.Body.Close()
	at.resp = resp
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		if resp.StatusCode >= 300 { // a 101 has a body without an end
			drain(resp)
		}
		return judgeStatus(resp, time.Now())
	}

	buf := buffers.Get().(*[]byte)
	body, err := readBody(resp, (*buf)[:0])
	defer func() {
		if cap(body) <= maxDrain {
			*buf = body[:0]
			buffers.Put(buf)
		}
	}()
	switch {
	case err == nil:
		return judgeBody(body, callID, resp.Header, time.Now())
	case errors.Is(err, errTooLarge):
		return Response{Verdict: Retry, Label: labelBadBody, Message: err.Error()}
	case errors.Is(err, io.ErrUnexpectedEOF) && ctx.Err() == nil:
		return Response{Verdict: Retry, Label: labelBadBody, Message: fmt.Sprintf("the answer was cut short after %d bytes", len(body))}
	}
	at.reading = true
	return c.failed(ctx, at, err)
}

// request makes the one request of a lookup.
func (c *Client) request(ctx context.Context, callID string, sig *signature) *http.Request {
	u := c.url
	u.RawQuery = sig.query + strconv.FormatUint(uint64(rand.Uint32()), 10)
	payload := appendRequestBody(make([]byte, 0, len(callID)+16), callID)
	req := c.template.WithContext(ctx)
	req.URL = &u
	req.ContentLength = int64(len(payload))
	// This very type: for any other net/http writes header and body in two
	// packets.
	req.Body = io.NopCloser(bytes.NewReader(payload))
	// net/http sends a request again only if it can have the body again and
	// either not one byte of it was written (a kept connection turned out to be
	// dead) or the method is idempotent, which POST is not. So this costs no
	// second request, and saves an attempt.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(payload)), nil }
	return req
}

// failed answers for a request without an answer, or with one that broke off.
func (c *Client) failed(ctx context.Context, at *attempt, err error) Response {
	var netErr net.Error
	switch {
	case errors.Is(context.Cause(ctx), c.timedOut):
		return Response{Verdict: Retry, Label: labelTimeout, Message: c.timedOut.Error() + ": " + at.phase()}
	case ctx.Err() != nil:
		return cancelled(ctx)
	case errors.As(err, &netErr) && netErr.Timeout():
		return Response{Verdict: Retry, Label: labelTimeout, Message: at.phase() + ": " + err.Error()}
	}
	return Response{Verdict: Retry, Label: labelNetwork, Message: at.phase() + ": " + err.Error()}
}

func cancelled(ctx context.Context) Response {
	return Response{Verdict: Retry, Label: labelCancelled, Message: "the lookup was given up: " + context.Cause(ctx).Error()}
}

// finish tells the signer what the answer means for the UserSig, and settles the
// verdict of the code that depends on it.
func (c *Client) finish(a Response, sig *signature) Response {
	if a.Verdict == AccountRejected || a.EscalateAfter > 0 {
		// The next request, most likely a probe, signs anew, so that a cause
		// mended meanwhile is not held up by a UserSig from before.
		defer c.signer.drop(sig)
	}
	switch a.Verdict {
	case Found, NotYet:
		c.signer.accepted(sig)
	case AccountRejected:
		if row, known := codeByNumber[a.Code]; known && row.Resign && !c.signer.expired(sig) {
			a.Verdict, a.ProbeEvery = Retry, 0
		}
		if err := c.key.Err(); err != nil {
			a.Message += "; besides, the secret key cannot be read again: " + err.Error()
		}
	}
	return c.seal(a)
}

// seal is the way out: no text leaves the package but through here.
func (c *Client) seal(a Response) Response {
	a.Message = c.red.clean(a.Message, maxMessage)
	a.RequestID = c.red.clean(a.RequestID, maxRequestID)
	return a
}

// attempt is what one lookup notes on its way.
type attempt struct {
	observer Observer // may be nil
	trace    httptrace.ClientTrace
	wrote    atomic.Bool

	// Of the lookup's goroutine only:
	reading bool           // of the answer's body
	resp    *http.Response // nil: none came
}

func (at *attempt) gotConn(httptrace.GotConnInfo) {
	if at.observer != nil {
		at.observer.Connected()
	}
}

// wroteRequest runs on a goroutine of the transport.
func (at *attempt) wroteRequest(info httptrace.WroteRequestInfo) {
	if info.Err != nil {
		return
	}
	at.wrote.Store(true)
	if at.observer != nil {
		at.observer.Written()
	}
}

// phase says how far the request came, for the message.
func (at *attempt) phase() string {
	switch {
	case at.reading:
		return "reading the answer"
	case at.wrote.Load():
		return "waiting for the answer"
	}
	return "connecting or sending"
}
