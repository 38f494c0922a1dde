package fetch

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
)

// attempt is the progress of one request.
type attempt struct {
	observer Observer // may be nil
	trace    httptrace.ClientTrace
	step     atomic.Int32 // written by goroutines of the transport

	// Only the goroutine of Lookup uses these.
	conns   *generation    // that carry the request; nil before it is sent
	reading bool           // the body broke off while it was read
	resp    *http.Response // nil: none came
}

// What a request is waiting for. The first ones apply if it needs a new connection.
const (
	connecting int32 = iota
	resolving
	handshaking
	sending
	waiting
)

var steps = [...]string{
	connecting:  "connecting",
	resolving:   "resolving the name",
	handshaking: "TLS handshake",
	sending:     "sending the request",
	waiting:     "waiting for the response",
}

// follow makes the transport report how far the request comes. It also reports on a
// connection that it began to open for this request, when the request got another
// one already.
func (at *attempt) follow() {
	opening := func(step int32) {
		if old := at.step.Load(); old < sending {
			at.step.CompareAndSwap(old, step)
		}
	}
	at.trace = httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { opening(resolving) },
		ConnectStart:      func(string, string) { opening(connecting) },
		TLSHandshakeStart: func() { opening(handshaking) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil { // with the API, or with an https proxy
				opening(connecting)
			}
		},
		GotConn:      at.gotConn,
		WroteRequest: at.wroteRequest,
	}
}

func (at *attempt) gotConn(httptrace.GotConnInfo) {
	at.step.Store(sending)
	if at.observer != nil {
		at.observer.Connected()
	}
}

// wroteRequest runs on a goroutine of the transport.
func (at *attempt) wroteRequest(info httptrace.WroteRequestInfo) {
	if info.Err != nil {
		return
	}
	at.step.Store(waiting)
	if at.observer != nil {
		at.observer.Written()
	}
}

// phase returns how far the request came, for the message.
func (at *attempt) phase() string {
	if at.reading {
		return "reading the response"
	}
	return steps[at.step.Load()]
}

// helloUnanswered reports whether a request without a response failed as one does
// whose first message of TLS is dropped or refused by the network. A server that
// responds fails the handshake with an alert or its certificate.
func (at *attempt) helloUnanswered(timedOut bool, err error) bool {
	return at.step.Load() == handshaking && (timedOut || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
}
