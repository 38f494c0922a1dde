package readers_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// errMissing means that packages cannot be installed on this machine.
var errMissing = errors.New("cannot be installed")

// installPython installs the packages of a file for pip, and returns their directory.
func installPython(ctx context.Context, requirements string) (string, error) {
	return install(ctx, []string{requirements}, "python3", "-m", "pip", "install", "--quiet", "--target", "packages", "-r", filepath.Base(requirements))
}

// installNode installs the packages of package.json, and returns their directory.
// Scripts of packages do not run.
func installNode(ctx context.Context) (string, error) {
	return install(ctx, []string{"package.json", "package-lock.json"}, "npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund")
}

// install runs a command in a new directory with copies of files. The user's cache
// keeps the directory for as long as the files do not change.
func install(ctx context.Context, files []string, command ...string) (string, error) {
	if _, err := exec.LookPath(command[0]); err != nil {
		return "", fmt.Errorf("%w: %w", errMissing, err)
	}
	sum := sha256.New()
	contents := make(map[string][]byte)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		contents[file] = b
		_, _ = sum.Write(b) // never fails
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a directory for the packages: %w", err)
	}
	dir := filepath.Join(cache, "enricher-readers", command[0]+"-"+hex.EncodeToString(sum.Sum(nil)[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	// Next to its final place, so that an interrupted installation is never used.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "install")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	for file, b := range contents {
		if err := os.WriteFile(filepath.Join(work, filepath.Base(file)), b, 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s: %w\n%s", errMissing, strings.Join(command, " "), err, out)
	}
	if err := os.Rename(work, dir); err != nil {
		if _, there := os.Stat(dir); there == nil {
			return dir, nil // another process was faster
		}
		return "", err
	}
	return dir, nil
}

// pythonCommand runs a script with the packages of a directory and with no others that
// the machine may have.
func pythonCommand(ctx context.Context, dir, script string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "python3", append([]string{"-S", script}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(dir, "packages"))
	return cmd
}

// nodeCommand runs a script with the packages of a directory.
func nodeCommand(ctx context.Context, dir, script string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "node", append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	return cmd
}
