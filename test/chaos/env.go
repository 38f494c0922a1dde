package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/test/kafka"
)

const (
	partitions = 12
	apiRate    = 200 // requests per second, as the real API allows
)

// names are those of a consumer group and of its topics.
type names struct{ group, in, out, dead string }

// oneGroup is the group of all modes but freeze.
var oneGroup = names{"chaos", "call-ended", "call-enriched", "call-dead-letters"}

// envConfig describes an env.
type envConfig struct {
	nodes     int
	groups    []names // nil: oneGroup
	instances int     // of each group, the most that ever run at a time; none runs at first
	api       fetchtest.Config
	flags     []string // of the program
}

// env is what a run needs: brokers, the API, and the instances.
type env struct {
	dir, binary string
	flags       []string
	groups      []names
	kafka       *kafka.Cluster
	api         *fetchtest.API
	requests    requestLog
	tampering   active[tamper]   // of the proxies of all instances
	refusing    atomic.Int32     // faults that have the dead-letter topic refuse records
	apiFaults   active[apiFault] // of the API
	client      *kgo.Client      // reaches the brokers without a proxy
	admin       *kadm.Client
	deadTopicID kadm.TopicID
	instances   []*instance
	ledger      audit.Ledger
	exits       chan error // of processes that no fault ended
}

// manyErrors is the capacity of channels of errors, each of which ends the run
// soon: no sender must wait.
const manyErrors = 1000

// withEnv creates an env, runs a scenario in it, and removes everything; the
// instances' logs stay if something went wrong.
func withEnv(ctx context.Context, cfg envConfig, logLevel string, keep bool, scenario func(*env) error) (err error) {
	if cfg.groups == nil {
		cfg.groups = []names{oneGroup}
	}
	e := &env{groups: cfg.groups, flags: append(cfg.flags, "--log-level", logLevel), exits: make(chan error, manyErrors)}
	if e.dir, err = os.MkdirTemp("", "chaos"); err != nil {
		return err
	}
	defer func() {
		if keep || err != nil {
			fmt.Println("logs of the instances:", e.dir)
			return
		}
		err = os.RemoveAll(e.dir)
	}()
	e.binary = filepath.Join(e.dir, "enricher")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", e.binary, "./cmd/enricher").CombinedOutput(); err != nil {
		return fmt.Errorf("build the program (run this in the root of the repository): %w\n%s", err, out)
	}
	e.api = fetchtest.New(cfg.api)
	e.api.OnRequest(e.apiResponse)
	defer func() {
		for _, i := range e.instances {
			err = errors.Join(err, i.close())
		}
	}()
	listeners := make(map[string][]string)
	for n := range cfg.instances * len(e.groups) {
		i, err := e.newInstance("i"+strconv.Itoa(n), e.groups[n/cfg.instances], cfg.nodes)
		if err != nil {
			return err
		}
		e.instances = append(e.instances, i)
		listeners[i.listener()] = i.proxy.Addrs()
	}
	if e.kafka, err = kafka.Start(ctx, kafka.Config{Nodes: cfg.nodes, Listeners: listeners}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.kafka.Stop()) }()
	for _, i := range e.instances {
		i.proxy.Forward(e.kafka.Listeners[i.listener()])
	}
	if err := e.connect(ctx); err != nil {
		return err
	}
	defer e.client.Close()
	defer func() {
		for _, i := range e.instances {
			i.kill()
		}
	}()
	return scenario(e)
}

func (e *env) connect(ctx context.Context) (err error) {
	e.client, err = kgo.NewClient(kgo.SeedBrokers(e.kafka.Brokers...), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return err
	}
	e.admin = kadm.NewClient(e.client)
	created, err := e.admin.CreateTopics(ctx, partitions, -1, nil, slices.Concat(e.inputTopics(), e.outputTopics())...)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	e.deadTopicID = created[oneGroup.dead].ID
	return nil
}

func (e *env) inputTopics() (topics []string) {
	for _, n := range e.groups {
		topics = append(topics, n.in)
	}
	return topics
}

func (e *env) outputTopics() (topics []string) {
	for _, n := range e.groups {
		topics = append(topics, n.out, n.dead)
	}
	return topics
}

// unexpectedExit returns an error if a process exited that no fault ended.
func (e *env) unexpectedExit() error { return received(e.exits) }

// received returns the next error of a channel, or nil if there is none now.
func received(errs <-chan error) error {
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// requestLog is the API's requests by the instance that made them.
type requestLog struct {
	mu       sync.Mutex
	requests []request // by time
}

type request struct {
	at       time.Time
	instance string
}

// record returns a handler that records an instance's requests and passes them to
// h.
func (l *requestLog) record(instance string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.requests = append(l.requests, request{time.Now(), instance})
		l.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

// between returns the requests from a to b, b excluded.
func (l *requestLog) between(a, b time.Time) []request {
	l.mu.Lock()
	defer l.mu.Unlock()
	var got []request
	for _, r := range l.requests {
		if !r.at.Before(a) && r.at.Before(b) {
			got = append(got, r)
		}
	}
	return got
}

// sleep waits, or returns an error as soon as ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
