package fetch

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// redacted is what stands wherever a secret would.
const redacted = "[redacted]"

// Secret is a text that prints as "[redacted]" in every way there is to print
// it: all verbs of fmt, JSON, text, slog and zap.
//
// The text is behind a pointer on purpose. fmt calls no method on an unexported
// field, so printing a struct that merely contains a Secret walks into it; what
// it finds there is an address.
type Secret struct{ text *string }

// NewSecret hides text.
func NewSecret(text string) Secret { return Secret{&text} }

// reveal is the only way back; it stays inside this package.
func (s Secret) reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no text in it.
func (s Secret) IsZero() bool { return s.reveal() == "" }

// Format implements fmt.Formatter: it covers every verb, %#v and %q included.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements fmt.Stringer, which zap.Any looks for.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalText implements encoding.TextMarshaler, which YAML encoders look for.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
