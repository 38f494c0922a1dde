package fetchtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

// Fault is a response other than the record. The zero value is the record. Name
// is what the demo and failing tests call it.
type Fault struct {
	Name string
	do   func(a *API, w http.ResponseWriter, r *http.Request, callID string)
}

func (f Fault) serve(a *API, w http.ResponseWriter, r *http.Request, callID string) {
	if f.do == nil {
		a.serveRecord(w, callID)
		return
	}
	f.do(a, w, r, callID)
}

// Code responds with HTTP 200 and an ErrorCode.
func Code(code int) Fault { return CodeInfo(code, "simulated "+strconv.Itoa(code)) }

// CodeInfo responds with HTTP 200, an ErrorCode and an ErrorInfo.
func CodeInfo(code int, info string) Fault {
	return Fault{strconv.Itoa(code), func(_ *API, w http.ResponseWriter, _ *http.Request, _ string) {
		writeJSON(w, response{ActionStatus: "FAIL", ErrorCode: code, ErrorInfo: info, RequestID: "simulated-request"})
	}}
}

// Status responds with an HTTP status and a short text.
func Status(status int) Fault {
	return Fault{"HTTP " + strconv.Itoa(status), func(_ *API, w http.ResponseWriter, _ *http.Request, _ string) {
		http.Error(w, "simulated "+strconv.Itoa(status), status)
	}}
}

// TooManyRequests responds with 429; retryAfter is the value of Retry-After, ""
// for none.
func TooManyRequests(retryAfter string) Fault {
	return Fault{"HTTP 429", func(_ *API, w http.ResponseWriter, _ *http.Request, _ string) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, "simulated 429", http.StatusTooManyRequests)
	}}
}

// BadGateway responds with 502 and a page of HTML, as a load balancer does.
func BadGateway() Fault {
	return Fault{"HTTP 502", func(_ *API, w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, page)
	}}
}

const page = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"

// HTML responds with 200 and a page of HTML.
func HTML() Fault {
	return Body("HTML", "text/html", page)
}

// NotJSON responds with 200 and a text that is not JSON.
func NotJSON() Fault {
	return Body("not JSON", "application/json", "upstream request timeout")
}

// Body responds with 200 and this body.
func Body(name, contentType, body string) Fault {
	return Fault{name, func(_ *API, w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
	}}
}

// CutBody announces the whole record and sends half of it.
func CutBody() Fault {
	return Fault{"cut body", func(a *API, w http.ResponseWriter, _ *http.Request, callID string) {
		whole, _ := json.Marshal(a.recordResponse(callID))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
		_, _ = w.Write(whole[:len(whole)/2])
	}}
}

// WrongCallID responds with the record of another call.
func WrongCallID() Fault {
	return Fault{"wrong CallId", func(a *API, w http.ResponseWriter, _ *http.Request, callID string) {
		a.serveRecord(w, callID+"-another")
	}}
}

// NoRecord responds with code 0 and no record.
func NoRecord() Fault {
	return Fault{"no record", func(_ *API, w http.ResponseWriter, _ *http.Request, _ string) {
		writeJSON(w, response{ActionStatus: "OK", RequestID: "simulated-request"})
	}}
}

// NotEnded responds with a record that has no end time.
func NotEnded() Fault {
	return Fault{"not ended", func(a *API, w http.ResponseWriter, _ *http.Request, callID string) {
		whole := a.recordResponse(callID)
		whole.Response.CallRecord.EndTime = 0
		writeJSON(w, whole)
	}}
}

// Hang never responds; it ends when the client gives up.
func Hang() Fault {
	return Fault{"hang", func(_ *API, _ http.ResponseWriter, r *http.Request, _ string) {
		<-r.Context().Done()
	}}
}

// HangInBody sends half the record and then nothing more.
func HangInBody() Fault {
	return Fault{"hang in the body", func(a *API, w http.ResponseWriter, r *http.Request, callID string) {
		whole, _ := json.Marshal(a.recordResponse(callID))
		_, _ = w.Write(whole[:len(whole)/2])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}}
}

// Huge responds with valid JSON of this size, which it streams.
func Huge(bytesLong int) Fault {
	return Fault{"huge body", func(_ *API, w http.ResponseWriter, _ *http.Request, _ string) {
		const head, tail = `{"ErrorCode":0,"ErrorInfo":"`, `"}`
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, head)
		chunk := bytes.Repeat([]byte("x"), 32<<10)
		for left := bytesLong - len(head) - len(tail); left > 0; left -= len(chunk) {
			if _, err := w.Write(chunk[:min(left, len(chunk))]); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, tail)
	}}
}

// Reset resets the connection without a response.
func Reset() Fault {
	return Fault{"reset", func(_ *API, w http.ResponseWriter, _ *http.Request, _ string) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler) // in memory, or over TLS: the nearest equivalent
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // so that closing it sends a reset
		}
		_ = conn.Close()
	}}
}

// Redirect responds with a 302 to target.
func Redirect(target string) Fault {
	return Fault{"redirect", func(_ *API, w http.ResponseWriter, r *http.Request, _ string) {
		http.Redirect(w, r, target, http.StatusFound)
	}}
}

// Echo responds with the request's query, UserSig included, in every field that
// holds text.
func Echo(code int) Fault {
	return Fault{"echo", func(_ *API, w http.ResponseWriter, r *http.Request, _ string) {
		q := r.URL.RawQuery
		writeJSON(w, response{
			ActionStatus: "FAIL", ErrorCode: code, RequestID: r.URL.Query().Get("usersig"),
			ErrorInfo: fmt.Sprintf("cannot do %s for %s", q, r.URL.Query().Get("usersig")),
		})
	}}
}

// serveRecord responds with the record of callID.
func (a *API) serveRecord(w http.ResponseWriter, callID string) {
	writeJSON(w, a.recordResponse(callID))
}

func writeJSON(w http.ResponseWriter, v response) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and integers only
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b)
}
