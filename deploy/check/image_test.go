package check

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// stages parses the Dockerfile as BuildKit does, and reports the findings of all
// its lint rules as an error.
func stages() ([]instructions.Stage, error) { return stagesOf(deploy + "/Dockerfile") }

func stagesOf(path string) ([]instructions.Stage, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var warnings []error
	lint := linter.New(&linter.Config{ExperimentalAll: true, Warn: func(rule, description, _, msg string, at []parser.Range) {
		warnings = append(warnings, fmt.Errorf("line %d: %s: %s: %s", at[0].Start.Line, rule, description, msg))
	}})
	ast, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	all, _, err := instructions.Parse(ast.AST, lint)
	return all, errors.Join(append(warnings, err)...)
}

// commands returns the commands of type T in a stage.
func commands[T any](s instructions.Stage) []T {
	var all []T
	for _, c := range s.Commands {
		if c, ok := c.(T); ok {
			all = append(all, c)
		}
	}
	return all
}

// buildAsImage runs the build command of the Dockerfile, with dir in place of
// /out/.
func buildAsImage(dir string) error {
	all, err := stages()
	if err != nil {
		return err
	}
	for _, run := range commands[*instructions.RunCommand](all[0]) {
		line := strings.Join(run.CmdLine, " ")
		if !strings.Contains(line, "go build") {
			continue
		}
		if !strings.Contains(line, "/out/") {
			return fmt.Errorf("the build command does not write to /out/: %s", line)
		}
		cmd := exec.Command("sh", "-ec", strings.ReplaceAll(line, "/out/", dir+"/"))
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "TARGETOS="+runtime.GOOS, "TARGETARCH="+runtime.GOARCH)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", line, err, out)
		}
		return nil
	}
	return errors.New("the Dockerfile has no build command")
}

// Each image holds one static program, which runs as a user other than root.
func TestImagesHoldOneStaticProgram(t *testing.T) {
	all, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	goVersion := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(read(t, root+"/go.mod"))[1]
	if want := fmt.Sprintf("golang:%s-bookworm", goVersion); all[0].BaseName != want {
		t.Errorf("built with %s, want %s as in go.mod", all[0].BaseName, want)
	}
	numeric := regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`)
	var names []string
	for _, s := range all[1:] {
		names = append(names, s.Name)
		if s.BaseName != "scratch" {
			t.Errorf("%s: based on %s, want an empty image", s.Name, s.BaseName)
		}
		users := commands[*instructions.UserCommand](s)
		if len(users) != 1 || !numeric.MatchString(users[0].User) {
			t.Errorf("%s: no numeric user other than root", s.Name)
		}
		entry := commands[*instructions.EntrypointCommand](s)
		if len(entry) != 1 || entry[0].PrependShell || !slices.Equal(entry[0].CmdLine, []string{"/" + s.Name}) {
			t.Errorf("%s: the entry point is not the program, or runs in a shell", s.Name)
		}
		for _, copied := range commands[*instructions.CopyCommand](s) {
			if from, ok := strings.CutPrefix(copied.SourcePaths[0], "/out/"); ok && from != s.Name {
				t.Errorf("%s: also contains %s", s.Name, from)
			}
		}
		checkStatic(t, program(t, s.Name))
	}
	if !slices.Equal(names, []string{"simulator", "enricher"}) {
		t.Fatalf("stages %v, want enricher last, because a build without a target uses the last one", names)
	}
	health := commands[*instructions.HealthCheckCommand](all[2])
	if len(health) != 1 || !slices.Equal(health[0].Health.Test, []string{"CMD", "/enricher", "health"}) {
		t.Errorf("the health check does not run enricher health")
	}
	if out, errs, err := output(t.Context(), program(t, "enricher"), "version"); err != nil || !strings.HasPrefix(out, "enricher ") {
		t.Errorf("version: %v %s%s", err, out, errs)
	}
}

// checkStatic checks that the program needs no dynamic loader and no libraries.
func checkStatic(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s is not static: it needs a dynamic loader", path)
		}
	}
	if libs, err := f.ImportedLibraries(); err == nil && len(libs) > 0 {
		t.Errorf("%s is not static: it needs %v", path, libs)
	}
}

// The build context contains the directories of all packages that go into the
// images.
func TestDockerignoreKeepsSources(t *testing.T) {
	var kept []string
	for line := range strings.Lines(string(read(t, root+"/.dockerignore"))) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			kept = append(kept, name)
		}
	}
	out, errs, err := output(t.Context(), "go", "list", "-C", root, "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}",
		"./cmd/enricher", "./test/simulator")
	if err != nil {
		t.Fatal(err, errs)
	}
	top, _, err := output(t.Context(), "go", "list", "-C", root, "-m", "-f", "{{.Dir}}")
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.Lines(out) {
		folder, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(dir), strings.TrimSpace(top)+"/"), "/")
		if !slices.Contains(kept, folder) {
			t.Errorf("the build needs %s, which .dockerignore excludes", folder)
		}
	}
}
