package schemas

import (
	"strconv"
	"unicode/utf8"
)

// appendJSON appends what encoding/json makes of a record without escaping HTML, in
// a fraction of the time. Records without a request are limited by it.
func appendJSON(b []byte, e *Enriched) []byte {
	b = appendInt(b, `{"schema_version":`, int64(e.SchemaVersion))
	if e.Revision != 0 {
		b = appendInt(b, `,"revision":`, e.Revision)
	}
	b = appendText(b, `,"call_id":`, e.CallID)
	b = appendText(b, `,"caller":`, e.Caller)
	b = appendTexts(b, `,"callees":`, e.Callees)
	b = appendText(b, `,"media_type":`, e.MediaType)
	b = appendText(b, `,"call_type":`, e.CallType)
	b = appendText(b, `,"result":`, e.Result)
	b = appendText(b, `,"room_id":`, e.RoomID)
	b = appendInt(b, `,"room_id_type":`, int64(e.RoomIDType))
	b = appendInt(b, `,"start_time":`, e.StartTime)
	if e.AcceptTime != 0 {
		b = appendInt(b, `,"accept_time":`, e.AcceptTime)
	}
	b = appendInt(b, `,"end_time":`, e.EndTime)
	b = append(b, `,"answered":`...)
	b = strconv.AppendBool(b, e.Answered)
	if e.RingSeconds != nil {
		b = appendInt(b, `,"ring_seconds":`, *e.RingSeconds)
	}
	if e.TalkSeconds != nil {
		b = appendInt(b, `,"talk_seconds":`, *e.TalkSeconds)
	}
	if e.TotalSeconds != nil {
		b = appendInt(b, `,"total_seconds":`, *e.TotalSeconds)
	}
	if len(e.Anomalies) > 0 {
		b = appendTexts(b, `,"anomalies":`, e.Anomalies)
	}
	return append(b, '}')
}

func appendInt(b []byte, name string, v int64) []byte {
	return strconv.AppendInt(append(b, name...), v, 10)
}

func appendText(b []byte, name, s string) []byte { return appendQuoted(append(b, name...), s) }

func appendTexts[S ~string](b []byte, name string, all []S) []byte {
	b = append(append(b, name...), '[')
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendQuoted(b, string(s))
	}
	return append(b, ']')
}

// appendQuoted appends a JSON string. Each byte that is no UTF-8 becomes U+FFFD.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	done := 0 // of s, in b
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			// Some readers evaluate JSON as JavaScript, where U+2028 and U+2029 end a line.
			if (r != utf8.RuneError || size > 1) && r != '\u2028' && r != '\u2029' {
				i += size
				continue
			}
		}
		b = append(append(b, s[done:i]...), '\\')
		switch r {
		case '"', '\\':
			b = append(b, c)
		case '\b':
			b = append(b, 'b')
		case '\f':
			b = append(b, 'f')
		case '\n':
			b = append(b, 'n')
		case '\r':
			b = append(b, 'r')
		case '\t':
			b = append(b, 't')
		default:
			b = append(b, 'u', hex[r>>12], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		}
		i += size
		done = i
	}
	return append(append(b, s[done:]...), '"')
}
