package main

import (
	"context"
	"errors"
	"fmt"
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
	"enricher/test/kafka"
	"enricher/test/kafkaproxy"
)

// instance is an instance name of the program, with its own ways to the brokers and
// to the API. One process after another runs under the name.
type instance struct {
	name  string
	names names
	env   *env
	proxy *kafkaproxy.Proxy
	api   *fetchtest.Server
	admin string
	log   *os.File
	proc  *process // nil: never started; only one goroutine at a time uses it
}

// process is a process of the program.
type process struct {
	cmd      *exec.Cmd
	mayExit  atomic.Bool   // something ends it, so that its exit is no failure
	done     chan struct{} // closed when it has exited
	exitCode int           // valid once done is closed
}

func (e *env) newInstance(name string, names names, nodes int) (i *instance, err error) {
	i = &instance{name: name, names: names, env: e}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.close())
		}
	}()
	if i.proxy, err = kafkaproxy.Listen(nodes); err != nil {
		return nil, err
	}
	i.proxy.OnRequest(e.tamperWith)
	if i.api, err = fetchtest.Listen(e.requests.record(name, e.api)); err != nil {
		return nil, err
	}
	admin, err := kafka.FreePorts(1)
	if err != nil {
		return nil, err
	}
	i.admin = "127.0.0.1:" + strconv.Itoa(admin[0])
	i.log, err = os.Create(filepath.Join(e.dir, name+".log"))
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

// start starts a process of the instance.
func (i *instance) start() error {
	p, err := i.spawn(i.admin)
	if err == nil {
		i.proc = p
	}
	return err
}

func (i *instance) spawn(admin string) (*process, error) {
	p := &process{done: make(chan struct{})}
	p.cmd = exec.Command(i.env.binary, append([]string{"run",
		"--brokers", strings.Join(i.proxy.Addrs(), ","), "--instance", i.name, "--group", i.names.group,
		"--input-topics", i.names.in, "--enriched-topic", i.names.out, "--dead-letter-topic", i.names.dead,
		"--api-url", i.api.URL, "--sdk-app-id", strconv.Itoa(fetchtest.DemoSDKAppID), "--api-rate", strconv.Itoa(apiRate),
		"--admin-addr", admin}, i.env.flags...)...)
	p.cmd.Env = append(os.Environ(), "ENRICHER_SECRET_KEY="+fetchtest.DemoKey)
	p.cmd.Stderr = i.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	fmt.Fprintf(i.log, "--- process %d of %s\n", p.cmd.Process.Pid, i.name)
	go func() {
		_ = p.cmd.Wait() // the exit code is what counts
		p.exitCode = p.cmd.ProcessState.ExitCode()
		if !p.mayExit.Load() {
			i.env.exits <- fmt.Errorf("process %d of %s exited by itself, with exit code %d", p.cmd.Process.Pid, i.name, p.exitCode)
		}
		close(p.done)
	}()
	return p, nil
}

// running reports whether the instance has a process that has not exited.
func (i *instance) running() bool {
	if i.proc == nil {
		return false
	}
	select {
	case <-i.proc.done:
		return false
	default:
		return true
	}
}

// kill sends SIGKILL and waits until the process is gone.
func (i *instance) kill() {
	if i.proc != nil {
		i.proc.mayExit.Store(true)
		_ = i.proc.cmd.Process.Kill() // gone already, at worst
		<-i.proc.done
	}
}

// terminate sends SIGTERM.
func (i *instance) terminate() error {
	i.proc.mayExit.Store(true)
	return i.proc.cmd.Process.Signal(syscall.SIGTERM)
}

// drainLimit is more than --drain-timeout, 20 s, and the time to close the Kafka
// client.
const drainLimit = 40 * time.Second

// awaitDrain waits for the exit of a process that was terminated.
func (i *instance) awaitDrain() error {
	select {
	case <-i.proc.done:
	case <-time.After(drainLimit):
		return fmt.Errorf("%s has not exited %v after SIGTERM", i.name, drainLimit)
	}
	if i.proc.exitCode != 0 {
		return fmt.Errorf("%s: exit code %d after SIGTERM", i.name, i.proc.exitCode)
	}
	return nil
}

// restart does what an orchestrator does: it ends the process, starts another one,
// and waits until that is ready.
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

// readyLimit is several times what joining the group takes.
const readyLimit = 30 * time.Second

// awaitReady waits until the process reports that it is ready.
func (i *instance) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
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
			return fmt.Errorf("%s is not ready: %w", i.name, err)
		}
	}
}
