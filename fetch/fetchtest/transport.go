package fetchtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
)

// errReset is what the client gets if the handler panics.
var errReset = errors.New("read: connection reset by peer (in memory)")

// Transport returns a RoundTripper that runs h in memory, each request on its own
// goroutine. It uses no sockets, so it works inside a testing/synctest bubble. A
// client that gives up or closes the body early cancels the handler's context; a
// handler that panics resets the connection; one that announces more than it
// writes cuts the response short. As in a network that keeps order, an API has
// counted a request before the next one is written.
func Transport(h http.Handler) http.RoundTripper { return memory{h} }

type memory struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (m memory) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var body []byte
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		_ = req.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	// The handler gets the context of a server: without the values and the trace
	// of the client's, but done when that is.
	arrived := make(chan struct{})
	serverCtx, cancel := context.WithCancel(context.WithValue(context.Background(), arrivedKey{}, sync.OnceFunc(func() { close(arrived) })))
	stop := context.AfterFunc(ctx, cancel)
	in := req.Clone(serverCtx)
	in.Body = io.NopCloser(bytes.NewReader(body))
	in.RequestURI = req.URL.RequestURI()
	in.RemoteAddr = "memory"
	if in.Host == "" {
		in.Host = req.URL.Host
	}
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{})
	}

	w := &memoryWriter{header: http.Header{}, started: make(chan struct{})}
	w.body, w.pipe = io.Pipe()
	go func() {
		defer stop()
		defer cancel()
		defer func() { w.end(recover(), serverCtx.Err() != nil) }()
		defer reportArrival(in) // of a handler that does not
		m.handler.ServeHTTP(w, in)
	}()
	select {
	case <-arrived:
	case <-w.started:
	case <-ctx.Done():
	}
	if trace != nil && trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{})
	}

	select {
	case <-w.started:
	case <-ctx.Done():
		_ = w.body.CloseWithError(context.Cause(ctx)) // a handler that writes gets an error
		return nil, context.Cause(ctx)
	}
	if w.failed {
		return nil, errReset
	}
	return &http.Response{
		Status:        fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)),
		StatusCode:    w.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        w.sent,
		ContentLength: w.length,
		Body:          &memoryBody{PipeReader: w.body, ctx: ctx, cancel: cancel, undo: context.AfterFunc(ctx, func() { _ = w.body.CloseWithError(context.Cause(ctx)) })},
		Request:       req,
	}, nil
}

// arrivedKey is the context key of what reports that a request has arrived.
type arrivedKey struct{}

// reportArrival reports that a request has been counted.
func reportArrival(r *http.Request) {
	if report, ok := r.Context().Value(arrivedKey{}).(func()); ok {
		report()
	}
}

// memoryBody is the client's end of a response.
type memoryBody struct {
	*io.PipeReader
	ctx    context.Context
	cancel context.CancelFunc
	undo   func() bool
}

// Read returns the cause once the client's context is done, as net/http does.
func (b *memoryBody) Read(p []byte) (int, error) {
	n, err := b.PipeReader.Read(p)
	if errors.Is(err, io.ErrClosedPipe) && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// Close cancels the handler's context.
func (b *memoryBody) Close() error {
	b.undo()
	b.cancel()
	return b.PipeReader.Close()
}

// memoryWriter is the handler's end. Only the handler's goroutine uses it until
// started is closed; status, sent, length and failed do not change after that.
type memoryWriter struct {
	header  http.Header
	once    sync.Once
	started chan struct{} // closed when the client may have the response

	status int
	sent   http.Header
	length int64 // -1: not announced
	failed bool

	written int64
	body    *io.PipeReader
	pipe    *io.PipeWriter
}

// Header implements http.ResponseWriter.
func (w *memoryWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *memoryWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent, w.length = status, w.header.Clone(), -1
		if n, err := strconv.ParseInt(w.sent.Get("Content-Length"), 10, 64); err == nil {
			w.length = n
		}
		close(w.started)
	})
}

// Write implements http.ResponseWriter.
func (w *memoryWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	n, err := w.pipe.Write(p)
	w.written += int64(n)
	return n, err
}

// FlushError implements Flush of http.ResponseController; writes are not buffered.
func (w *memoryWriter) FlushError() error {
	w.WriteHeader(http.StatusOK)
	return nil
}

// end ends the response after the handler returned or panicked; gone reports that
// the client had given up before.
func (w *memoryWriter) end(panicked any, gone bool) {
	if panicked != nil {
		w.once.Do(func() {
			w.failed = true
			close(w.started)
		})
		_ = w.pipe.CloseWithError(errReset)
		if panicked != http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
			panic(panicked)
		}
		return
	}
	w.WriteHeader(http.StatusOK)
	if gone {
		_ = w.pipe.CloseWithError(errReset)
		return
	}
	if w.length > w.written {
		_ = w.pipe.CloseWithError(io.ErrUnexpectedEOF)
		return
	}
	_ = w.pipe.Close()
}
