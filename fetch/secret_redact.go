package fetch

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

const (
	// gramBytes is the length of the shortest piece of a secret that is recognised.
	// A shorter one may show: fewer than twelve characters of a 64-character key
	// are no use to an attacker.
	gramBytes = 12
	// maxSecrets bounds the secrets that are looked for: the last keys and
	// UserSigs of this process. A UserSig is made every few days, and for each
	// probe while the API rejects the account.
	maxSecrets = 8
)

// redactor removes secrets from texts: plain, URL-escaped, in base64, and cut off
// anywhere. It looks for pieces, not for whole secrets, because an error message
// that quotes half a URL quotes half a UserSig.
type redactor struct {
	pieces atomic.Pointer[pieces] // replaced, never changed

	mu      sync.Mutex
	secrets []string // guarded by mu
}

// pieces is what the redactor looks for: no secret is shorter than one of them.
type pieces map[[gramBytes]byte]struct{}

// signedQuery matches the query parameter usersig, even with a UserSig that this
// process did not make.
var signedQuery = regexp.MustCompile(`(?i)\busersig(=|%3d)[^&\s"'<>]+`)

// add adds a secret to those that clean removes.
func (r *redactor) add(secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.secrets, secret); i >= 0 {
		r.secrets = append(slices.Delete(r.secrets, i, i+1), secret) // now the last used one
		return
	}
	r.secrets = append(r.secrets, secret)
	if len(r.secrets) > maxSecrets {
		r.secrets = r.secrets[1:]
	}
	p := pieces{}
	for _, s := range r.secrets {
		for _, form := range forms(s) {
			for i := 0; i+gramBytes <= len(form); i++ {
				p[[gramBytes]byte([]byte(form[i:]))] = struct{}{}
			}
		}
	}
	r.pieces.Store(&p)
}

// forms returns the spellings of a secret: plain, URL-escaped, and the base64 of
// both, in the two alphabets and for the three positions at which a secret can
// start within base64's groups of three bytes.
func forms(secret string) []string {
	all := []string{secret}
	if escaped := url.QueryEscape(secret); escaped != secret {
		all = append(all, escaped)
	}
	for _, plain := range all[:len(all):len(all)] {
		for shift := range 3 {
			b := append(make([]byte, shift), plain...)
			std := base64.RawStdEncoding.EncodeToString(b)
			// The first and the last character also encode bits of the neighbouring
			// bytes.
			from, to := (shift*8+5)/6, len(b)*8/6
			if to-from < gramBytes {
				continue
			}
			std = std[from:to]
			all = append(all, std)
			if u := strings.NewReplacer("+", "-", "/", "_").Replace(std); u != std {
				all = append(all, u)
			}
		}
	}
	return all
}

// clean returns text without secrets and control characters, as valid UTF-8 of
// at most limit bytes.
func (r *redactor) clean(text string, limit int) string {
	if text == "" {
		return ""
	}
	// Cut secrets are found, too, so a huge text can be cut before it is searched.
	if most := 8 * limit; len(text) > most {
		text = text[:most]
	}
	text = r.mask(text)
	if strings.Contains(text, "=") || strings.Contains(text, "%3") {
		text = signedQuery.ReplaceAllString(text, "usersig="+redacted)
	}
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, text)
	if len(text) <= limit {
		return text
	}
	const more = "…"
	end := limit - len(more)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}

// mask replaces every run of text that also occurs in a secret.
func (r *redactor) mask(text string) string {
	p := r.pieces.Load()
	if p == nil {
		return text
	}
	var out strings.Builder
	kept := 0   // text[:kept] is in out
	secret := 0 // end of the current run; no run is open at i >= secret
	start := 0  // start of the current run
	for i := 0; i+gramBytes <= len(text); i++ {
		if _, hit := (*p)[[gramBytes]byte([]byte(text[i:i+gramBytes]))]; !hit {
			continue
		}
		if i >= secret { // a new run begins; write the one before
			if secret > kept {
				out.WriteString(text[kept:start])
				out.WriteString(redacted)
				kept = secret
			}
			start = i
		}
		secret = i + gramBytes
	}
	if secret > kept {
		out.WriteString(text[kept:start])
		out.WriteString(redacted)
		kept = secret
	}
	if kept == 0 {
		return text
	}
	out.WriteString(text[kept:])
	return out.String()
}
