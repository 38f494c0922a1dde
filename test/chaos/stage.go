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
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/test/kafka"
)

const (
	group      = "chaos"
	partitions = 12
	inTopic    = "call-ended"
	outTopic   = "call-enriched"
	deadTopic  = "call-dead-letters"
	apiRate    = 200
)

// setup says what a stage has.
type setup struct {
	nodes     int
	instances int // as many as may ever run at a time; none is running at first
	api       fetchtest.Config
	flags     []string // of the program
}

// stage is where a run takes place: brokers, the API, and the instances.
type stage struct {
	dir, binary string
	flags       []string
	kafka       *kafka.Cluster
	api         *fetchtest.API
	calls       calls
	client      *kgo.Client // reaches the brokers without a proxy
	admin       *kadm.Client
	instances   []*instance
	ledger      audit.Ledger
	deaths      chan error // processes that nobody ended; with room for many
}

// onStage builds a stage, has the play played, and clears everything away; the
// instances' logs stay if something went wrong.
func onStage(ctx context.Context, cfg setup, logLevel string, keep bool, play func(*stage) error) (err error) {
	s := &stage{flags: append(cfg.flags, "--log-level", logLevel), deaths: make(chan error, 1000)}
	if s.dir, err = os.MkdirTemp("", "chaos"); err != nil {
		return err
	}
	defer func() {
		if keep || err != nil {
			fmt.Println("logs of the instances:", s.dir)
			return
		}
		err = os.RemoveAll(s.dir)
	}()
	s.binary = filepath.Join(s.dir, "enricher")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", s.binary, "./cmd/enricher").CombinedOutput(); err != nil {
		return fmt.Errorf("build the program (run this from the top of the repository): %w\n%s", err, out)
	}
	s.api = fetchtest.New(cfg.api)
	defer func() {
		for _, i := range s.instances {
			err = errors.Join(err, i.close())
		}
	}()
	listeners := make(map[string][]string)
	for n := range cfg.instances {
		i, err := s.newInstance("i"+strconv.Itoa(n), cfg.nodes)
		if err != nil {
			return err
		}
		s.instances = append(s.instances, i)
		listeners[i.listener()] = i.proxy.Addrs()
	}
	if s.kafka, err = kafka.Start(ctx, kafka.Config{Nodes: cfg.nodes, Listeners: listeners}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.kafka.Stop()) }()
	for _, i := range s.instances {
		i.proxy.Forward(s.kafka.Listeners[i.listener()])
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	defer s.client.Close()
	defer func() {
		for _, i := range s.instances {
			i.kill()
		}
	}()
	return play(s)
}

func (s *stage) connect(ctx context.Context) (err error) {
	s.client, err = kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return err
	}
	s.admin = kadm.NewClient(s.client)
	created, err := s.admin.CreateTopics(ctx, partitions, -1, nil, inTopic, outTopic, deadTopic)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	return nil
}

// calls are the API's requests by the instance that made them.
type calls struct {
	mu sync.Mutex
	at []call
}

type call struct {
	at   time.Time
	from string
}

// from notes who makes a request to h.
func (c *calls) from(name string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.at = append(c.at, call{time.Now(), name})
		c.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

// between lists the calls from a to b, b excluded.
func (c *calls) between(a, b time.Time) []call {
	c.mu.Lock()
	defer c.mu.Unlock()
	var got []call
	for _, at := range c.at {
		if !at.at.Before(a) && at.at.Before(b) {
			got = append(got, at)
		}
	}
	return got
}

// anyDeath is an error if a process ended that nobody had ended.
func (s *stage) anyDeath() error {
	select {
	case err := <-s.deaths:
		return err
	default:
		return nil
	}
}

// sleep waits, or returns earlier with an error if ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
