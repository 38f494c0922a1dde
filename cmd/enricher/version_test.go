package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersionIsWhatGoRecorded(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef"}
	for name, c := range map[string]struct {
		info debug.BuildInfo
		want build
	}{
		"clean checkout": {
			info: debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{revision, {Key: "vcs.modified", Value: "false"}}},
			want: build{version: "v1.2.3", commit: "0123456789abcdef", goVersion: "go1.26"},
		},
		"modified checkout": {
			info: debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "v1.2.3+dirty"}, Settings: []debug.BuildSetting{revision, {Key: "vcs.modified", Value: "true"}}},
			want: build{version: "v1.2.3+dirty", commit: "0123456789abcdef (modified)", goVersion: "go1.26"},
		},
		"no checkout": {
			info: debug.BuildInfo{GoVersion: "go1.26", Main: debug.Module{Version: "(devel)"}},
			want: build{version: "(devel)", commit: "unknown", goVersion: "go1.26"},
		},
	} {
		if got := buildOf(&c.info); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestVersionNamesTheCommitOfACheckout(t *testing.T) {
	// Go does not find a repository whose .git is a file, as in a worktree.
	if f, err := os.Stat("../../.git"); err != nil || !f.IsDir() {
		t.Skip("not in a checkout")
	}
	head, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		t.Skip("no git: ", err)
	}
	binary := filepath.Join(t.TempDir(), "enricher")
	if out, err := exec.Command("go", "build", "-buildvcs=true", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(binary, "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "commit " + strings.TrimSpace(string(head)); !strings.Contains(string(out), want) {
		t.Errorf("no %q in\n%s", want, out)
	}
}
