package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
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
	"time"
)

// minTimeout is when the API's own backend times out. A client that gives up
// before would miss responses that are about to come.
const minTimeout = 3 * time.Second

// ClientConfig configures a Client. Fields without a default must be set.
type ClientConfig struct {
	// BaseURL is the URL of the API without the command's path; see RegionURL.
	BaseURL string
	// Insecure allows plain HTTP to hosts other than localhost.
	Insecure bool
	// SDKAppID is the app, 1 to 4294967295.
	SDKAppID int
	// Identifier is the account that signs the requests; it must be an
	// administrator of the app. Default: administrator.
	Identifier string
	// Key is the app's secret key.
	Key *SecretKey
	// Timeout is that of one request, with connecting and reading; it must exceed
	// 3 s. Default: 5 s.
	Timeout time.Duration
	// Concurrency is the maximum number of connections, and of idle ones that are
	// kept; further requests wait for one. Default: 256.
	Concurrency int
	// ConnectionAge is the age at which a connection is given no more requests, so
	// that a change of the API's address takes effect. Default: 30 s.
	ConnectionAge time.Duration
	// Proxy is the proxy for the connections to the API, which must be at an https
	// URL: over plain HTTP, a proxy would read the UserSig. The schemes http, https
	// and socks5 are possible. Default: none, whatever the environment says.
	Proxy *url.URL
	// CAFile is a file with CA certificates, instead of the system's, to verify
	// the certificates of the API and of an https proxy. New connections read it
	// again.
	CAFile string
	// SmallHello offers no post-quantum key exchange, so that the first message of
	// TLS fits into one packet: some networks drop larger ones.
	SmallHello bool
	// Dial opens the connections. Default: as a net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Transport sends the requests, over connections of its own. It must send each
	// at most once. Default: the client's own HTTP/1.1 connections.
	Transport http.RoundTripper
	// UserAgent names this program to the API. Default: enricher.
	UserAgent string
}

// Client sends requests to the call-record API. It is safe for use by many
// goroutines.
type Client struct {
	signer    *signer
	red       *redactor
	key       *SecretKey
	timeout   time.Duration
	timedOut  error             // the cause of a context whose request took too long
	transport http.RoundTripper // nil: use conns
	conns     *connections
	newConns  func(smallHello bool) *connections
	roots     *authorities
	proxy     string // without credentials; "" for none
	bigHello  bool   // that of TLS is larger than one packet

	url      url.URL       // RawQuery is empty; copied for every request
	template *http.Request // copied for every request; its header is shared and only read
}

