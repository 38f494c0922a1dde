package schemas

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// EndOfCall is the callback that says that a call ended.
const EndOfCall = "Call.CallbackAfterEndCall"

// MaxCallID is the length of the longest CallId accepted, in bytes.
const MaxCallID = 256

// maxEventTime is the year 9999 in ms: later times are no times.
const maxEventTime = 253402300799999

// Event is what the program reads of a record of an input topic: either the
// body of a callback, or just {"CallId":"…"}. Schema: event.schema.json.
type Event struct {
	CallID string // "" only if IsOtherCallback
	// Command is the callback's; "" for a bare CallId.
	Command string
	// Time is when the callback was sent, in ms since 1970; 0 when it is not
	// given or no time.
	Time int64
}

// IsOtherCallback reports whether the event is a callback of another type.
func (e Event) IsOtherCallback() bool { return e.Command != "" && e.Command != EndOfCall }

// MalformedError says why a record is no event.
type MalformedError struct{ why string }

func (e *MalformedError) Error() string { return e.why }

func malformed(format string, args ...any) error {
	return &MalformedError{fmt.Sprintf(format, args...)}
}

// ParseEvent reads an event; its errors are *MalformedError. Unknown fields are
// ignored. A CallId that is a whole number becomes its decimal text. A CallId
// may stand at the top, in the CallRecord, or in both if they agree.
func ParseEvent(value []byte) (Event, error) {
	switch {
	case value == nil:
		return Event{}, malformed("the event has no value")
	case len(bytes.TrimSpace(value)) == 0:
		return Event{}, malformed("the event is empty")
	case !utf8.Valid(value):
		return Event{}, malformed("the event is not valid UTF-8")
	case !json.Valid(value): // refuses deep nesting too
		var v any
		return Event{}, malformed("the event is not JSON: %v", json.Unmarshal(value, &v))
	case value[skipSpace(value, 0)] != '{':
		return Event{}, malformed("the event is no JSON object")
	}
	var p eventParser
	members(value, p.top)
	switch {
	case p.commandErr != nil:
		return Event{}, p.commandErr
	case p.event.IsOtherCallback():
		return p.event, nil
	case p.err != nil:
		return Event{}, p.err
	case p.event.CallID == "":
		return Event{}, malformed("the event has no CallId")
	}
	return p.event, nil
}

type eventParser struct {
	event      Event
	err        error // of the CallId; no matter if the event is skipped
	commandErr error
}

func (p *eventParser) top(name, value []byte) bool {
	switch string(name) {
	case "CallId":
		p.callID(value)
	case "CallRecord":
		switch {
		case value[0] == '{':
			members(value, p.record)
		case !isNull(value):
			p.fail(malformed("CallRecord is no object"))
		}
	case "CallbackCommand":
		p.command(value)
	case "EventTime":
		p.event.Time = eventTime(value)
	}
	return true
}

func (p *eventParser) record(name, value []byte) bool {
	if string(name) == "CallId" {
		p.callID(value)
	}
	return true
}

func (p *eventParser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *eventParser) callID(value []byte) {
	id, ok := text(value)
	switch {
	case !ok:
		p.fail(malformed("CallId is neither text nor number"))
	case id == "":
		p.fail(malformed("CallId is empty"))
	case len(id) > MaxCallID:
		p.fail(malformed("CallId has %d bytes; at most %d are accepted", len(id), MaxCallID))
	case value[0] != '"' && strings.ContainsAny(id, ".eE"):
		p.fail(malformed("CallId %s is no whole number", id))
	case p.event.CallID != "" && p.event.CallID != id:
		p.fail(malformed("two CallIds that disagree: %q and %q", p.event.CallID, id))
	}
	p.event.CallID = id
}

func (p *eventParser) command(value []byte) {
	c, ok := text(value)
	switch {
	case isNull(value):
		return
	case !ok || value[0] != '"':
		p.commandErr = malformed("CallbackCommand is no text")
	case p.event.Command != "" && p.event.Command != c:
		p.commandErr = malformed("two CallbackCommands that disagree")
	}
	p.event.Command = c
}

// eventTime is 0 for what is no time in ms.
func eventTime(value []byte) int64 {
	s, _ := text(value)
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms < 0 || ms > maxEventTime {
		return 0
	}
	return ms
}
