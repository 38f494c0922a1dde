package schemas

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// EndOfCall is the CallbackCommand of the callback for the end of a call.
const EndOfCall = "Call.CallbackAfterEndCall"

// MaxCallID is the maximum length of a CallId in bytes: CallIds are kept in memory
// and in the cache, and those in the API's samples have 36 bytes.
const MaxCallID = 256

// maxEventTime is the end of the year 9999 in ms; later times are not valid.
const maxEventTime = 253402300799999

// Event is what enricher reads from a record of an input topic: the body of a
// callback, or just {"CallId":"…"}. Schema: event.schema.json.
type Event struct {
	CallID string // "" only if IsOtherCallback
	// Command is the CallbackCommand; "" for a bare CallId.
	Command string
	// Time is when the callback was sent, in ms since 1970; 0 if it is absent or
	// not valid.
	Time int64

	record  []byte // the CallRecord; a part of the value
	records int    // objects of that name
}

// IsOtherCallback reports whether the event is a callback of another type.
func (e Event) IsOtherCallback() bool { return e.Command != "" && e.Command != EndOfCall }

// MalformedError says why a record is not an event.
type MalformedError struct{ why string }

func (e *MalformedError) Error() string { return e.why }

func malformed(format string, args ...any) error {
	return &MalformedError{fmt.Sprintf(format, args...)}
}

// ParseEvent parses an event, which keeps parts of the value. Its errors are of type
// *MalformedError, and with one the event has at most a CallId, if that is not what is
// wrong. Unknown fields are ignored. A CallId that is an integer becomes its decimal
// digits. The CallId may be at the top level, in the CallRecord, or in both if they are
// equal.
//
// Around the JSON object it accepts what changes nothing about its meaning: the
// frame of a schema registry, a byte order mark, and white space and NULs behind it.
func ParseEvent(value []byte) (Event, error) {
	if value == nil {
		return Event{}, malformed("the event has no value")
	}
	text := unwrap(value)
	switch {
	case len(text) == 0:
		return Event{}, malformed("the event is empty")
	case !utf8.Valid(text), !json.Valid(text), text[0] != '{': // json.Valid rejects deep nesting, too
		return Event{}, malformed("the event is %s", describe(value))
	}
	var p eventParser
	forEachMember(text, p.topLevel)
	switch {
	case p.commandErr != nil && p.err == nil:
		return Event{CallID: p.event.CallID}, p.commandErr
	case p.commandErr != nil:
		return Event{}, p.commandErr
	case p.event.IsOtherCallback():
		return p.event, nil
	case p.err != nil:
		return Event{}, p.err
	case p.event.CallID == "":
		return Event{}, malformed("the event has no CallId%s", whereElse(text))
	}
	return p.event, nil
}

const byteOrderMark = "\uFEFF" // in UTF-8; RFC 8259 lets a reader ignore it

// frameBytes is the size of the frame that the serialisers of schema registries
// write before a value: a zero byte and the id of the schema.
const frameBytes = 5

// unwrap returns the part of a value that must be a JSON object. It copies nothing.
func unwrap(value []byte) []byte {
	if n := len(value); n > 0 && value[0] == '{' && value[n-1] == '}' {
		return value // as nearly all are
	}
	value = trimEnd(value)
	if len(value) > frameBytes && value[0] == 0 {
		if text := trimStart(value[frameBytes:]); len(text) > 0 && text[0] == '{' {
			return text
		}
	}
	return trimStart(value)
}

func trimEnd(b []byte) []byte {
	for n := len(b); n > 0 && (b[n-1] == 0 || isSpace(b[n-1])); n-- {
		b = b[:n-1]
	}
	return b
}

func trimStart(b []byte) []byte {
	b = bytes.TrimPrefix(b, []byte(byteOrderMark))
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	return b
}

type eventParser struct {
	event      Event
	err        error // of the CallId; irrelevant for another callback
	commandErr error
}

func (p *eventParser) topLevel(name, value []byte) bool {
	switch string(name) {
	case "CallId":
		p.callID(value)
	case "CallRecord":
		switch {
		case value[0] == '{':
			p.event.record = value
			p.event.records++
			forEachMember(value, p.callRecord)
		case !isNull(value):
			p.fail(malformed("CallRecord is not an object%s", doubleEncoding(value)))
		}
	case "CallbackCommand":
		p.command(value)
	case "EventTime":
		p.event.Time = eventTime(value)
	}
	return true
}

func (p *eventParser) callRecord(name, value []byte) bool {
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
	id, ok := scalarText(value)
	switch {
	case !ok:
		p.fail(malformed("CallId is neither string nor number"))
	case id == "":
		p.fail(malformed("CallId is empty"))
	case len(id) > MaxCallID:
		p.fail(malformed("CallId has %d bytes, the maximum is %d", len(id), MaxCallID))
	case value[0] != '"' && strings.ContainsAny(id, ".eE"):
		p.fail(malformed("CallId %s is not an integer", id))
	case p.event.CallID != "" && p.event.CallID != id:
		p.fail(malformed("conflicting CallIds: %q and %q", p.event.CallID, id))
	}
	p.event.CallID = id
}

func (p *eventParser) command(value []byte) {
	if p.event.Command == "" && string(value) == `"`+EndOfCall+`"` { // as nearly always
		p.event.Command = EndOfCall
		return
	}
	c, ok := scalarText(value)
	switch {
	case isNull(value):
		return
	case !ok || value[0] != '"':
		p.commandErr = malformed("CallbackCommand is not a string")
	case p.event.Command != "" && p.event.Command != c:
		p.commandErr = malformed("conflicting CallbackCommands")
	case c != EndOfCall && strings.EqualFold(strings.TrimSpace(c), EndOfCall):
		// As another callback it would be skipped, unnoticed. No callback has a name
		// that differs in this way.
		p.commandErr = malformed("the CallbackCommand is %q, it must be %q", c, EndOfCall)
	}
	p.event.Command = c
}

// eventTime returns a time in ms; 0 if value is not a valid one.
func eventTime(value []byte) int64 {
	if value[0] == '"' { // a number, as nearly always, needs no string of its own
		s, _ := scalarText(value)
		value = []byte(s)
	}
	ms, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || ms < 0 || ms > maxEventTime {
		return 0
	}
	return ms
}
