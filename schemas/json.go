package schemas

import (
	"bytes"
	"encoding/json"
	"strings"
)

// forEachMember calls fn with the name and the raw value of each member of an
// object, in order, until fn returns false. b must be valid JSON.
//
// encoding/json ignores case in names, and keeps only the last of two equal ones;
// here names are exact and fn gets all members.
func forEachMember(b []byte, fn func(name, value []byte) bool) {
	i := skipSpace(b, 0) + 1 // after {
	for {
		i = skipSpace(b, i)
		if b[i] == '}' {
			return
		}
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		end := endOfString(b, i)
		name := b[i+1 : end-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			var s string
			_ = json.Unmarshal(b[i:end], &s) // valid, like all of b
			name = []byte(s)
		}
		i = skipSpace(b, skipSpace(b, end)+1) // after :
		end = endOfValue(b, i)
		if !fn(name, b[i:end]) {
			return
		}
		i = end
	}
}

func skipSpace(b []byte, i int) int {
	for isSpace(b[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// endOfString returns the index after the string that begins at i.
func endOfString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// endOfValue returns the index after the value that begins at i.
func endOfValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return endOfString(b, i)
	case '{', '[':
		for depth := 0; ; {
			switch b[i] {
			case '"':
				i = endOfString(b, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
	}
	for i < len(b) && strings.IndexByte(",}] \t\r\n", b[i]) < 0 {
		i++
	}
	return i
}

// scalarText returns the content of a string, or a number as it is written; false
// for everything else.
func scalarText(value []byte) (string, bool) {
	switch {
	case value[0] == '"':
		if bytes.IndexByte(value, '\\') < 0 {
			return string(value[1 : len(value)-1]), true
		}
		var s string
		_ = json.Unmarshal(value, &s) // valid
		return s, true
	case value[0] == '-', value[0] >= '0' && value[0] <= '9':
		return string(value), true
	}
	return "", false
}

func isNull(value []byte) bool { return value[0] == 'n' }
