package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"enricher/cmd/enricher/internal/config"
)

// fileSchema returns what enricher config schema prints, compiled, and its
// properties.
func fileSchema(t *testing.T) (*jsonschema.Schema, map[string]any) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run([]string{"config", "schema"}, &out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	doc, err := jsonschema.UnmarshalJSON(&out)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s, doc.(map[string]any)["properties"].(map[string]any)
}

// validate validates a configuration file.
func validate(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

// The example files are valid, and enricher can read them.
func TestExampleFilesAreValid(t *testing.T) {
	s, _ := fileSchema(t)
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var examples []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(readme, -1) {
		examples = append(examples, string(m[1]))
	}
	if examples == nil {
		t.Error("README.md has no example of a file")
	}
	packaged, err := os.ReadFile("../../deploy/package/enricher.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range append(examples, string(packaged)) {
		if err := validate(t, s, text); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
		if errs, ok := readable(t, text); !ok {
			t.Errorf("%s in\n%s", errs, text)
		}
	}
}

// readable reports whether enricher can read a configuration file.
func readable(t *testing.T, text string) (string, bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "enricher.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run([]string{"config", "print", "--config", file}, &out, &errs)
	return errs.String(), code == 0
}

// The schema has every flag that the file may have, and accepts of each the values
// that enricher can read, and no others.
func TestSchemaAcceptsWhatCanBeRead(t *testing.T) {
	s, properties := fileSchema(t)
	k := newParser(config.NewSources(""))
	i := slices.IndexFunc(k.Model.Children, func(n *kong.Node) bool { return n.Name == "run" })
	flags, kinds := 0, map[reflect.Type]bool{}
	for _, f := range k.Model.Children[i].Flags {
		p, _ := properties[f.Name].(map[string]any)
		if f.Name == "help" || p == nil {
			t.Errorf("the schema has no flag %s", f.Name)
			continue
		}
		flags++
		if p["description"] == "" || p["type"] == nil {
			t.Errorf("%s: the schema describes it as %v", f.Name, p)
		}
		if text, ok := config.Default(f); ok && validate(t, s, f.Name+": "+text) != nil {
			t.Errorf("%s: the default %s is refused", f.Name, text)
		}
		if kind := f.Target.Type(); !kinds[kind] && config.Values(f.Value) == nil {
			kinds[kind] = true
			checkValues(t, s, f)
		}
	}
	if flags < 30 {
		t.Errorf("%d flags", flags)
	}
	for _, wrong := range []string{"api-rats: 5", "config: other.yaml", "sasl-password: x", "secret-key: x"} {
		if validate(t, s, wrong) == nil {
			t.Errorf("%s is accepted", wrong)
		}
	}
}

// checkValues checks that the schema accepts the values of a flag that enricher can
// read. It leaves out one that the schema accepts and enricher does not: a whole number
// written as 1e9.
func checkValues(t *testing.T, s *jsonschema.Schema, f *kong.Flag) {
	values := []string{
		"5", "0", "-3", "2.5", "1m30s", "5 s", "1GiB", "1GB", "true", "t", "many", "[5]", "[]", "[[a]]", "{a: b}", "~", "''",
	}
	switch f.Target.Interface().(type) {
	case config.List:
		values = append(values, "[a, b]", "[1, c]")
	case float64:
		values = append(values, "1e9", "'.5'", ".", "-1E-2", ".inf")
	}
	accepted := 0
	for _, value := range values {
		text := f.Name + ": " + value
		errs, ok := readable(t, text)
		err := validate(t, s, text)
		if ok != (err == nil) {
			t.Errorf("%s: the schema says %v, enricher %q", text, err, errs)
		}
		if ok {
			accepted++
		}
	}
	if accepted < 2 || accepted > len(values)-3 {
		t.Errorf("--%s accepts %d of %d values", f.Name, accepted, len(values))
	}
}

// A flag of several commands takes the same values in each: the file has one value
// for all of them.
func TestFlagsOfOneNameHaveOneType(t *testing.T) {
	_, properties := fileSchema(t)
	types := map[string]string{}
	for _, node := range newParser(config.NewSources("")).Model.Leaves(false) {
		for _, f := range node.Flags {
			name := f.Target.Type().String()
			if properties[f.Name] != nil && types[f.Name] != "" && types[f.Name] != name {
				t.Errorf("%s --%s is a %s, elsewhere a %s", node.FullPath(), f.Name, name, types[f.Name])
			}
			types[f.Name] = name
		}
	}
}

// The values in a flag's tag are those that enricher accepts.
func TestTaggedValuesAreAccepted(t *testing.T) {
	tried := map[string]bool{}
	for _, node := range newParser(config.NewSources("")).Model.Leaves(false) {
		for _, f := range node.Flags {
			if tried[f.Name] {
				continue
			}
			tried[f.Name] = true
			for _, value := range config.Values(f.Value) {
				var out, errs bytes.Buffer
				run([]string{"run", "--" + f.Name, value}, &out, &errs)
				if regexp.MustCompile(`--` + f.Name + `: .*(must be one of|unknown)`).Match(errs.Bytes()) {
					t.Errorf("%s", &errs)
				}
			}
		}
	}
}

// A command that has no flag which the file may set works without the file, and so
// does the help; one that has such a flag reports what is wrong with the file.
func TestOnlyCommandsWithFlagsOfTheFileReadIt(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "enricher.yaml")
	if err := os.WriteFile(broken, []byte("region: [china\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	without := map[string][]string{
		"completion": {"completion", "bash"}, "complete": {"complete", "bash", "enricher", "ver"},
		"config schema": {"config", "schema"}, "man": {"man"}, "version": {"version"},
	}
	execute := func(config string, args ...string) (int, string, string) {
		t.Setenv("ENRICHER_CONFIG", config)
		var out, errs bytes.Buffer
		code := run(args, &out, &errs)
		return code, out.String(), errs.String()
	}
	for _, node := range newParser(config.NewSources("")).Model.Leaves(false) {
		name := strings.TrimPrefix(node.Path(), "enricher ")
		help := append(strings.Fields(name), "--help")
		if code, _, errs := execute(broken, help...); code != 0 || errs != "" {
			t.Errorf("%v: exit code %d: %s", help, code, errs)
		}
		args, ok := without[name]
		if !ok {
			if code, _, errs := execute(broken, strings.Fields(name)...); code != exitUsage || !strings.Contains(errs, "--config: "+broken) {
				t.Errorf("%s: exit code %d: %s", name, code, errs)
			}
			continue
		}
		delete(without, name)
		_, want, _ := execute("", args...)
		for _, file := range []string{broken, broken + ".absent", filepath.Dir(broken)} {
			if code, out, errs := execute(file, args...); code != 0 || out != want || out == "" || errs != "" {
				t.Errorf("%v: exit code %d: %s%s", args, code, out, errs)
			}
		}
	}
	if len(without) > 0 {
		t.Errorf("there are no commands %v", without)
	}
}

// A list or a mapping in the file is refused for every flag that takes one value; a
// flag that takes several accepts a list of plain values, and one of them.
func TestFileValuesHaveTheFormOfTheirFlag(t *testing.T) {
	lists := map[string]bool{} // by flag: whether it takes several values
	for _, node := range newParser(config.NewSources("")).Model.Leaves(false) {
		for _, f := range node.Flags {
			lists[f.Name] = f.Target.Type() == reflect.TypeFor[config.List]()
		}
	}
	_, properties := fileSchema(t)
	for value, want := range map[string][2]string{ // of a flag that takes one value, and of one that takes several
		"a":         {"", ""},
		"[a, b]":    {"takes one value, not a list", ""},
		"[a]":       {"takes one value, not a list", ""},
		"[]":        {"takes one value, not a list", ""},
		"\n  - a":   {"takes one value, not a list", ""},
		"&x [a, b]": {"takes one value, not a list", ""},
		"[[a], b]":  {"takes one value, not a list", "may contain only plain values"},
		"[~]":       {"takes one value, not a list", "may contain only plain values"},
		"{a: b}":    {"takes one value, not a mapping", "must be a plain value or a list of them"},
		"{}":        {"takes one value, not a mapping", "must be a plain value or a list of them"},
		"\n  a: b":  {"takes one value, not a mapping", "must be a plain value or a list of them"},
		"~":         {"has no value", "has no value"},
	} {
		kinds := [2]int{}
		text, expected := "", map[string]string{}
		for name := range properties {
			kind := 0
			if lists[name] {
				kind = 1
			}
			kinds[kind]++
			text += name + ": " + value + "\n"
			if want[kind] != "" {
				expected[name] = want[kind]
			}
		}
		if kinds[0] < 50 || kinds[1] < 5 {
			t.Fatalf("%d flags take one value, %d several", kinds[0], kinds[1])
		}
		errs, _ := readable(t, text)
		for _, m := range regexp.MustCompile(`(?m)^enricher: --config: \S+ line \d+: "([a-z0-9-]+)" (.*)$`).FindAllStringSubmatch(errs, -1) {
			if expected[m[1]] != m[2] {
				t.Errorf("%s: %s: %q, want %q", m[1], value, m[2], expected[m[1]])
			}
			delete(expected, m[1])
		}
		if len(expected) > 0 {
			t.Errorf("%s: not reported: %v in\n%s", value, expected, errs)
		}
	}
}
