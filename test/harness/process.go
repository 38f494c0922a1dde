package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// childEnv holds the configuration of a child process.
const childEnv = "ENRICHER_TEST_CHILD"

// Main runs the tests, or child in a process that Spawn started. TestMain calls
// it. child receives the configuration as JSON; nil: there are no children.
func Main(m *testing.M, child func(config []byte) error) {
	if config := os.Getenv(childEnv); config != "" {
		if err := child([]byte(config)); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if err := stopSharedKafka(); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// Process is a child process.
type Process struct {
	PID int

	cmd    *exec.Cmd
	stdout *os.File
	done   chan struct{}
}

// Spawn runs this test binary as a child with a configuration. The child is killed
// at the end of the test at the latest.
func Spawn(t testing.TB, config any) *Process {
	t.Helper()
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p := &Process{cmd: exec.Command(self), stdout: r, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	p.cmd.Stdout, p.cmd.Stderr = w, os.Stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.PID = p.cmd.Process.Pid
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // Kill makes it fail; a child prints its own errors
	}()
	t.Cleanup(func() {
		p.Kill()
		_ = r.Close() // only read from
	})
	return p
}

// Kill sends SIGKILL and returns when the process has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// hanging is what a child prints when it hangs.
const hanging = "hanging"

// Hang stops the calling goroutine of a child for good, after reporting it to
// AwaitHang.
func Hang() {
	_, _ = fmt.Println(hanging) // the parent may be gone
	select {}
}

// AwaitHang waits until the child hangs.
func (p *Process) AwaitHang() error {
	line, err := bufio.NewReader(p.stdout).ReadString('\n')
	if strings.TrimSpace(line) != hanging {
		return fmt.Errorf("the child does not hang; it printed %q: %w", line, err)
	}
	return nil
}

// MemoryMB reads a field of the process's status, such as VmRSS. It fails where
// there is no /proc.
func (p *Process) MemoryMB(field string) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			var kb float64
			if _, err := fmt.Sscanf(rest, "%f kB", &kb); err != nil {
				return 0, fmt.Errorf("%s is %q: %w", field, rest, err)
			}
			return kb / 1000, nil
		}
	}
	return 0, fmt.Errorf("no %s in the process's status", field)
}
