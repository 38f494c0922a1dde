package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/fetch/lookup"
)

// service is an instance of the demo's pipeline: production's, but for the
// shorter times.
func (s *demoSettings) service(instance string) (*service, error) {
	key, err := fetch.KeyFromValue(fetch.NewSecret(fetchtest.DemoKey))
	if err != nil {
		return nil, err
	}
	client, err := fetch.NewClient(fetch.ClientConfig{BaseURL: s.API, SDKAppID: fetchtest.DemoSDKAppID, Key: key})
	if err != nil {
		return nil, err
	}
	return newService(consumer.Config{
		Group: s.Group, Instance: instance,
		InputTopics: []string{s.Input}, EnrichedTopic: s.Enriched, DeadLetterTopic: s.Dead,
		SDKAppID: fetchtest.DemoSDKAppID, Client: client, APIRate: demoRate,
		Retry:      lookup.RetryPolicy{LookupDelay: demoSettle, NotFoundWindow: demoNotFound, RetryWindow: demoNotFound},
		MaxConsecutiveDeadLetters: 1000, CacheSize: 100000, CacheBytes: 256 << 20, CacheTTL: 0x7fffffffffffffff,
		SessionTimeout: s.SessionTimeout, Heartbeat: s.SessionTimeout / 10,
	}, func() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(s.Brokers...)} })
}

// inside is an instance in this process.
type inside struct {
	*service
	cancel context.CancelFunc
	ended  chan error
}

func startInside(s demoSettings, instance string) (*inside, error) {
	service, err := s.service(instance)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	i := &inside{service, cancel, make(chan error, 1)}
	go func() { i.ended <- service.consumer.Run(ctx) }()
	return i, nil
}

// stop drains the instance.
func (i *inside) stop() error {
	i.cancel()
	return <-i.ended
}

// child is an instance in a process of its own, so that it can be killed.
type child struct {
	settings demoSettings
	instance string

	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startChild(s demoSettings, instance string) (*child, error) {
	c := &child{settings: s, instance: instance}
	return c, c.start()
}

func (c *child) start() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start it once more: %w", err)
	}
	settings, err := json.Marshal(c.settings)
	if err != nil {
		return err
	}
	c.cmd = exec.Command(self, "demo-instance", "--instance", c.instance)
	c.cmd.Args[0] = os.Args[0]
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start instance %s: %w", c.instance, err)
	}
	_, err = c.stdin.Write(append(settings, '\n'))
	return err
}

// kill ends the process as kill -9 would.
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

// stop has the instance drain, and waits for its end.
func (c *child) stop() error {
	if c.cmd.ProcessState != nil { // killed
		return nil
	}
	_ = c.stdin.Close() // broken if it is dead, which Wait tells
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("instance %s: %w", c.instance, err)
	}
	return nil
}

// demoInstanceCmd is what a child runs: it works until its standard input ends,
// so that it does not outlive the demo.
type demoInstanceCmd struct {
	Instance string
}

// Run implements the command.
func (d *demoInstanceCmd) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var s demoSettings
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&s); err != nil {
		return fmt.Errorf("this command is for the demo's own use: %w", err)
	}
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	service, err := s.service(d.Instance)
	if err != nil {
		return err
	}
	return service.consumer.Run(ctx)
}
