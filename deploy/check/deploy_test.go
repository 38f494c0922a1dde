package check

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Where things are, from this folder.
const (
	root       = "../.."
	deploy     = ".."
	chart      = deploy + "/helm/enricher"
	alertsFile = chart + "/files/alerts.yaml"
	boardFile  = chart + "/files/dashboard.json"
)

var buildDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "enricher-check") })

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := buildDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// binaries are the programs that go into images, built as the Dockerfile does.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	return dir, buildAsImage(dir)
})

// program is the path of one of them.
func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// output runs a command to its end.
func output(ctx context.Context, name string, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
