package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestArchitectureNamesFunctions(t *testing.T) {
	named := regexp.MustCompile("`([\\w./-]+\\.go):([\\w.]+)`").FindAllStringSubmatch(read(t, "architecture.md"), -1)
	if len(named) < 50 {
		t.Errorf("%d functions are named: the document has lost its form", len(named))
	}
	for _, m := range named {
		file, name := m[1], m[2]
		syntax, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s:%s: %v", file, name, err)
			continue
		}
		if n := len(slices.DeleteFunc(declared(syntax), func(d string) bool { return d != name })); n != 1 {
			t.Errorf("%s declares %d functions, methods or types %s, want one", file, n, name)
		}
	}
}

// declared returns the names of the functions, methods and types of a file; those
// of methods also with their receiver's type.
func declared(file *ast.File) []string {
	var names []string
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name.Name)
			if d.Recv != nil {
				receiver := d.Recv.List[0].Type
				if pointer, ok := receiver.(*ast.StarExpr); ok {
					receiver = pointer.X
				}
				if typ, ok := receiver.(*ast.Ident); ok {
					names = append(names, typ.Name+"."+d.Name.Name)
				}
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok {
					names = append(names, s.Name.Name)
				}
			}
		}
	}
	return names
}

// Every document names tests that exist; in a -run pattern, the beginnings of
// their names.
func TestDocumentsNameTests(t *testing.T) {
	var tests []string
	for _, file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			syntax, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			tests = append(tests, declared(syntax)...)
		}
	}
	documents, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	span := regexp.MustCompile("`[^`\n]+`")
	name := regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z]\w*`)
	found := 0
	for _, document := range append(documents, "../README.md") {
		for _, code := range span.FindAllString(read(t, document), -1) {
			for _, n := range name.FindAllString(code, -1) {
				found++
				exists := slices.Contains(tests, n)
				if strings.Contains(code, " -run ") {
					exists = slices.ContainsFunc(tests, func(test string) bool { return strings.HasPrefix(test, n) })
				}
				if !exists {
					t.Errorf("%s: there is no test %s", document, n)
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("%d tests are named: the documents have lost their form", found)
	}
}

func TestArchitectureNamesPaths(t *testing.T) {
	for _, m := range regexp.MustCompile("`((?:cmd|consumer|fetch|producer|schemas|test|deploy|docs|\\.ci)/[\\w./-]*)[:`]").
		FindAllStringSubmatch(read(t, "architecture.md"), -1) {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Error(err)
		}
	}
}

// The file map has every Go file, either itself or its directory.
func TestFileMapIsComplete(t *testing.T) {
	_, section, ok := strings.Cut(read(t, "architecture.md"), "\n## File map\n")
	if !ok {
		t.Fatal("there is no section \"File map\"")
	}
	var mapped []string
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				mapped = append(mapped, m[1])
			}
		}
	}
	for _, file := range goFiles(t) {
		test := strings.HasSuffix(file, "_test.go") && slices.ContainsFunc(mapped, func(m string) bool { return path.Dir(m) == path.Dir(file) })
		if !test && !slices.Contains(mapped, file) && !slices.Contains(mapped, path.Dir(file)+"/") {
			t.Errorf("%s is not in the file map", file)
		}
	}
}

// goFiles returns the paths of all Go files of the repository.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS(".."), ".", func(file string, entry fs.DirEntry, err error) error {
		if err == nil && path.Ext(file) == ".go" && entry.Type().IsRegular() {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
