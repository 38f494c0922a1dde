package usage

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// app is a small command line with everything that completion has to handle.
type app struct {
	Config string `placeholder:"FILE"`
	Run    struct {
		Level string `default:"info" values:"debug,info" help:"The level: low's or high…"`
		Fast  bool
	} `cmd:"" help:"Run it."`
	Group struct {
		List struct{} `cmd:""`
		Look struct{} `cmd:""`
	} `cmd:""`
	Secret struct{} `cmd:"" hidden:""`
	Script struct {
		Shell string `arg:"" values:"bash,fish"`
	} `cmd:""`
}

func model(t *testing.T) *kong.Node {
	t.Helper()
	k, err := kong.New(&app{}, kong.Name("app"))
	if err != nil {
		t.Fatal(err)
	}
	return k.Model.Node
}

func TestComplete(t *testing.T) {
	for line, want := range map[string]string{
		"":                     "run group script",
		"r":                    "run",
		"group ":               "list look",
		"group lo":             "look",
		"group list ":          "",
		"run --":               "--help --config --level --fast",
		"run --l":              "--level",
		"run --level ":         "debug info",
		"run --level d":        "debug",
		"run --level=":         "--level=debug --level=info",
		"run --level=i":        "--level=info",
		"run --level =":        "debug info", // as bash passes it
		"run --level = i":      "info",
		"run --level debug --": "--help --config --level --fast",
		"run --fast --l":       "--level",
		"run --config r":       "", // the name of a file
		"--config x r":         "run",
		"--config=x gr":        "group",
		"run --absent x":       "",
		"script ":              "bash fish",
		"script f":             "fish",
		"absent r":             "run",
	} {
		var got []string
		for _, w := range Complete(model(t), strings.Split(line, " ")) {
			got = append(got, w.Text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", line, got, want)
		}
	}
}

// A manual page contains every visible flag and command, and roff reads each word of
// it as text.
func TestManualPage(t *testing.T) {
	var page bytes.Buffer
	if err := WriteMan(&page, model(t), "v1", [2]string{"NOTES", ".not a macro, 'nor this, and back\\slash"}); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip(err)
	}
	groff := exec.Command("groff", "-man", "-ww", "-Tutf8", "-P-cbou")
	var out, errs bytes.Buffer
	groff.Stdin, groff.Stdout, groff.Stderr = &page, &out, &errs
	if err := groff.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("%v: %s", err, &errs)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{".not a macro, 'nor this, and back\\slash", "run [flags] Run it.", "--config=FILE", "--level The level: low's or high… Default: info.", "group look", "script <shell>"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "secret") {
		t.Errorf("a hidden command is in\n%s", text)
	}
}

// There is a script for every shell, and it can be parsed where the shell is
// installed.
func TestScriptsCanBeParsed(t *testing.T) {
	for shell := range scripts {
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("no %s", shell)
			continue
		}
		cmd := exec.Command(path, "-n")
		cmd.Stdin = strings.NewReader(scripts[shell])
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
}
