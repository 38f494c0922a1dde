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

// pieceBytes is the length of the pieces of a secret that must not occur either: a
// text that was cut to fit a limit contains no whole secret.
const pieceBytes = 24

// TB is the part of testing.TB that AssertAbsent uses; this package must not
// make the program link package testing.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
}

// Secrets must not occur in any log, error, header, metric or page.
type Secrets struct {
	Key      string
	UserSigs []string
	URLs     []string // signed
}

// Secrets returns the current and the first key, the last UserSigs, and the first
// signed URLs that the simulator saw.
func (a *API) Secrets() Secrets {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Secrets{Key: a.key, UserSigs: slices.Clone(a.sigs), URLs: slices.Clone(a.urls)}
	if a.cfg.Key != a.key {
		s.UserSigs = append(s.UserSigs, a.cfg.Key)
	}
	return s
}

// AssertAbsent fails t for every secret that occurs in text, whole or in pieces of
// 24 bytes: plain, URL- or HTML-escaped, in hexadecimal, or in base64 (both
// alphabets, at any position of a longer encoded text). The message names the
// secret's kind and form, not the secret.
func (s Secrets) AssertAbsent(t TB, where string, text []byte) {
	t.Helper()
	for _, leak := range s.Find(text) {
		t.Errorf("%s contains %s", where, leak)
	}
}

// Find returns the kind and form of every secret that occurs in text.
func (s Secrets) Find(text []byte) []string {
	var leaks []string
	search := func(kind, secret string, inPieces bool) {
		for _, f := range spellings(secret) {
			if contains(text, f.text, inPieces) {
				leaks = append(leaks, fmt.Sprintf("%s (%s)", kind, f.name))
			}
		}
	}
	if s.Key != "" {
		search("the secret key", s.Key, true)
	}
	for i, sig := range s.UserSigs {
		search(fmt.Sprintf("UserSig %d", i), sig, true)
	}
	for i, u := range s.URLs {
		search(fmt.Sprintf("signed URL %d", i), u, false) // its pieces are public, except the UserSig
	}
	return leaks
}

func contains(text []byte, secret string, inPieces bool) bool {
	if !inPieces || len(secret) <= pieceBytes {
		return bytes.Contains(text, []byte(secret))
	}
	// The pieces overlap by half, so a run of 1½ pieces contains a whole one.
	for i := 0; i+pieceBytes <= len(secret); i += pieceBytes / 2 {
		if bytes.Contains(text, []byte(secret[i:i+pieceBytes])) {
			return true
		}
	}
	return false
}

type spelling struct{ name, text string }

// spellings returns the forms in which a secret could occur.
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