// NewClient returns a client, or an error that names everything that is wrong
// with cfg. It opens no connection.
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
	if cfg.ConnectionAge == 0 {
		cfg.ConnectionAge = defaultConnectionAge
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
		problems = append(problems, fmt.Errorf("timeout %v: must exceed %v, when the API's own backend times out", cfg.Timeout, minTimeout))
	}
	if cfg.Concurrency < 1 {
		problems = append(problems, fmt.Errorf("concurrency %d: must be at least 1", cfg.Concurrency))
	}
	roots := &authorities{path: cfg.CAFile}
	if err := roots.read(); err != nil {
		problems = append(problems, err)
	}
	proxy := ""
	if cfg.Proxy != nil {
		proxy = (&url.URL{Scheme: cfg.Proxy.Scheme, Host: cfg.Proxy.Host}).String()
		if base != nil && base.Scheme != "https" {
			problems = append(problems, errors.New("proxy: would read the UserSig over plain HTTP"))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}

	newConns := func(smallHello bool) *connections {
		cfg := cfg
		cfg.SmallHello = smallHello
		return &connections{open: func() *http.Transport { return newTransport(cfg, roots.pool()) }, maxAge: cfg.ConnectionAge}
	}
	red := &redactor{}
	c := &Client{
		signer:    &signer{appID: cfg.SDKAppID, identifier: cfg.Identifier, key: cfg.Key, red: red},
		red:       red,
		key:       cfg.Key,
		timeout:   cfg.Timeout,
		timedOut:  fmt.Errorf("request timed out after %v", cfg.Timeout),
		transport: cfg.Transport,
		conns:     newConns(cfg.SmallHello),
		newConns:  newConns,
		roots:     roots,
		proxy:     proxy,
		bigHello:  base.Scheme == "https" && !cfg.SmallHello,
		url:       *base,
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

// Close closes idle connections. Requests in flight go on.
func (c *Client) Close() { c.conns.close() }

// CheckKey reads the secret key's file, at most once a second. It reports, once per
// change, that the key is another one, so that a probe can be sent at once, and
// returns why the file cannot be used; the key read before stays in use then.
func (c *Client) CheckKey(now time.Time) (changed bool, problem error) {
	return c.key.Changed(now), c.key.Err()
}

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

// Proxy returns the URL of the proxy for the connections to the API, without
// credentials; "" for none.
func (c *Client) Proxy() string { return c.proxy }

// Lookup asks for the record of callID with one request, or none if ctx is done
// already or the observer does not let it begin, and never with two. Whatever
// goes wrong is in the Response. The observer may be nil.
func (c *Client) Lookup(ctx context.Context, callID string, o Observer) Response {
	return c.lookup(ctx, callID, &attempt{observer: o})
}

func (c *Client) lookup(ctx context.Context, callID string, at *attempt) Response {
	defer func() {
		if v := recover(); v != nil { // panic again, without a secret in the text; the stack stays whole
			panic(c.red.clean(fmt.Sprint(v), maxMessage))
		}
	}()
	if ctx.Err() != nil {
		return c.redact(cancelledResponse(ctx))
	}
	sig, err := c.signer.get(time.Now())
	if err != nil {
		return c.redact(noSignature.response(err.Error()))
	}
	r := c.roundTrip(ctx, callID, sig, at)
	c.applyToSigner(&r, sig)
	if at.conns != nil {
		c.conns.judge(at.conns, r.Verdict, at.resp != nil, time.Now())
	}
	return c.redact(r)
}

// roundTrip sends the request and reads the response.
func (c *Client) roundTrip(parent context.Context, callID string, sig *signature, at *attempt) Response {
	ctx, cancel := context.WithTimeoutCause(parent, c.timeout, c.timedOut)
	defer cancel()
	at.follow()
	req := c.newRequest(httptrace.WithClientTrace(ctx, &at.trace), callID, sig)
	// The deadline runs before the observer is asked, so that a process that is
	// stopped in between does not send the request long after.
	if at.observer != nil && !at.observer.Begin() {
		return cancelled.response("the request was not allowed to begin")
	}

	// The transport is called directly, not through an http.Client: that would
	// follow redirects, and its errors quote the signed URL.
	transport := c.transport
	if transport == nil {
		at.conns = c.conns.get(time.Now())
		transport = at.conns
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return c.transportError(ctx, at, err)
	}
	defer resp.Body.Close()
	at.resp = resp
	r := c.readResponse(ctx, callID, at)
	r.Date, _ = http.ParseTime(resp.Header.Get("Date")) // zero if it is none
	if r.Verdict == Throttled {
		r.RetryAfter = retryAfter(resp.Header, time.Now())
	}
	return r
}

func (c *Client) readResponse(ctx context.Context, callID string, at *attempt) Response {
	if status := at.resp.StatusCode; status < 200 || status > 299 {
		if status >= 300 { // a 101 has a body without an end
			drain(at.resp)
		}
		return judgeStatus(status)
	}
	buf := buffers.Get().(*[]byte)
	body, err := readBody(at.resp, (*buf)[:0])
	defer func() {
		if cap(body) <= maxDrain {
			*buf = body[:0]
			buffers.Put(buf)
		}
	}()
	switch {
	case err == nil:
		return judgeBody(at.resp.Header, body, callID)
	case errors.Is(err, errTooLarge):
		return badBody.response(err.Error())
	case errors.Is(err, io.ErrUnexpectedEOF) && ctx.Err() == nil:
		return badBody.response(fmt.Sprintf("response cut short after %d bytes", len(body)))
	}
	at.reading = true
	return c.transportError(ctx, at, err)
}

func (c *Client) newRequest(ctx context.Context, callID string, sig *signature) *http.Request {
	u := c.url
	u.RawQuery = sig.query + strconv.FormatUint(uint64(rand.Uint32()), 10)
	payload := appendRequestBody(make([]byte, 0, len(callID)+16), callID)
	req := c.template.WithContext(ctx)
	req.URL = &u
	req.ContentLength = int64(len(payload))
	// net/http writes header and body in one packet only for this type.
	req.Body = io.NopCloser(bytes.NewReader(payload))
	// net/http sends a request again only if GetBody is set and either no byte was
	// written (an idle connection turned out to be dead) or the method is
	// idempotent, which POST is not. So this causes no second request, and saves
	// an attempt.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(payload)), nil }
	return req
}

// transportError returns the response for a request without a response, or with
// one that broke off.
func (c *Client) transportError(ctx context.Context, at *attempt, err error) Response {
	phase := at.phase()
	if c.proxy != "" {
		phase += " through the proxy " + c.proxy
	}
	var r Response
	var netErr net.Error
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(context.Cause(ctx), c.timedOut):
		r = timeout.response(c.timedOut.Error() + ": " + phase)
	case ctx.Err() != nil:
		return cancelledResponse(ctx)
	case errors.As(err, &netErr) && netErr.Timeout():
		r = timeout.response(phase + ": " + err.Error())
	default:
		r = network.response(phase + ": " + err.Error())
		if err := c.roots.err(); err != nil {
			r.Message += "; besides, " + err.Error()
		}
	}
	r.Untrusted = errors.As(err, &certificate)
	r.HelloUnanswered = c.bigHello && at.helloUnanswered(r.Label == kinds[timeout].Code, err)
	return r
}

func cancelledResponse(ctx context.Context) Response {
	return cancelled.response("request cancelled: " + context.Cause(ctx).Error())
}

// applyToSigner applies what the response says about the UserSig to the signer,
// and sets the verdict of the codes that depend on earlier responses (Resign).
func (c *Client) applyToSigner(r *Response, sig *signature) {
	if r.Verdict == AccountRejected || r.Verdict == Unknown {
		// The UserSig may be what the API rejects, also with a code that is not in
		// the table.
		defer c.signer.renew(sig, time.Now())
	}
	if r.Verdict.Good() {
		c.signer.accepted(sig)
	}
	if r.Verdict != AccountRejected {
		return
	}
	if row, known := codeByNumber[r.Code]; known && row.Resign && !c.signer.expired(sig) {
		r.Verdict = Retry
	}
	if err := c.key.Err(); err != nil {
		r.Message += "; besides, the secret key cannot be read again: " + err.Error()
	}
}

// redact removes secrets from the texts of a response. Every response leaves the
// package through it.
func (c *Client) redact(r Response) Response {
	r.Message = c.red.clean(r.Message, maxMessage)
	r.RequestID = c.red.clean(r.RequestID, maxRequestID)
	return r
}
