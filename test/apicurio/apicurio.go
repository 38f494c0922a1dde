// Package apicurio runs Apicurio Registry, a schema registry with Confluent's API, on
// this machine: in memory, on a free loopback port. It needs Java 21 and, the first
// time, Maven, which downloads the program.
package apicurio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"enricher/test/kafka"
)

// Version is that of the registry.
const Version = "3.3.3"

const (
	leastJava = 21 // what the registry needs

	// startTimeout is several times what the registry takes to start on a busy machine.
	startTimeout = time.Minute
)

// ErrMissing is returned on a machine without Java 21, or where the registry cannot be
// installed.
var ErrMissing = errors.New("the real registry is not to be had")

// Registry is a running registry.
type Registry struct {
	address string
	cmd     *exec.Cmd
	out     bytes.Buffer // what it printed, complete after Stop
}

// Confluent returns the address of Confluent's API.
func (r *Registry) Confluent() string { return r.address + "/apis/ccompat/v7" }

// Own returns the address of the API that the registry's own deserializers use.
func (r *Registry) Own() string { return r.address + "/apis/registry/v2" }

// Start starts a registry and waits until it responds.
func Start(ctx context.Context) (*Registry, error) {
	java, err := findJava(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := install(ctx)
	if err != nil {
		return nil, err
	}
	ports, err := kafka.FreePorts(1)
	if err != nil {
		return nil, err
	}
	r := &Registry{address: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
	r.cmd = exec.Command(java, "-Xmx512m", "-XX:TieredStopAtLevel=1", fmt.Sprintf("-Dquarkus.http.port=%d", ports[0]), "-Dquarkus.http.host=127.0.0.1",
		"-jar", "quarkus-run.jar")
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = dir, &r.out, &r.out
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	if err := r.await(ctx); err != nil {
		return nil, fmt.Errorf("the registry does not respond: %w\n%s", err, r.Stop())
	}
	return r, nil
}

func (r *Registry) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.Confluent()+"/subjects", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Stop ends the registry, and returns the end of what it printed.
func (r *Registry) Stop() string {
	_ = r.cmd.Process.Kill() // it may have ended
	_ = r.cmd.Wait()         // killed
	return string(r.out.Bytes()[max(0, r.out.Len()-2000):])
}

// findJava returns a Java that is new enough.
func findJava(ctx context.Context) (string, error) {
	candidates, err := filepath.Glob("/usr/lib/jvm/*/bin/java")
	if err != nil {
		return "", err
	}
	if path, err := exec.LookPath("java"); err == nil {
		candidates = append(candidates, path)
	}
	if home := os.Getenv("JAVA_HOME"); home != "" {
		candidates = append([]string{filepath.Join(home, "bin", "java")}, candidates...)
	}
	for _, path := range candidates {
		out, _ := exec.CommandContext(ctx, path, "-version").CombinedOutput() // of one that fails there is no version
		if m := regexp.MustCompile(`version "(\d+)`).FindSubmatch(out); m != nil {
			if n, _ := strconv.Atoi(string(m[1])); n >= leastJava {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%w: there is no Java %d", ErrMissing, leastJava)
}

// install returns the directory of the program, which it downloads the first time.
func install(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a directory for the registry: %w", err)
	}
	dir := filepath.Join(cache, "enricher-apicurio", Version)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	// Next to its final place, so that an interrupted installation is never used.
	part, err := os.MkdirTemp(filepath.Dir(dir), "part")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	coordinates := "io.apicurio:apicurio-registry-app:" + Version + ":tar.gz:all"
	for _, args := range [][]string{
		{"mvn", "-q", "-B", "dependency:copy", "-Dartifact=" + coordinates, "-DoutputDirectory=" + part},
		{"tar", "-xzf", filepath.Join(part, "apicurio-registry-app-"+Version+"-all.tar.gz"), "-C", part},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = part
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w: it cannot be installed: %w: %.500s", ErrMissing, err, out)
		}
	}
	if err := os.Rename(part, dir); err != nil {
		if _, there := os.Stat(dir); there == nil {
			return dir, nil // another process was faster
		}
		return "", err
	}
	return dir, nil
}
