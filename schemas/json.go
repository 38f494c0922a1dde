package schemas

import (
	"encoding/json"
	"strings"
)

// forEachMember calls fn with the name and the raw value of each member of an
// object, in order, until fn returns false. b must be valid JSON.
//
// encoding/json ignores case in names, and keeps only the last of two equal ones;
// here names are exact and fn gets all members. Names and values are parts of b.
func forEachMember[T text](b T, fn func(name, value T) bool) {
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
		if hasEscape(name) {
			var s string
			_ = json.Unmarshal([]byte(b[i:end]), &s) // valid, like all of b
			name = T(s)
		}
		i = skipSpace(b, skipSpace(b, end)+1) // after :
		end = endOfValue(b, i)
		if !fn(name, b[i:end]) {
			return
		}
		i = end
	}
}

// text is JSON as a string or as bytes.
type text interface{ ~string | ~[]byte }

func hasEscape[T text](b T) bool {
	for i := range len(b) {
		if b[i] == '\\' {
			return true
		}
	}
	return false
}

func skipSpace[T text](b T, i int) int {
	for isSpace(b[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// endOfString returns the index after the string that begins at i.
func endOfString[T text](b T, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// endOfValue returns the index after the value that begins at i.
func endOfValue[T text](b T, i int) int {
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
// for everything else. If value is a string, the result may be a part of it.
func scalarText[T text](value T) (string, bool) {
	switch {
	case value[0] == '"':
		if !hasEscape(value) {
			return string(value[1 : len(value)-1]), true
		}
		var s string
		_ = json.Unmarshal([]byte(value), &s) // valid
		return s, true
	case value[0] == '-', value[0] >= '0' && value[0] <= '9':
		return string(value), true
	}
	return "", false
}

func isNull[T text](value T) bool { return value[0] == 'n' }
