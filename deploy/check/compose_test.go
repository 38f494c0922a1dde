package check

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// compose loads a compose file as Docker does: checked against the published
// schema, and for consistency.
func compose(ctx context.Context, file string) (*types.Project, error) {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithConsistency(true), cli.WithNormalization(true), cli.WithResolvedPaths(true))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(ctx)
}

func TestCompose(t *testing.T) {
	project, err := compose(t.Context(), deploy+"/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"enricher", "grafana", "kafka", "prometheus", "simulator", "topics"}
	if got := project.ServiceNames(); !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	all, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range project.Services {
		for _, v := range s.Volumes {
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s mounts what is not there: %v", name, err)
			}
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to other hosts", name, p.Published)
			}
		}
		if s.Build == nil {
			if _, tag, _ := strings.Cut(s.Image, ":"); tag == "" || tag == "latest" {
				t.Errorf("%s: image %q without a version", name, s.Image)
			}
			continue
		}
		if !same(t, s.Build.Context, root) || !same(t, filepath.Join(s.Build.Context, s.Build.Dockerfile), deploy+"/Dockerfile") {
			t.Errorf("%s: built from %s with %s", name, s.Build.Context, s.Build.Dockerfile)
		}
		if _, ok := instructions.HasStage(all, s.Build.Target); !ok {
			t.Errorf("%s: the Dockerfile has no target %q", name, s.Build.Target)
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
			t.Errorf("%s: its root can be written to, or it has capabilities", name)
		}
	}

	// The programs accept what they are given: each is stopped by one wrong flag,
	// the enricher by the last one that it looks at.
	enricher := project.Services["enricher"]
	cmd := exec.Command(program(t, "enricher"), "run", "--admin-addr=nonsense")
	for k, v := range enricher.Environment {
		cmd.Env = append(cmd.Env, k+"="+*v)
	}
	complains(t, cmd, 1, "--admin-addr: listen tcp: address nonsense")
	cmd = exec.Command(program(t, "simulator"), append(slices.Clone([]string(project.Services["simulator"].Command)), "-rate=nonsense")...)
	complains(t, cmd, 2, `invalid value "nonsense" for flag -rate`)

	if grace := time.Duration(*enricher.StopGracePeriod); grace <= drainTimeout(t) {
		t.Errorf("stop_grace_period %v is not longer than the default of --drain-timeout", grace)
	}
}

// The loader is strict: what it does not know fails.
func TestComposeIsChecked(t *testing.T) {
	text := read(t, deploy+"/compose.yaml")
	for old, bad := range map[string]string{
		"read_only: true":        "readonly: true",
		"replicas: 2":            "replicas: many",
		"target: simulator":      "target: [simulator]",
		"      topics:\n       ": "      topic:\n       ",
	} {
		file := filepath.Join(t.TempDir(), "compose.yaml")
		changed := strings.ReplaceAll(string(text), old, bad)
		if changed == string(text) {
			t.Fatalf("%q is not in the file", old)
		}
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := compose(t.Context(), file); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.Stat(b)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(x, y)
}

// complains runs a command that must fail with this exit code, and say this
// before anything else.
func complains(t *testing.T, cmd *exec.Cmd, code int, what string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	first, _, _ := strings.Cut(string(out), "\n")
	if cmd.ProcessState.ExitCode() != code || !strings.Contains(first, what) {
		t.Errorf("%v: %v, want exit code %d and %q first:\n%s", cmd, err, code, what, out)
	}
}

// drainTimeout is the flag's default.
func drainTimeout(t *testing.T) time.Duration {
	t.Helper()
	help, errs, err := output(t.Context(), program(t, "enricher"), "run", "--help")
	if err != nil {
		t.Fatal(err, errs)
	}
	d, err := time.ParseDuration(regexp.MustCompile(`--drain-timeout=(\w+)`).FindStringSubmatch(help)[1])
	if err != nil {
		t.Fatal(err)
	}
	return d
}
