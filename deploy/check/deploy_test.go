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

// Paths from the directory of this package.
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

// binaries builds the programs as the Dockerfile does, and returns their directory.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	return dir, buildAsImage(dir)
})

// program returns the path of one of the binaries.
func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// output runs a command and returns its output.
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
