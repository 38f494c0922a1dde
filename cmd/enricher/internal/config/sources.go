// Package config reads the configuration of a command from its flags, the
// environment and a file, and reports everything that is wrong with it at once.
//
// It opens no connection and starts nothing: its values describe how to reach
// Kafka and the API, and the commands use them.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"
)

const (
	envPrefix = "ENRICHER_"
	// envSecretKey belongs to no flag: a flag would show the key to every user
	// of the machine.
	envSecretKey = "ENRICHER_SECRET_KEY"
)

// Sources holds the values of flags that come from the environment and from the
// file, and collects what is wrong with any value.
//
// kong stops at the first value that it cannot read and lets a file win over the
// environment. Its own handling of the environment is therefore not used:
// Sources is a kong.Resolver for environment and file, and its mappers record a
// bad value instead of returning an error.
type Sources struct {
	userAgent string
	secretKey string              // from the environment; "" when it is not set
	path      string              // of the file
	file      map[string]string   // by flag
	lines     map[string]int      // by flag: its line in the file, also if its value there is bad
	from      map[string]string   // by flag: the variable or line that its value comes from
	flags     []string            // the names of all flags
	argsOnly  []string            // the names of those that only the command line sets
	lists     []string            // the names of those that take several values
	values    map[string][]string // by flag: what its tag allows
	problems  []problem
}

// problem describes what is wrong with a flag; flag is "" when the problem
// belongs to none.
type problem struct{ flag, text string }

// UsageError lists everything that is wrong with the usage of a command.
type UsageError struct {
	Command  string // with the names of its parents
	Problems []string
}

// Error returns the problems, one per line.
func (e *UsageError) Error() string { return strings.Join(e.Problems, "\n") }

// NewSources takes the secret key out of the environment, so that no child process
// inherits it. /proc/PID/environ shows the variables that this process was started
// with for as long as it runs; only a file keeps the key from those who may read
// that. userAgent names this program to the API.
func NewSources(userAgent string) *Sources {
	src := &Sources{
		userAgent: userAgent,
		secretKey: os.Getenv(envSecretKey),
		file:      map[string]string{},
		lines:     map[string]int{},
		from:      map[string]string{},
		values:    map[string][]string{},
	}
	_ = os.Unsetenv(envSecretKey) // fails for malformed names only
	return src
}

// Options makes kong read flags from these sources.
func (src *Sources) Options() []kong.Option {
	host, _ := os.Hostname() // if it is "", Check reports --instance
	vars := kong.Vars{"hostname": host}
	for name, list := range lists() {
		vars[name] = strings.Join(list, ", ")
	}
	opts := []kong.Option{
		vars,
		kong.Resolvers(src),
		kong.PostBuild(func(k *kong.Kong) error {
			src.flags = flagNames(k.Model.Node, func(*kong.Flag) bool { return true })
			src.argsOnly = flagNames(k.Model.Node, argsOnly)
			src.lists = flagNames(k.Model.Node, func(f *kong.Flag) bool { return f.Target.Type() == reflect.TypeFor[List]() })
			flagNames(k.Model.Node, func(f *kong.Flag) bool { src.values[f.Name] = Values(f.Value); return true })
			return nil
		}),
		kong.WithBeforeResolve(src.load),
		kong.ValueFormatter(withVariable),
	}
	return append(opts, mappers(src)...)
}

// argsOnly reports whether only the command line sets a flag: one that says what a
// single command is to do, such as which dead letters to discard. A stray variable
// must not change that.
func argsOnly(flag *kong.Flag) bool { return flag.Name == "help" || flag.Tag.Has("args-only") }

// variable returns the environment variable of a flag.
func variable(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// withVariable appends the environment variable to the help of a flag.
func withVariable(v *kong.Value) string {
	if v.Flag == nil || argsOnly(v.Flag) {
		return v.Help
	}
	return v.Help + " [$" + variable(v.Name) + "]"
}

// Validate implements kong.Resolver.
func (src *Sources) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver: kong calls it for each flag of the command
// that is not on the command line.
func (src *Sources) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if argsOnly(flag) {
		return nil, nil
	}
	if value, ok := os.LookupEnv(variable(flag.Name)); ok {
		src.from[flag.Name] = variable(flag.Name)
		return value, nil
	}
	if value, ok := src.file[flag.Name]; ok {
		src.from[flag.Name] = fmt.Sprintf("%s line %d", src.path, src.lines[flag.Name])
		return value, nil
	}
	return nil, nil
}

// rank orders flags by where their values come from: file, environment, command
// line. Of two flags that exclude each other the one of higher rank counts.
func (src *Sources) rank(flag string) int {
	from, elsewhere := src.from[flag]
	switch {
	case !elsewhere:
		return 2
	case from == variable(flag):
		return 1
	}
	return 0
}

// load reads the file, if one is given and the command has a flag that it may set. kong
// calls it after it has read the command line and before it resolves the flags that are
// missing there.
func (src *Sources) load(ctx *kong.Context) error {
	if src.path != "" || !src.usesFile(ctx.Selected()) { // called for every command on the path
		return nil
	}
	src.path = os.Getenv(variable("config"))
	src.from["config"] = variable("config")
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == "config" {
			src.path = ctx.FlagValue(p.Flag).(string)
			delete(src.from, "config")
		}
	}
	if src.path == "" {
		return nil
	}
	f, err := os.Open(src.path)
	if err != nil {
		src.Problem("config", "%v", err)
		return nil
	}
	defer f.Close()
	src.parse(f)
	return nil
}

