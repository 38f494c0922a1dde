package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// token is a bearer token.
type token struct {
	text    string
	subject string    // claim sub; "": not known
	expires time.Time // claim exp; zero: not known
}

// newToken reads the claims of a token if it is a JSON Web Token. The brokers
// verify them; here they only say when a new token is needed.
func newToken(text string) token {
	t := token{text: text}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return t
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return t
	}
	var claims struct {
		Subject any     `json:"sub"`
		Expires float64 `json:"exp"` // Unix s
	}
	if json.Unmarshal(payload, &claims) != nil {
		return t
	}
	t.subject, _ = claims.Subject.(string)
	if claims.Expires > 0 && claims.Expires < 1<<40 {
		t.expires = time.Unix(int64(claims.Expires), 0)
	}
	return t
}

// isToken reports whether a text can be sent as a bearer token (RFC 6750, section
// 2.1). Any other could end the message that contains it.
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// openToken reads a file with a token, which another program replaces.
func openToken(flag, path string) (*file[token], error) {
	expires := func(t token) time.Time { return t.expires }
	return openFile(flag, []string{path}, expires, func(contents ...[]byte) (token, error) {
		text := string(bytes.TrimSpace(contents[0]))
		if !isToken(text) {
			return token{}, fmt.Errorf("file %s contains no token: a token is one line without blanks", path)
		}
		return newToken(text), nil
	})
}

// fileTokens returns the token of a file whenever one is needed.
func fileTokens(f *file[token]) func(context.Context) (token, error) {
	return func(context.Context) (token, error) {
		t := f.get()
		if _, expired := f.expired(t, time.Now()); expired {
			return token{}, f.problem(time.Now())
		}
		return t, nil
	}
}
