package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"

	"enricher/fetch"
)

const (
	envPrefix = "ENRICHER_"
	// envSecretKey is no flag's: a flag would show the key to every user of the
	// machine.
	envSecretKey = "ENRICHER_SECRET_KEY"
)

// inputs is where the values of flags come from besides the command line, and
// what is wrong with any of them.
//
// kong gives up at the first value that it cannot read and lets a file win over
// the environment. So its own handling of the environment is not used: inputs
// is a kong.Resolver for environment and file, and its mappers note a bad value
// instead of returning an error.
type inputs struct {
	secretKey string            // of the environment; "" when it is not there
	path      string            // of the file
	file      map[string]string // by flag
	lines     map[string]int    // where in the file
	from      map[string]string // by flag: which variable or line its value is from
	problems  []problem
}

// problem is what is wrong with a flag; "" when no flag is to blame.
type problem struct{ flag, text string }

// usageError lists everything that is wrong with a command's configuration.
type usageError struct {
	command  string
	problems []string
}

func (e *usageError) Error() string { return strings.Join(e.problems, "\n") }

// newInputs takes the secret key out of the environment, so that no child
// process and no dump of the variables has it.
func newInputs() *inputs {
	in := &inputs{
		secretKey: os.Getenv(envSecretKey),
		file:      map[string]string{},
		lines:     map[string]int{},
		from:      map[string]string{},
	}
	_ = os.Unsetenv(envSecretKey) // fails for malformed names only
	return in
}

// options configures kong.
func (in *inputs) options() []kong.Option {
	host, _ := os.Hostname() // "" is refused later, by the name of the flag
	opts := []kong.Option{
		kong.Name("enricher"),
		kong.Description("Enriches call-ended events from Kafka with records of the call-record API, exactly once."),
		kong.Vars{"hostname": host, "regions": strings.Join(fetch.Regions(), ", "), "reasons": reasonNames()},
		kong.Resolvers(in),
		kong.WithBeforeResolve(in.load),
		kong.ValueFormatter(withVariable),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.Bind(in),
	}
	return append(opts, mappers(in)...)
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// withVariable adds its environment variable to the help of a flag.
func withVariable(v *kong.Value) string {
	if v.Flag == nil || v.Name == "help" {
		return v.Help
	}
	return v.Help + " [$" + variable(v.Name) + "]"
}

// Validate implements kong.Resolver.
func (in *inputs) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver: kong asks it for each flag of the command
// that is not on the command line.
func (in *inputs) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if flag.Name == "help" {
		return nil, nil
	}
	if value, ok := os.LookupEnv(variable(flag.Name)); ok {
		in.from[flag.Name] = variable(flag.Name)
		return value, nil
	}
	if value, ok := in.file[flag.Name]; ok {
		in.from[flag.Name] = fmt.Sprintf("%s line %d", in.path, in.lines[flag.Name])
		return value, nil
	}
	return nil, nil
}

// load reads the file, if one is given. kong calls it once the command line is
// read, and before it asks for what is missing there.
func (in *inputs) load(ctx *kong.Context) error {
	if in.path != "" { // called for every command on the path
		return nil
	}
	in.path = os.Getenv(variable("config"))
	in.from["config"] = variable("config")
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == "config" {
			in.path = ctx.FlagValue(p.Flag).(string)
			delete(in.from, "config")
		}
	}
	if in.path == "" {
		return nil
	}
	f, err := os.Open(in.path)
	if err != nil {
		in.problem("config", "%v", err)
		return nil
	}
	defer f.Close()
	in.parse(f, flagNames(ctx.Model.Node))
	return nil
}

// parse reads a flat YAML mapping. A key of another command is fine: one file
// serves all of them.
func (in *inputs) parse(r io.Reader, known []string) {
	var doc yaml.Node
	dec := yaml.NewDecoder(r)
	if err := dec.Decode(&doc); err != nil {
		if !errors.Is(err, io.EOF) { // an empty file sets nothing
			in.problem("config", "%s: %v", in.path, err)
		}
		return
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		in.problem("config", "%s: holds more than one document", in.path)
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		if top.Tag != "!!null" { // nothing but comments
			in.problem("config", "%s: is no mapping of flags to values", in.path)
		}
		return
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		where := fmt.Sprintf("%s line %d", in.path, key.Line)
		if !slices.Contains(known, key.Value) {
			hint := ""
			if name := nearest(key.Value, known); name != "" {
				hint = fmt.Sprintf("; did you mean %q?", name)
			}
			in.problem("config", "%s: unknown key %q%s", where, key.Value, hint)
			continue
		}
		if line, twice := in.lines[key.Value]; twice {
			in.problem("config", "%s: %q was set in line %d already", where, key.Value, line)
			continue
		}
		text, err := scalars(value)
		if err != nil {
			in.problem("config", "%s: %q %v", where, key.Value, err)
			continue
		}
		in.file[key.Value], in.lines[key.Value] = text, key.Line
	}
}

// scalars is a value as it would stand on the command line. Which flag takes a
// list its mapper knows.
func scalars(n *yaml.Node) (string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Tag == "!!null":
		return "", errors.New("has no value")
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	case n.Kind == yaml.SequenceNode:
		var items []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return "", errors.New("holds something other than plain values")
			}
			items = append(items, item.Value)
		}
		return strings.Join(items, ","), nil
	}
	return "", errors.New("must be a plain value or a list of them")
}

// flagNames lists the flags of all commands, but not --config and --help, which
// make no sense in a file.
func flagNames(app *kong.Node) []string {
	var names []string
	_ = kong.Visit(app, func(v kong.Visitable, next kong.Next) error {
		if f, ok := v.(*kong.Flag); ok && f.Name != "config" && f.Name != "help" {
			names = append(names, f.Name)
		}
		return next(nil)
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// problem notes what is wrong with a flag. Of two problems with one value the
// first counts: the second follows from it.
func (in *inputs) problem(flag, format string, args ...any) {
	if flag != "" && flag != "config" && in.invalid(flag) {
		return
	}
	in.problems = append(in.problems, problem{flag, fmt.Sprintf(format, args...)})
}

// invalid says whether a problem with the flag is known.
func (in *inputs) invalid(flag string) bool {
	return slices.ContainsFunc(in.problems, func(p problem) bool { return p.flag == flag })
}

// checker is a command with values to check.
type checker interface{ check(in *inputs) }

// check has the chosen command check its values and returns everything that is
// wrong with the configuration.
func (in *inputs) check(kctx *kong.Context) error {
	if c, ok := kctx.Selected().Target.Addr().Interface().(checker); ok {
		c.check(in)
	}
	if len(in.problems) == 0 {
		return nil
	}
	e := &usageError{command: kctx.Selected().FullPath()}
	for _, p := range in.problems {
		text := p.text
		if p.flag != "" {
			text = "--" + p.flag + ": " + text
		}
		if from, ok := in.from[p.flag]; ok {
			text += " (from " + from + ")"
		}
		e.problems = append(e.problems, text)
	}
	return e
}

// required notes a flag without a value.
func (in *inputs) required(flag, value string) {
	if value == "" {
		in.problem(flag, "must be given")
	}
}

var _ kong.Resolver = (*inputs)(nil)
