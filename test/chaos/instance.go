package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"enricher/fetch/fetchtest"
	"enricher/test/proxy"
)

// instance is one name that a process of the program runs under, and its own
// ways to the brokers and to the API.
type instance struct {
	name  string
	stage *stage
	proxy *proxy.Proxy
	api   *fetchtest.Server
	admin string
	log   *os.File
	proc  *process // nil: never started; only one goroutine at a time uses it
}

// process is a process of the program.
type process struct {
	cmd      *exec.Cmd
	mayEnd   atomic.Bool   // somebody ends it, so its end is no failure
	done     chan struct{} // closed when it has ended
	exitCode int           // then
}

func (s *stage) newInstance(name string, nodes int) (i *instance, err error) {
	i = &instance{name: name, stage: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.close())
		}
	}()
	if i.proxy, err = proxy.Listen(nodes); err != nil {
		return nil, err
	}
	if i.api, err = fetchtest.Listen(s.calls.from(name, s.api)); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i.admin = l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	i.log, err = os.Create(filepath.Join(s.dir, name+".log"))
	return i, err
}

func (i *instance) close() error {
	var errs []error
	if i.proxy != nil {
		errs = append(errs, i.proxy.Close())
	}
	if i.api != nil {
		errs = append(errs, i.api.Close())
	}
	if i.log != nil {
		errs = append(errs, i.log.Close())
	}
	return errors.Join(errs...)
}

// listener is the name of the brokers' listener for this instance.
func (i *instance) listener() string { return strings.ToUpper(i.name) }

// start starts a process, and makes it the instance's.
func (i *instance) start() error {
	p, err := i.spawn(i.admin)
	if err == nil {
		i.proc = p
	}
	return err
}

func (i *instance) spawn(admin string) (*process, error) {
	p := &process{done: make(chan struct{})}
	p.cmd = exec.Command(i.stage.binary, append([]string{"run",
		"--brokers", strings.Join(i.proxy.Addrs(), ","), "--group", group, "--instance", i.name,
		"--api-url", i.api.URL, "--sdk-app-id", strconv.Itoa(fetchtest.DemoSDKAppID), "--api-rate", strconv.Itoa(apiRate),
		"--admin-addr", admin}, i.stage.flags...)...)
	p.cmd.Env = append(os.Environ(), "ENRICHER_SECRET_KEY="+fetchtest.DemoKey)
	p.cmd.Stderr = i.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	fmt.Fprintf(i.log, "--- process %d of %s\n", p.cmd.Process.Pid, i.name)
	go func() {
		_ = p.cmd.Wait() // the exit code tells
		p.exitCode = p.cmd.ProcessState.ExitCode()
		if !p.mayEnd.Load() {
			i.stage.deaths <- fmt.Errorf("process %d of %s ended by itself with exit code %d", p.cmd.Process.Pid, i.name, p.exitCode)
		}
		close(p.done)
	}()
	return p, nil
}

func (i *instance) running() bool { return i.proc != nil && !isDone(i.proc.done) }

func isDone(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// kill is SIGKILL; it returns when the process is gone.
func (i *instance) kill() {
	if i.proc != nil {
		i.proc.mayEnd.Store(true)
		_ = i.proc.cmd.Process.Kill() // gone already, at worst
		<-i.proc.done
	}
}

// terminate is SIGTERM.
func (i *instance) terminate() error {
	i.proc.mayEnd.Store(true)
	return i.proc.cmd.Process.Signal(syscall.SIGTERM)
}

// drainLimit is more than the drain budget of 20 s and what closing takes.
const drainLimit = 40 * time.Second

// awaitDrain waits for the end of a process that was terminated.
func (i *instance) awaitDrain() error {
	select {
	case <-i.proc.done:
	case <-time.After(drainLimit):
		return fmt.Errorf("%s does not end after SIGTERM", i.name)
	}
	if i.proc.exitCode != 0 {
		return fmt.Errorf("%s: exit code %d after SIGTERM", i.name, i.proc.exitCode)
	}
	return nil
}

// restart is what an orchestrator does: it ends the process, starts another
// one, and waits until that is ready.
func (i *instance) restart(ctx context.Context) error {
	if err := i.terminate(); err != nil {
		return err
	}
	if err := i.awaitDrain(); err != nil {
		return err
	}
	if err := i.start(); err != nil {
		return err
	}
	return i.awaitReady(ctx)
}

// awaitReady waits until the process says that it is ready.
func (i *instance) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.admin+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%s does not get ready: %w", i.name, err)
		}
	}
}
