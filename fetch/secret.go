package fetch

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// redacted replaces every secret.
const redacted = "[redacted]"

// Secret is a text that is printed as "[redacted]" by all verbs of fmt, and by
// JSON, text, slog and zap.
//
// The text is behind a pointer on purpose. fmt calls no method on an unexported
// field, so it prints the fields of a Secret in a struct: here an address.
type Secret struct{ text *string }

// NewSecret returns a Secret that holds text.
func NewSecret(text string) Secret { return Secret{&text} }

// reveal returns the text. Only this package can.
func (s Secret) reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether s holds no text.
func (s Secret) IsZero() bool { return s.reveal() == "" }

// Format implements fmt.Formatter, which covers every verb, even %#v and %q.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String implements fmt.Stringer, which zap.Any uses.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalText implements encoding.TextMarshaler, which YAML encoders use.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
