package config

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"enricher/fetch"
)

// lists are the lists that tags and helps name.
func lists() map[string][]string {
	return map[string][]string{"regions": fetch.Regions(), "codecs": codecNames(), "formats": formatNames(), "mechanisms": mechanisms}
}

// Values returns the values that a flag or an argument may have, or nil if it may have any. They
// are in its tag.
func Values(flag *kong.Value) []string {
	tag := flag.Tag.Get("values")
	if tag == "" {
		return nil
	}
	return strings.Split(os.Expand(tag, func(name string) string {
		return strings.Join(lists()[name], ",")
	}), ",")
}

// Default returns the default of a flag, if it has one that does not depend on the
// machine.
func Default(f *kong.Flag) (string, bool) {
	return f.Default, f.HasDefault && !strings.Contains(f.Tag.Default, "${")
}

// OneOf reports whether a flag's value is one of those in its tag, and records a
// problem if it is not.
func (src *Sources) OneOf(flag, value string) bool {
	ok := slices.Contains(src.values[flag], value)
	if !ok {
		src.Problem(flag, "%q must be one of %s", value, strings.Join(src.values[flag], ", "))
	}
	return ok
}

// forms describes, for every type of value that a flag may have, what its mapper can
// read. YAML makes numbers and booleans of some texts.
var forms = map[reflect.Type]map[string]any{
	reflect.TypeFor[string]():  {"type": []string{"string", "number", "boolean"}},
	reflect.TypeFor[int]():     {"type": []string{"integer", "string"}, "pattern": `^[+-]?[0-9]+$`},
	reflect.TypeFor[float64](): {"type": []string{"number", "string"}, "pattern": `^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$`},
	reflect.TypeFor[time.Duration](): {
		"type": []string{"string", "integer"}, "minimum": 0, "maximum": 0, // only 0 needs no unit
		"pattern": `^[+-]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|ms|s|m|h))+)$`,
	},
	reflect.TypeFor[ByteSize](): {"type": []string{"integer", "string"}, "pattern": `^[+-]?[0-9]+( *[KMG]iB)?$`},
	reflect.TypeFor[bool](): {
		"type": []string{"boolean", "string", "integer"}, "minimum": 0, "maximum": 1,
		"pattern": `^([01tTfF]|true|True|TRUE|false|False|FALSE)$`,
	},
	reflect.TypeFor[List](): {
		"type": []string{"array", "string", "number", "boolean"}, "items": map[string]any{"type": []string{"string", "number", "boolean"}},
	},
}

// WriteSchema writes a JSON Schema of the file for --config.
func (src *Sources) WriteSchema(w io.Writer, app *kong.Node) error {
	properties := map[string]any{}
	_ = kong.Visit(app, func(v kong.Visitable, next kong.Next) error {
		// A flag of several commands is described as the first one has it.
		if f, ok := v.(*kong.Flag); ok && src.inFile(f.Name) && properties[f.Name] == nil {
			properties[f.Name] = property(f)
		}
		return next(nil)
	})
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{
		"$schema":              "http://json-schema.org/draft-07/schema#",
		"title":                "Configuration file of enricher",
		"type":                 "object",
		"additionalProperties": false,
		"properties":           properties,
	})
}

func property(f *kong.Flag) map[string]any {
	kind := f.Target.Type()
	p := maps.Clone(forms[kind])
	p["description"] = f.Help
	if text, ok := Default(f); ok {
		p["default"] = text
		if kind.Kind() == reflect.Int || kind.Kind() == reflect.Float64 {
			p["default"] = json.Number(text)
		}
	}
	if values := Values(f.Value); values != nil {
		p["enum"] = values
	}
	return p
}
