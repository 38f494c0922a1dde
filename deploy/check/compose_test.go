package check

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	sigsyaml "sigs.k8s.io/yaml"
)

// loadCompose loads a compose file as Docker does: it checks the file against the
// published schema, and its consistency.
func loadCompose(ctx context.Context, file string) (*types.Project, error) {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithConsistency(true), cli.WithNormalization(true), cli.WithResolvedPaths(true))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(ctx)
}

func TestComposeFileIsValid(t *testing.T) {
	project, err := loadCompose(t.Context(), deploy+"/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"dlq-exporter", "enricher", "grafana", "kafka", "prometheus", "simulator", "topics"}
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
				t.Errorf("%s: the source of a volume is missing: %v", name, err)
			}
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is open to other hosts", name, p.Published)
			}
		}
		if s.Build == nil {
			if _, tag, _ := strings.Cut(s.Image, ":"); tag == "" || tag == "latest" {
				t.Errorf("%s: image %q has no version", name, s.Image)
			}
			continue
		}
		if !sameFile(t, s.Build.Context, root) || !sameFile(t, filepath.Join(s.Build.Context, s.Build.Dockerfile), deploy+"/Dockerfile") {
			t.Errorf("%s: built from %s with %s", name, s.Build.Context, s.Build.Dockerfile)
		}
		if _, ok := instructions.HasStage(all, s.Build.Target); !ok {
			t.Errorf("%s: the Dockerfile has no target %q", name, s.Build.Target)
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) {
			t.Errorf("%s: the root file system is writable, or the container has capabilities", name)
		}
	}

	// Each program accepts its configuration except for one invalid flag that is
	// added here. For enricher it is the last flag that it validates.
	enricher := project.Services["enricher"]
	for name, command := range map[string][]string{"enricher": {"run"}, "dlq-exporter": project.Services["dlq-exporter"].Command} {
		cmd := exec.Command(program(t, "enricher"), append(slices.Clone(command), "--admin-addr=nonsense")...)
		for k, v := range project.Services[name].Environment {
			cmd.Env = append(cmd.Env, k+"="+*v)
		}
		failsWith(t, cmd, 1, "--admin-addr: listen tcp: address nonsense")
	}
	cmd := exec.Command(program(t, "simulator"), append(slices.Clone([]string(project.Services["simulator"].Command)), "-rate=nonsense")...)
	failsWith(t, cmd, 2, `invalid value "nonsense" for flag -rate`)

	if grace := time.Duration(*enricher.StopGracePeriod); grace <= drainTimeout(t) {
		t.Errorf("stop_grace_period %v is not longer than the default of --drain-timeout", grace)
	}
}

// Prometheus scrapes every service that runs enricher, at the port of the image, each
// with a job of its own.
func TestComposeServicesAreScraped(t *testing.T) {
	project, err := loadCompose(t.Context(), deploy+"/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	exposed := commands[*instructions.ExposeCommand](all[len(all)-1])
	if len(exposed) != 1 || len(exposed[0].Ports) != 1 {
		t.Fatalf("the image exposes %v", exposed)
	}
	var want []string
	for name, s := range project.Services {
		if s.Build != nil && s.Build.Target == "enricher" {
			want = append(want, name+":"+exposed[0].Ports[0])
		}
	}
	var file struct {
		Jobs []struct {
			DNS []struct {
				Names []string
				Port  int
			} `json:"dns_sd_configs"`
			Static []struct{ Targets []string } `json:"static_configs"`
		} `json:"scrape_configs"`
	}
	if err := sigsyaml.Unmarshal(read(t, deploy+"/prometheus/prometheus.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, job := range file.Jobs {
		for _, c := range job.DNS {
			for _, name := range c.Names {
				got = append(got, name+":"+strconv.Itoa(c.Port))
			}
		}
		for _, c := range job.Static {
			got = append(got, c.Targets...)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(file.Jobs) != len(want) {
		t.Errorf("%d jobs scrape %v, want one for each of %v", len(file.Jobs), got, want)
	}
}

// The topics of the compose file keep their records for as long as operations.md
// says.
func TestComposeRetentionIsThatOfTheDocs(t *testing.T) {
	compose := map[string]time.Duration{}
	for _, m := range regexp.MustCompile(`(?m)^ *create (\S+) (\d+)`).FindAllStringSubmatch(string(read(t, deploy+"/compose.yaml")), -1) {
		ms, err := time.ParseDuration(m[2] + "ms")
		if err != nil {
			t.Fatal(err)
		}
		compose[m[1]] = ms
	}
	rows := regexp.MustCompile("(?m)^\\| [^|]*\\(`([a-z-]+)`\\) \\|[^|]*\\| (\\d+) days").FindAllStringSubmatch(string(read(t, root+"/docs/operations.md")), -1)
	if len(rows) != 2 {
		t.Errorf("the table of topics gives %d retentions in days: %q", len(rows), rows)
	}
	for _, row := range rows {
		days, err := strconv.Atoi(row[2])
		if err != nil {
			t.Fatal(err)
		}
		if want := time.Duration(days) * 24 * time.Hour; compose[row[1]] != want {
			t.Errorf("%s: compose.yaml keeps records for %v, operations.md says %v", row[1], compose[row[1]], want)
		}
	}
}

// The check of the compose file is useless unless the loader rejects mistakes.
func TestComposeLoaderRejectsMistakes(t *testing.T) {
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
			t.Fatalf("%q is not in compose.yaml", old)
		}
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadCompose(t.Context(), file); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func sameFile(t *testing.T, a, b string) bool {
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

// failsWith runs a command and checks that it fails with the exit code, and that
// the first line of its output contains the message.
func failsWith(t *testing.T, cmd *exec.Cmd, code int, message string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	first, _, _ := strings.Cut(string(out), "\n")
	if cmd.ProcessState.ExitCode() != code || !strings.Contains(first, message) {
		t.Errorf("%v: %v, want exit code %d and %q in the first line:\n%s", cmd, err, code, message, out)
	}
}

// drainTimeout returns the default of --drain-timeout.
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
