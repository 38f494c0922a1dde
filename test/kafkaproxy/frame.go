package kafkaproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A frame is a request or a response with its size in front. Fields are of fixed
// size up to the client id of a request:
//
//	request:  size 4, key 2, version 2, correlation id 4, client id 2+n, tags, body
//	response: size 4, correlation id 4, tags, body
//
// Flexible versions have the tags.
const (
	sizeBytes           = 4
	requestHeaderBytes  = sizeBytes + 2 + 2 + 4 + 2
	responseHeaderBytes = sizeBytes + 4
)

// maxFrame is larger than any message of a test.
const maxFrame = 128 << 20

// readFrame reads a request or a response.
func readFrame(r io.Reader) ([]byte, error) {
	var size [sizeBytes]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < responseHeaderBytes-sizeBytes || n > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes: this is not Kafka's protocol", n)
	}
	frame := make([]byte, sizeBytes+n)
	copy(frame, size[:])
	_, err := io.ReadFull(r, frame[sizeBytes:])
	return frame, err
}

func keyOf(request []byte) kmsg.Key { return kmsg.Key(binary.BigEndian.Uint16(request[4:])) }

func correlationOfRequest(frame []byte) uint32 { return binary.BigEndian.Uint32(frame[8:]) }

func correlationOfResponse(frame []byte) uint32 { return binary.BigEndian.Uint32(frame[4:]) }

// decodeRequest panics if it cannot read a request: a test that misreads messages
// shows nothing.
func decodeRequest(frame []byte) kmsg.Request {
	req := kmsg.RequestForKey(int16(keyOf(frame)))
	req.SetVersion(int16(binary.BigEndian.Uint16(frame[6:])))
	if err := req.ReadFrom(bodyOfRequest(frame, req)); err != nil {
		panic(fmt.Sprintf("read a request %s: %v", keyOf(frame).Name(), err))
	}
	return req
}

func bodyOfRequest(frame []byte, req kmsg.Request) []byte {
	clientID := int16(binary.BigEndian.Uint16(frame[requestHeaderBytes-2:])) // −1: null
	return skipTags(frame[requestHeaderBytes+int(max(0, clientID)):], req.IsFlexible())
}

// changeRequest returns the request as the exchange's action changes it; nil: it is
// not to be forwarded.
func changeRequest(x *exchange) []byte {
	req := decodeRequest(x.frame)
	if !x.action.Request(req) {
		return nil
	}
	header := len(x.frame) - len(bodyOfRequest(x.frame, req))
	out := req.AppendTo(slices.Clone(x.frame[:header]))
	binary.BigEndian.PutUint32(out, uint32(len(out)-sizeBytes))
	return out
}

// decodeResponse is like decodeRequest.
func decodeResponse(req kmsg.Request, frame []byte) kmsg.Response {
	resp := newResponse(req)
	if err := resp.ReadFrom(skipTags(frame[responseHeaderBytes:], hasTags(resp))); err != nil {
		panic(fmt.Sprintf("read a response to %s: %v", kmsg.NameForKey(req.Key()), err))
	}
	return resp
}

func newResponse(req kmsg.Request) kmsg.Response {
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	return resp
}

// hasTags reports whether the header of a response has tags. That of ApiVersions
// never has, so that a client can read it before it has the broker's versions.
func hasTags(resp kmsg.Response) bool {
	return resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions)
}

func skipTags(b []byte, has bool) []byte {
	if !has {
		return b
	}
	if len(b) == 0 || b[0] != 0 {
		panic(errors.New("a header with tags, which neither the client nor the broker sends"))
	}
	return b[1:]
}

// changeResponse returns the response as the exchange's action changes it; frame
// nil: there was none.
func changeResponse(x *exchange, frame []byte) []byte {
	req := decodeRequest(x.frame)
	resp := newResponse(req)
	if frame != nil {
		resp = decodeResponse(req, frame)
	}
	x.action.Respond(req, resp)
	out := make([]byte, responseHeaderBytes, 256)
	binary.BigEndian.PutUint32(out[sizeBytes:], correlationOfRequest(x.frame))
	if hasTags(resp) {
		out = append(out, 0)
	}
	out = resp.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-sizeBytes))
	return out
}
