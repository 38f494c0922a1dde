package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/cmd/enricher/internal/admin"
	"enricher/cmd/enricher/internal/hint"
	"enricher/consumer"
	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/fetch/lookup"
)

// instance is an instance of the pipeline: that of production, with shorter times.
type instance struct {
	pipeline *consumer.Consumer
	metrics  *admin.Metrics
}

func (s *settings) newInstance(name string) (*instance, error) {
	key, err := fetch.KeyFromValue(fetch.NewSecret(fetchtest.DemoKey))
	if err != nil {
		return nil, err
	}
	client, err := fetch.NewClient(fetch.ClientConfig{BaseURL: s.API, SDKAppID: fetchtest.DemoSDKAppID, Key: key, Timeout: apiTimeout})
	if err != nil {
		return nil, err
	}
	cfg := consumer.Config{
		Kafka: func() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(s.Brokers...)} },
		Group: s.Group, Instance: name,
		InputTopics: []string{s.Input}, EnrichedTopic: s.Enriched, DeadLetterTopic: s.Dead,
		SDKAppID: fetchtest.DemoSDKAppID, Client: client, APIRate: apiRate,
		Retry:                     lookup.RetryPolicy{LookupDelay: lookupDelay, NotFoundWindow: notFoundWindow, RetryWindow: notFoundWindow},
		EventRecord:               s.EventRecord,
		MaxConsecutiveDeadLetters: 1000, CacheSize: 100000, CacheBytes: 256 << 20, CacheTTL: math.MaxInt64,
		SessionTimeout: s.SessionTimeout, Heartbeat: s.SessionTimeout / 10,
	}
	i := &instance{metrics: admin.Instrument(&cfg)}
	// The demo writes no log and needs no credentials. The series are those of run,
	// since alerts use them.
	i.metrics.ExposeDroppedLines(func() uint64 { return 0 })
	i.metrics.ExposeCredentialProblems(func() int { return 0 })
	if i.pipeline, err = consumer.New(cfg); err != nil {
		return nil, err
	}
	i.metrics.ExposeReady(i.ready)
	return i, nil
}

// ready lists why the instance is not ready.
func (i *instance) ready() []string { return hint.Conditions(i.pipeline.Ready()) }

// warnings lists what does not keep the instance from being ready.
func (i *instance) warnings() []string { return hint.Conditions(i.pipeline.Warnings()) }

func (i *instance) alive() bool { return i.pipeline.Alive() }

// inProcess is an instance in this process.
type inProcess struct {
	*instance
	cancel context.CancelFunc
	ended  chan error
}

func startInProcess(s settings, name string) (*inProcess, error) {
	i, err := s.newInstance(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &inProcess{i, cancel, make(chan error, 1)}
	go func() { p.ended <- i.pipeline.Run(ctx) }()
	return p, nil
}

// stop drains the instance.
func (p *inProcess) stop() error {
	p.cancel()
	return <-p.ended
}

// child is an instance in a child process, so that it can be killed.
type child struct {
	settings settings
	name     string

	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startChild(s settings, name string) (*child, error) {
	c := &child{settings: s, name: name}
	return c, c.start()
}

func (c *child) start() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the executable of this program: %w", err)
	}
	settings, err := json.Marshal(c.settings)
	if err != nil {
		return err
	}
	c.cmd = exec.Command(self, "demo-instance", "--instance", c.name)
	c.cmd.Args[0] = os.Args[0]
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start instance %s: %w", c.name, err)
	}
	_, err = c.stdin.Write(append(settings, '\n'))
	return err
}

// kill ends the process with SIGKILL.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := c.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// stop makes the instance drain and waits for its end.
func (c *child) stop() error {
	if c.cmd.ProcessState != nil { // killed
		return nil
	}
	_ = c.stdin.Close() // fails if the process has died, which Wait reports
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("instance %s: %w", c.name, err)
	}
	return nil
}

// Instance is the hidden command that a child process runs. It runs until its
// standard input ends, so that it does not outlive the demo.
type Instance struct {
	Instance string
}

// Run reads the settings from standard input and runs the pipeline.
func (d *Instance) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var s settings
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&s); err != nil {
		return fmt.Errorf("this command is only for internal use by enricher demo: %w", err)
	}
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	i, err := s.newInstance(d.Instance)
	if err != nil {
		return err
	}
	return i.pipeline.Run(ctx)
}
