package config

import (
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"
)

const hidden = "[redacted]"

// WriteEffective writes the values of a command's flags as a file for --config, with
// the place that each comes from. It hides what could be a secret.
func (src *Sources) WriteEffective(w io.Writer, kctx *kong.Context) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, group := range kctx.Selected().AllFlags(false) {
		for _, f := range group {
			if !src.inFile(f.Name) {
				continue
			}
			value := kctx.FlagValue(f)
			from := src.origin(kctx, f)
			if unset := from == "default" && !f.HasDefault && reflect.ValueOf(value).IsZero(); unset && !f.IsBool() {
				fmt.Fprintf(tw, "# %s:\t# not set\n", f.Name)
				continue
			}
			text, err := flowYAML(shown(f, value))
			if err != nil {
				return err
			}
			fmt.Fprintf(tw, "%s: %s\t# %s\n", f.Name, text, from)
		}
	}
	if src.secretKey != "" {
		fmt.Fprintf(tw, "# the secret key: %s\t# environment %s\n", hidden, envSecretKey)
	}
	return tw.Flush()
}

// origin says where the value of a flag comes from.
func (src *Sources) origin(kctx *kong.Context, f *kong.Flag) string {
	switch from, elsewhere := src.from[f.Name]; {
	case elsewhere && from == variable(f.Name):
		return "environment " + from
	case elsewhere:
		return "file " + from
	}
	if slices.ContainsFunc(kctx.Path, func(p *kong.Path) bool { return p.Flag == f }) {
		return "flag"
	}
	return "default"
}

// userInfo is the part of a URL in which a password may be: all that is before the
// host of a URL with a scheme, and without one what has a colon, unlike me@example.com.
// query is the part in which a token may be.
var (
	userInfo = regexp.MustCompile(`://.*@|^[^@]*:.*@`)
	query    = regexp.MustCompile(`(://[^?]*[?]).*`)
)

// shown returns a value without what could be a secret: the parts of a URL, and the
// values of a flag that takes pairs.
func shown(f *kong.Flag, value any) any {
	show := func(s string) string {
		if f.PlaceHolder == "NAME=VALUE" {
			name, _, ok := strings.Cut(s, "=")
			if !ok { // what follows a comma in a value
				return hidden
			}
			return name + "=" + hidden
		}
		if f.PlaceHolder == "URL" && !strings.Contains(s, "://") { // a proxy's may lack the scheme
			if i := strings.LastIndexByte(s, '@'); i >= 0 {
				s = hidden + s[i:]
			}
		}
		s = userInfo.ReplaceAllStringFunc(s, func(info string) string {
			if scheme, _, ok := strings.Cut(info, "://"); ok {
				return scheme + "://" + hidden + "@"
			}
			return hidden + "@"
		})
		return query.ReplaceAllString(s, "${1}"+hidden)
	}
	switch value := value.(type) {
	case string:
		return show(value)
	case List:
		all := make([]string, len(value))
		for i, item := range value {
			all[i] = show(item)
		}
		return all
	case fmt.Stringer:
		return value.String()
	}
	return value
}

// flowYAML returns a value as YAML on one line.
func flowYAML(value any) (string, error) {
	var n yaml.Node
	if err := n.Encode(value); err != nil {
		return "", err
	}
	if n.Kind == yaml.SequenceNode {
		n.Style = yaml.FlowStyle
	}
	text, err := yaml.Marshal(&n)
	return strings.TrimSpace(string(text)), err
}
