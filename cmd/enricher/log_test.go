package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
)

// process is a running process of the service with its broker and API.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	brokers []string
	admin   string
	ended   chan error
}

// startProcess starts the service at debug level with an output for its log.
func startProcess(t *testing.T, log *os.File) *process {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "call-ended", "call-enriched", "call-dead-letters"),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	server, err := fetchtest.Listen(fetchtest.New(fetchtest.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(self), brokers: cluster.ListenAddrs(), admin: freeAddr(t), ended: make(chan error, 1)}
	p.cmd.Args = []string{"enricher", "run", "--log-level", "debug", "--lookup-delay", "0s", "--admin-addr", p.admin, "--api-timeout", "3001ms",
		"--brokers", strings.Join(p.brokers, ","), "--api-url", server.URL, "--sdk-app-id", strconv.Itoa(fetchtest.DemoSDKAppID)}
	p.cmd.Env = append(os.Environ(), "ENRICHER_SECRET_KEY="+fetchtest.DemoKey)
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // it has ended, unless the test failed
	return p
}

// droppedLines returns the value of the metric.
func (p *process) droppedLines() int {
	p.t.Helper()
	resp, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		p.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^enricher_log_lines_dropped_total (\S+)$`).FindSubmatch(page)
	if m == nil {
		p.t.Fatalf("no metric of dropped lines in %s", page)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return int(n)
}

// feedUntilDropped produces events one after another until lines of the log were
// dropped, and then waits until every event is enriched.
func (p *process) feedUntilDropped() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.brokers...))
	if err != nil {
		p.t.Fatal(err)
	}
	defer cl.Close()
	fed := 0
	for dropped := 0; dropped == 0; dropped = p.droppedLines() {
		for range 20 {
			value := fmt.Appendf(nil, `{"CallId":"call-%d"}`, fed)
			if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "call-ended", Value: value}).FirstErr(); err != nil {
				p.t.Fatalf("after %d events: %v", fed, err)
			}
			fed++
			<-time.After(5 * time.Millisecond)
		}
	}
	for n := 0; n < fed; {
		records, err := audit.Read(ctx, []kgo.Opt{kgo.SeedBrokers(p.brokers...)}, "call-enriched")
		if err != nil {
			p.t.Fatalf("%d of %d events are enriched: %v", n, fed, err)
		}
		if n = len(records); n < fed {
			<-time.After(100 * time.Millisecond)
		}
	}
	p.t.Logf("%d events enriched, %d log lines dropped", fed, p.droppedLines())
}

// ready waits until the service is ready.
func (p *process) ready() {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(50 * time.Millisecond) {
		resp, err := http.Get("http://" + p.admin + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not ready: %v", err)
		}
	}
}

// terminate sends SIGTERM and expects a drain.
func (p *process) terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Errorf("the service ended with %v", err)
		}
	case <-time.After(15 * time.Second):
		p.t.Error("the service does not end")
	}
}

// A log in a pipe that is not read stops neither the work nor the drain. When it is
// read again, a line says how many are missing.
func TestLogThatIsNotRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := startProcess(t, w)
	p.ready()
	p.feedUntilDropped()

	_ = w.Close() // the service has the other end
	found := make(chan int, 1)
	go func() {
		reported := 0
		for lines := bufio.NewScanner(r); lines.Scan(); {
			var line struct {
				Msg   string
				Lines int
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Errorf("%q: %v", lines.Text(), err)
			}
			if line.Msg == "log lines were dropped" {
				reported += line.Lines
			}
		}
		found <- reported
	}()
	p.terminate()
	if n := <-found; n == 0 {
		t.Error("the log does not say how many lines are missing")
	}
}

// A drain ends although the log is not read to the last.
func TestDrainWithALogThatIsNotRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := startProcess(t, w)
	p.ready()
	p.feedUntilDropped()
	p.terminate()
}

// A log whose reader has gone does not end the process.
func TestLogInAClosedPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p := startProcess(t, w)
	p.ready()
	_ = r.Close()
	p.feedUntilDropped()
	p.terminate()
}

// freeAddr returns an address that is not in use.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
