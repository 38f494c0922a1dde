package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	sigsyaml "sigs.k8s.io/yaml"
)

const packaging = deploy + "/package"

// unit returns the settings of the systemd unit.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	settings := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^([A-Z]\w+)=(.*)$`).FindAllStringSubmatch(string(read(t, packaging+"/enricher.service")), -1) {
		settings[m[1]] = append(settings[m[1]], m[2])
	}
	return settings
}

// The service has time to drain, runs as the package's user with the package's file,
// and is not started again with a configuration that is wrong.
func TestUnit(t *testing.T) {
	settings := unit(t)
	one := func(name string) string {
		if len(settings[name]) != 1 {
			t.Fatalf("%s=%q", name, settings[name])
		}
		return settings[name][0]
	}
	if stop, err := time.ParseDuration(one("TimeoutStopSec")); err != nil || stop <= drainTimeout(t) {
		t.Errorf("TimeoutStopSec=%v is not longer than the default of --drain-timeout, %v; %v", stop, drainTimeout(t), err)
	}
	user, sysusers := one("User"), strings.Fields(string(read(t, packaging+"/sysusers.conf")))
	if user != sysusers[1] || sysusers[0] != "u" || one("Group") != user {
		t.Errorf("the service runs as %s, the package makes %v", user, sysusers)
	}
	if one("RestartPreventExitStatus") != "2" {
		t.Error("the service is restarted after wrong usage")
	}
	args := strings.Fields(one("ExecStart"))
	installed := map[string]string{} // paths of the sources, by those on the machine
	var release struct {
		Nfpms []struct {
			Bindir   string
			Contents []struct{ Src, Dst, Type string }
		}
	}
	if err := sigsyaml.Unmarshal(read(t, root+"/.goreleaser.yaml"), &release); err != nil {
		t.Fatal(err)
	}
	for _, c := range release.Nfpms[0].Contents {
		installed[c.Dst] = c.Src
		if strings.HasPrefix(c.Dst, "/etc/") && c.Type != "config|noreplace" {
			t.Errorf("an upgrade replaces %s", c.Dst)
		}
	}
	if args[0] != release.Nfpms[0].Bindir+"/enricher" || installed[args[len(args)-1]] == "" {
		t.Errorf("ExecStart=%v: not what the package installs", args)
	}
	// The file is complete but for what only its owner has.
	args[0], args[len(args)-1] = program(t, "enricher"), root+"/"+installed[args[len(args)-1]]
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err == nil || strings.Count(string(out), "\n") != 4 {
		t.Errorf("%v, want problems with region, SDKAppID and key only:\n%s", err, out)
	}
}

// systemd reads the unit without complaint, and rates it as well protected.
func TestUnitIsHardened(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatalf("%v; install it: apt-get install systemd", err)
	}
	file := filepath.Join(t.TempDir(), "enricher.service")
	text := strings.ReplaceAll(string(read(t, packaging+"/enricher.service")), "/usr/bin/enricher", program(t, "enricher"))
	text = strings.ReplaceAll(text, "Documentation=", "# ") // whose page is not installed here
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify", "--man=no"}, {"security", "--offline=true", "--threshold=15"}} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", append(args, file)...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %v: %v\n%s", args, err, out)
		}
	}
}

// The image of a release is that of deploy/Dockerfile, but for how the program gets
// into it.
func TestReleaseImageIsTheImage(t *testing.T) {
	settings := func(path string) []string {
		all, err := stagesOf(path)
		if err != nil {
			t.Fatal(err)
		}
		last := all[len(all)-1]
		if last.BaseName != "scratch" || last.Name != "enricher" {
			t.Errorf("%s: the last stage is %s from %s", path, last.Name, last.BaseName)
		}
		var lines []string
		for _, c := range last.Commands {
			switch c := c.(type) {
			case *instructions.ArgCommand:
			case *instructions.CopyCommand:
				lines = append(lines, "COPY to "+c.DestPath)
			default:
				lines = append(lines, reflect.TypeOf(c).String()+" "+strings.Join(strings.Fields(c.(interface{ String() string }).String()), " "))
			}
		}
		return lines
	}
	release, image := settings(packaging+"/Dockerfile"), settings(deploy+"/Dockerfile")
	if !slices.Equal(release, image) || len(image) < 8 {
		t.Errorf("deploy/package/Dockerfile:\n%q\ndeploy/Dockerfile:\n%q", release, image)
	}
}
