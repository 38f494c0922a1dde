package fetchtest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html"
	"net/url"
	"slices"
	"strings"
)

// pieceBytes is the length of the pieces of a secret that must not show up
// either: a text that was cut to fit a limit holds no whole secret.
const pieceBytes = 24

// TB is the part of testing.TB that AssertAbsent uses; this package must not
// make the program link package testing.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
}

// Secrets is what must occur in no log, error, header, metric or page.
type Secrets struct {
	Key      string
	UserSigs []string
	URLs     []string // signed
}

// Secrets is what the simulator knows: its key now and at the start, and the
// last UserSigs and some of the signed URLs it saw.
func (a *API) Secrets() Secrets {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Secrets{Key: a.key, UserSigs: slices.Clone(a.sigs), URLs: slices.Clone(a.urls)}
	if a.cfg.Key != a.key {
		s.UserSigs = append(s.UserSigs, a.cfg.Key)
	}
	return s
}

// AssertAbsent reports every secret that occurs in text, whole or in pieces of
// 24 bytes, plain, URL- or HTML-escaped, in hexadecimal, or in base64 (both
// alphabets, wherever in a longer encoded text it begins). The report names the
// secret's kind and form, not the secret.
func (s Secrets) AssertAbsent(t TB, where string, text []byte) {
	t.Helper()
	for _, leak := range s.Find(text) {
		t.Errorf("%s holds %s", where, leak)
	}
}

// Find lists the leaks AssertAbsent reports, in words.
func (s Secrets) Find(text []byte) []string {
	var leaks []string
	look := func(kind, secret string, inPieces bool) {
		for _, f := range spellings(secret) {
			if contains(text, f.text, inPieces) {
				leaks = append(leaks, fmt.Sprintf("%s (%s)", kind, f.name))
			}
		}
	}
	if s.Key != "" {
		look("the secret key", s.Key, true)
	}
	for i, sig := range s.UserSigs {
		look(fmt.Sprintf("UserSig %d", i), sig, true)
	}
	for i, u := range s.URLs {
		look(fmt.Sprintf("signed URL %d", i), u, false) // its pieces are public, but for the UserSig
	}
	return leaks
}

func contains(text []byte, secret string, inPieces bool) bool {
	if !inPieces || len(secret) <= pieceBytes {
		return bytes.Contains(text, []byte(secret))
	}
	// Pieces at every half length: no run of 1½ pieces escapes.
	for i := 0; i+pieceBytes <= len(secret); i += pieceBytes / 2 {
		if bytes.Contains(text, []byte(secret[i:i+pieceBytes])) {
			return true
		}
	}
	return false
}

type spelling struct{ name, text string }

// spellings are the forms a secret could leak in.
func spellings(secret string) []spelling {
	all := []spelling{{"plain", secret}}
	add := func(name, text string) {
		if !slices.ContainsFunc(all, func(s spelling) bool { return s.text == text }) {
			all = append(all, spelling{name, text})
		}
	}
	add("query-escaped", url.QueryEscape(secret))
	add("path-escaped", url.PathEscape(secret))
	add("HTML-escaped", html.EscapeString(secret))
	add("hexadecimal", hex.EncodeToString([]byte(secret)))
	for _, plain := range []string{secret, url.QueryEscape(secret)} {
		for shift := range 3 {
			b := append(make([]byte, shift), plain...)
			std := base64.RawStdEncoding.EncodeToString(b)
			std = std[(shift*8+5)/6 : len(b)*8/6] // without the characters that neighbours share
			name := fmt.Sprintf("base64 at %d", shift)
			add(name, std)
			add(name+", URL alphabet", strings.NewReplacer("+", "-", "/", "_").Replace(std))
		}
	}
	return all
}
