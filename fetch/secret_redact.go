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
	// gramBytes is the shortest piece of a secret that is recognised. A shorter
	// one may show; an attacker gains nothing from twelve characters of a
	// 64-character key.
	gramBytes = 12
	// maxSecrets bounds what the redactor remembers: keys and UserSigs of this
	// process, the last used ones. One UserSig is made every few days, and one
	// per probe while the API refuses them.
	maxSecrets = 8
)

// redactor takes secrets out of texts, in whatever form they got in: as they
// are, URL-escaped, in base64, and cut off anywhere: it looks for pieces, not
// for whole secrets, because an error message that quotes half of a URL quotes
// half of a UserSig.
type redactor struct {
	pieces atomic.Pointer[pieces] // replaced, never changed

	mu      sync.Mutex
	secrets []string // guarded by mu
}

// pieces is what to look for. Secrets shorter than gramBytes are looked for as a
// whole.
type pieces struct {
	grams map[[gramBytes]byte]struct{}
	short []string
}

// signedQuery catches the value of the query parameter usersig even if it is
// none of ours.
var signedQuery = regexp.MustCompile(`(?i)\busersig(=|%3d)[^&\s"'<>]+`)

// add makes the redactor know one more secret.
func (r *redactor) add(secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.secrets, secret); i >= 0 {
		r.secrets = append(slices.Delete(r.secrets, i, i+1), secret) // in use again: the newest
		return
	}
	r.secrets = append(r.secrets, secret)
	if len(r.secrets) > maxSecrets {
		r.secrets = r.secrets[1:]
	}
	p := &pieces{grams: map[[gramBytes]byte]struct{}{}}
	for _, s := range r.secrets {
		for _, form := range forms(s) {
			if len(form) < gramBytes {
				p.short = append(p.short, form)
			}
			for i := 0; i+gramBytes <= len(form); i++ {
				p.grams[[gramBytes]byte([]byte(form[i:]))] = struct{}{}
			}
		}
	}
	r.pieces.Store(p)
}

// forms are the spellings of a secret: plain and URL-escaped, and the base64 of
// both in the two alphabets and at the three places a secret can start within
// base64's groups of three bytes.
func forms(secret string) []string {
	all := []string{secret}
	if escaped := url.QueryEscape(secret); escaped != secret {
		all = append(all, escaped)
	}
	for _, plain := range all[:len(all):len(all)] {
		for shift := range 3 {
			b := append(make([]byte, shift), plain...)
			std := base64.RawStdEncoding.EncodeToString(b)
			// The first and the last character mix in bytes that are not the
			// secret's.
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

// clean makes text fit to leave the package: no secret, no control characters,
// valid UTF-8, at most limit bytes.
func (r *redactor) clean(text string, limit int) string {
	if text == "" {
		return ""
	}
	// Pieces are found wherever the text is cut, so a huge text may be cut
	// before it is searched.
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

// mask replaces every run that also occurs in a secret.
func (r *redactor) mask(text string) string {
	p := r.pieces.Load()
	if p == nil {
		return text
	}
	for _, s := range p.short {
		text = strings.ReplaceAll(text, s, redacted)
	}
	var out strings.Builder
	kept := 0   // text[:kept] is in out
	secret := 0 // text up to here is part of a secret; 0 or below the place looked at: none is open
	start := 0  // where the open run began
	for i := 0; i+gramBytes <= len(text); i++ {
		if _, hit := p.grams[[gramBytes]byte([]byte(text[i:i+gramBytes]))]; !hit {
			continue
		}
		if i >= secret { // a new run; flush the one before
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
