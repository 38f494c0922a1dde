package docs_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"enricher/schemas"
)

// sections of contract.md describe the properties of a schema.
var sections = map[string]string{
	"enriched.schema.json":    "## Enriched records",
	"dead-letter.schema.json": "## Dead letters",
	"event.schema.json":       "## Events",
	"record.schema.json":      "### The call record",
}

// The contract has a row for every property of every schema, for every header, every
// reason and every anomaly, and no other rows.
func TestContractIsComplete(t *testing.T) {
	contract := read(t, "contract.md")
	known := slices.Collect(maps.Values(headers(t)))
	files, err := filepath.Glob("../schemas/*.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		heading, ok := sections[filepath.Base(file)]
		if !ok {
			t.Errorf("contract_test.go does not say which section describes %s", file)
			continue
		}
		rows := rowsOf(section(t, contract, heading))
		for _, name := range properties(t, file) {
			known = append(known, name)
			if !slices.Contains(rows, name) {
				t.Errorf("%s has no row for %s", heading, name)
			}
		}
	}
	outputs := append(rowsOf(section(t, contract, "## Enriched records")), rowsOf(section(t, contract, "## Dead letters"))...)
	for constant, name := range headers(t) {
		if !slices.Contains(outputs, name) {
			t.Errorf("neither output has a row for schemas.%s, %s", constant, name)
		}
	}
	reasons, anomalies := rowsOf(section(t, contract, "### Reasons")), rowsOf(section(t, contract, "### Anomalies"))
	for _, r := range schemas.Reasons() {
		known = append(known, string(r))
		if !slices.Contains(reasons, string(r)) {
			t.Errorf("there is no row for the reason %s", r)
		}
	}
	for _, a := range schemas.Anomalies() {
		known = append(known, string(a))
		if !slices.Contains(anomalies, string(a)) {
			t.Errorf("there is no row for the anomaly %s", a)
		}
	}
	for _, row := range rowsOf(contract) {
		if !slices.Contains(known, row) {
			t.Errorf("there is a row for %s, which is in no schema", row)
		}
	}
}

// section returns the text from a heading to the next one of its level or above.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no section %q", heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	if end := regexp.MustCompile(`(?m)^#{1,` + strconv.Itoa(len(level)) + `} `).FindStringIndex(rest); end != nil {
		rest = rest[:end[0]]
	}
	return rest
}

// rowsOf returns the names, in code spans, that begin the rows of tables.
func rowsOf(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		if cells := strings.Split(line, "|"); len(cells) > 2 && cells[0] == "" {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				names = append(names, m[1])
			}
		}
	}
	return names
}

// properties returns the names of all properties in a schema, at any depth.
func properties(t *testing.T, file string) []string {
	t.Helper()
	var schema any
	if err := json.Unmarshal([]byte(read(t, file)), &schema); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	names := make(map[string]bool)
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			if p, ok := v["properties"].(map[string]any); ok {
				for name := range p {
					names[name] = true
				}
			}
			for _, item := range v {
				walk(item)
			}
		}
	}
	walk(schema)
	return slices.Sorted(maps.Keys(names))
}

// headers returns the values of the constants of package schemas that name headers.
func headers(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../schemas/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, file := range files {
		syntax, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(syntax, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, name := range spec.Names {
				if !strings.HasPrefix(name.Name, "Header") || i >= len(spec.Values) {
					continue
				}
				if text, ok := spec.Values[i].(*ast.BasicLit); ok && text.Kind == token.STRING {
					if found[name.Name], err = strconv.Unquote(text.Value); err != nil {
						t.Fatal(err)
					}
				}
			}
			return true
		})
	}
	if len(found) < 15 {
		t.Fatalf("%d headers: they are not where this test looks", len(found))
	}
	return found
}

// What the last cell of a row calls never absent is required, by the schema or, for the
// headers of enriched records, by the AsyncAPI document. Nothing else is.
func TestContractSaysWhatIsRequired(t *testing.T) {
	var document struct {
		Components struct {
			Messages struct {
				Enriched struct{ Headers struct{ Required []string } }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "../schemas/asyncapi.yaml")), &document); err != nil {
		t.Fatal(err)
	}
	required := map[string][]string{"## Enriched records": document.Components.Messages.Enriched.Headers.Required}
	for _, file := range []string{"enriched.schema.json", "dead-letter.schema.json"} {
		var schema struct{ Required []string }
		if err := json.Unmarshal([]byte(read(t, "../schemas/"+file)), &schema); err != nil {
			t.Fatal(err)
		}
		required[sections[file]] = append(required[sections[file]], schema.Required...)
	}
	contract := read(t, "contract.md")
	for heading, names := range required {
		own, _, _ := strings.Cut(section(t, contract, heading), "\n### ")
		for line := range strings.Lines(own) {
			cells := strings.Split(strings.TrimSpace(line), "|")
			for _, name := range rowsOf(line) {
				never := strings.HasPrefix(strings.TrimSpace(cells[len(cells)-2]), "never")
				if never != slices.Contains(names, name) {
					t.Errorf("%s: %s is absent %s, required: %v", heading, name, cells[len(cells)-2], !never)
				}
			}
		}
	}
}

// The AsyncAPI document names every header that is not in the schema of dead letters,
// and every schema that it refers to exists.
func TestAsyncAPIIsComplete(t *testing.T) {
	document := read(t, "../schemas/asyncapi.yaml")
	inSchema := properties(t, "../schemas/dead-letter.schema.json")
	for constant, name := range headers(t) {
		if !slices.Contains(inSchema, name) && !strings.Contains(document, name+":") {
			t.Errorf("there is no schemas.%s, %s", constant, name)
		}
	}
	references := regexp.MustCompile(`\$ref: ['"]?\./([^#'"\s]+)`).FindAllStringSubmatch(document, -1)
	if len(references) < 3 {
		t.Errorf("only %d schemas are referred to", len(references))
	}
	for _, m := range references {
		if _, err := os.Stat(filepath.Join("../schemas", m[1])); err != nil {
			t.Error(err)
		}
	}
}
