package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"enricher/schemas"
)

const (
	// maxBody bounds a response's body in memory. A real one has about 500 bytes.
	maxBody = 1 << 20
	// maxDrain bounds what is read of a body that is not needed: a short one is
	// read to its end, so that the connection can be reused; a longer one costs the
	// connection.
	maxDrain = 64 << 10
)

// envelope is the body of a response.
type envelope struct {
	code      int
	info      string
	requestID string
	record    *schemas.CallRecord // nil: none was sent
}

// strictEnvelope is a body as documented. Almost every body decodes into it, in
// one pass.
type strictEnvelope struct {
	ErrorCode *int   `json:"ErrorCode"`
	ErrorInfo string `json:"ErrorInfo"`
	RequestID string `json:"RequestId"`
	Response  struct {
		CallRecord *schemas.CallRecord `json:"CallRecord"`
	} `json:"Response"`
}

// looseEnvelope is what else is accepted: numbers as strings and strings as
// numbers, and placeholders where a failure has no record.
type looseEnvelope struct {
	ErrorCode looseInt      `json:"ErrorCode"`
	ErrorInfo looseText     `json:"ErrorInfo"`
	RequestID looseText     `json:"RequestId"`
	Response  looseResponse `json:"Response"`
}

// looseResponse holds the record, or nil if the field is absent, null or not an
// object.
type looseResponse struct{ record *schemas.CallRecord }

func (r *looseResponse) UnmarshalJSON(b []byte) error {
	if b[0] != '{' {
		return nil
	}
	var body struct {
		CallRecord json.RawMessage `json:"CallRecord"`
	}
	if err := json.Unmarshal(b, &body); err != nil {
		return err
	}
	if len(body.CallRecord) == 0 || body.CallRecord[0] != '{' {
		return nil
	}
	r.record = new(schemas.CallRecord)
	return json.Unmarshal(body.CallRecord, r.record)
}

// looseInt is an integer that may come as a string. given is false if it was
// absent or null.
type looseInt struct {
	value int
	given bool
}

func (n *looseInt) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	text := string(b)
	if b[0] == '"' {
		if err := json.Unmarshal(b, &text); err != nil {
			return err
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil {
		return errors.New("ErrorCode is not an integer")
	}
	n.value, n.given = v, true
	return nil
}

// looseText is a string; other values become their JSON, null becomes "".
type looseText string

func (t *looseText) UnmarshalJSON(b []byte) error {
	switch {
	case b[0] == '"':
		return json.Unmarshal(b, (*string)(t))
	case string(b) != "null":
		*t = looseText(b)
	}
	return nil
}

// utf8BOM is a mark that some programs write before UTF-8.
var utf8BOM = []byte("\ufeff")

// checkEncoding returns an error unless a body is text in UTF-8, as JSON has to be.
// encoding/json would replace the bytes of another encoding one by one, and so
// turn different accounts into the same one.
//
// Another charset in the header counts even if the bytes happen to be UTF-8:
// it is a setting of the server, so it should show with the first response and
// not with the first name that is not ASCII.
func checkEncoding(header http.Header, body []byte) error {
	switch coding := header.Get("Content-Encoding"); strings.ToLower(coding) {
	case "", "identity":
	default: // none was asked for
		return fmt.Errorf("response has the content encoding %.20q, which was not asked for", coding)
	}
	if _, params, err := mime.ParseMediaType(header.Get("Content-Type")); err == nil {
		switch charset := params["charset"]; strings.ToLower(charset) {
		case "", "utf-8", "utf8", "us-ascii":
		default:
			return fmt.Errorf("response is declared as %.20q, not UTF-8", charset)
		}
	}
	if !utf8.Valid(body) || bytes.IndexByte(body, 0) >= 0 { // UTF-16 of ASCII consists of NULs and ASCII
		return fmt.Errorf("response is not text in UTF-8 (%d bytes)", len(body))
	}
	return nil
}

// decodeEnvelope decodes a body. Its errors quote nothing of the body: the error
// page of a gateway may repeat the request.
func decodeEnvelope(body []byte) (envelope, error) {
	var e envelope
	body = bytes.TrimPrefix(body, utf8BOM)
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(trimmed) == 0:
		return e, errors.New("response body is empty")
	case trimmed[0] == '<':
		return e, fmt.Errorf("response is HTML or XML, not JSON (%d bytes)", len(body))
	case trimmed[0] != '{':
		return e, fmt.Errorf("response is not a JSON object (%d bytes)", len(body))
	}
	var strict strictEnvelope
	if err := json.Unmarshal(body, &strict); err == nil && strict.ErrorCode != nil {
		e = envelope{*strict.ErrorCode, strict.ErrorInfo, strict.RequestID, strict.Response.CallRecord}
	} else {
		var loose looseEnvelope
		if err := json.Unmarshal(body, &loose); err != nil {
			return e, fmt.Errorf("response cannot be decoded: %w", err)
		}
		if !loose.ErrorCode.given {
			return e, errors.New("response has no ErrorCode")
		}
		e = envelope{loose.ErrorCode.value, string(loose.ErrorInfo), string(loose.RequestID), loose.Response.record}
	}
	if e.record != nil && e.record.CallID == "" {
		e.record = nil // {} is a placeholder, too
	}
	return e, nil
}

var errTooLarge = fmt.Errorf("response body exceeds %d bytes", maxBody)

// buffers holds buffers for bodies. A decoded record shares no memory with them.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// readBody reads a body to its end into buf, which may grow. The returned slice
// replaces buf.
func readBody(resp *http.Response, buf []byte) ([]byte, error) {
	if resp.ContentLength > maxBody {
		return buf, errTooLarge
	}
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := resp.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > maxBody:
			return buf, errTooLarge
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}

// drain reads the rest of a body that is not needed.
func drain(resp *http.Response) {
	if resp.ContentLength <= maxDrain {
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain+1)
	}
}

// appendRequestBody appends {"CallId":"…"} with callID properly escaped.
func appendRequestBody(b []byte, callID string) []byte {
	b = append(b, `{"CallId":`...)
	plain := true
	for i := range len(callID) {
		if c := callID[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		b = append(b, '"')
		b = append(b, callID...)
		b = append(b, '"')
	} else {
		text, _ := json.Marshal(callID) // cannot fail for a string
		b = append(b, text...)
	}
	return append(b, '}')
}