// parse reads a flat YAML mapping. It accepts the flags of every command, so that
// one file serves all of them.
func (src *Sources) parse(r io.Reader) {
	var doc yaml.Node
	dec := yaml.NewDecoder(r)
	if err := dec.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) { // an empty file sets nothing
			src.Problem("config", "%s: %v", src.path, err)
		}
		return
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		src.Problem("config", "%s: must contain a single document", src.path)
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		if top.ShortTag() != "!!null" { // nothing but comments
			src.Problem("config", "%s: must be a mapping of flag names to values", src.path)
		}
		return
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		where := fmt.Sprintf("%s line %d", src.path, key.Line)
		if slices.Contains(src.argsOnly, key.Value) {
			src.Problem("config", "%s: %q can be given on the command line only", where, key.Value)
			continue
		}
		if !src.inFile(key.Value) {
			hint := ""
			if name := nearest(key.Value, slices.DeleteFunc(slices.Clone(src.flags), func(f string) bool { return !src.inFile(f) })); name != "" {
				hint = fmt.Sprintf("; did you mean %q?", name)
			}
			src.Problem("config", "%s: unknown key %q%s", where, key.Value, hint)
			continue
		}
		if line, twice := src.lines[key.Value]; twice {
			src.Problem("config", "%s: %q is already set in line %d", where, key.Value, line)
			continue
		}
		src.lines[key.Value] = key.Line
		text, err := argument(value, slices.Contains(src.lists, key.Value))
		if err != nil {
			src.Problem("config", "%s: %q %v", where, key.Value, err)
			continue
		}
		src.file[key.Value] = text
	}
}

// argument returns the value of a flag as it would be written on the command line.
func argument(n *yaml.Node, list bool) (string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.ShortTag() == "!!null":
		return "", errors.New("has no value")
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	case n.Kind == yaml.SequenceNode && !list:
		return "", errors.New("takes one value, not a list")
	case !list:
		return "", errors.New("takes one value, not a mapping")
	case n.Kind == yaml.SequenceNode:
		var items []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.ShortTag() == "!!null" {
				return "", errors.New("may contain only plain values")
			}
			items = append(items, item.Value)
		}
		return strings.Join(items, ","), nil
	}
	return "", errors.New("must be a plain value or a list of them")
}

// usesFile reports whether the file may set a flag of a command. One without such a
// flag, as version, must work whatever is in the file.
func (src *Sources) usesFile(command *kong.Node) bool {
	return command != nil && slices.ContainsFunc(slices.Concat(command.AllFlags(false)...), func(f *kong.Flag) bool { return src.inFile(f.Name) })
}

// inFile reports whether the file may set a flag.
func (src *Sources) inFile(flag string) bool {
	return flag != "config" && slices.Contains(src.flags, flag) && !slices.Contains(src.argsOnly, flag)
}

// flagNames lists the flags of all commands that match.
func flagNames(app *kong.Node, match func(*kong.Flag) bool) []string {
	var names []string
	_ = kong.Visit(app, func(v kong.Visitable, next kong.Next) error {
		if f, ok := v.(*kong.Flag); ok && match(f) {
			names = append(names, f.Name)
		}
		return next(nil)
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// Problem records what is wrong with a flag. Of two problems with one value only
// the first is kept, because the second follows from it.
func (src *Sources) Problem(flag, format string, args ...any) {
	if flag != "" && flag != "config" && src.invalid(flag) {
		return
	}
	src.problems = append(src.problems, problem{flag, fmt.Sprintf(format, args...)})
}

// invalid reports whether a problem with the flag is known.
func (src *Sources) invalid(flag string) bool {
	_, read := src.file[flag]
	if _, given := src.lines[flag]; given && !read {
		return true
	}
	return slices.ContainsFunc(src.problems, func(p problem) bool { return p.flag == flag })
}

// Required records a problem if a flag has no value.
func (src *Sources) Required(flag, value string) {
	if value == "" {
		src.Problem(flag, "must be given")
	}
}

// Checker is implemented by commands and flag groups with values to check.
type Checker interface{ Check(src *Sources) }

// Check checks the values of the chosen command. It returns a UsageError with
// everything that is wrong with its configuration, or nil.
func (src *Sources) Check(kctx *kong.Context) error {
	if c, ok := kctx.Selected().Target.Addr().Interface().(Checker); ok {
		c.Check(src)
	}
	if len(src.problems) == 0 {
		return nil
	}
	return src.usageError(kctx.Selected())
}

// Explain turns an error of kong's parser into a UsageError that also lists the
// problems found before it.
func (src *Sources) Explain(err *kong.ParseError) *UsageError {
	text := err.Error()
	if arg, ok := strings.CutPrefix(text, "unknown flag "); ok && !strings.HasPrefix(arg, "--") {
		arg, _, _ = strings.Cut(arg, ",") // kong suggests -h
		text = fmt.Sprintf("unknown flag %s: a value that starts with a dash must be joined to its flag (--flag=-value), and an argument that does must follow --", arg)
	}
	src.Problem("", "%s", text)
	return src.usageError(err.Context.Selected())
}

func (src *Sources) usageError(command *kong.Node) *UsageError {
	e := &UsageError{Command: "enricher"}
	if command != nil {
		e.Command = command.FullPath()
	}
	for _, p := range src.problems {
		text := p.text
		if p.flag != "" {
			text = "--" + p.flag + ": " + text
		}
		if from, ok := src.from[p.flag]; ok {
			text += " (from " + from + ")"
		}
		e.Problems = append(e.Problems, text)
	}
	return e
}

var _ kong.Resolver = (*Sources)(nil)
