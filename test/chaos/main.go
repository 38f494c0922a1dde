// Command chaos runs instances of the real program on a real Kafka, kills,
// freezes and restarts them and the broker at random moments, and checks with an
// exact oracle that every event has one outcome, and the right one.
//
//	go run ./test/chaos -seed 7 -duration 3m
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
	"enricher/test/kafka"
	"enricher/test/oracle"
)

const (
	group      = "chaos"
	partitions = 12
	inTopic    = "call-ended"
	outTopic   = "call-enriched"
	deadTopic  = "call-dead-letters"
	frozen     = 13 * time.Second // past the session time-out of 10 s
	patience   = 3 * time.Minute  // for the last outcomes
)

func main() {
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of everything that happens")
	duration := flag.Duration("duration", 3*time.Minute, "how long faults are injected")
	instances := flag.Int("instances", 3, "processes")
	nodes := flag.Int("nodes", 1, "brokers, 1 or 3")
	rate := flag.Int("rate", 100, "events a second")
	flag.Parse()
	fmt.Printf("seed %d\n", *seed)
	c := &chaos{rng: rand.New(rand.NewPCG(*seed, 0)), seed: *seed, instances: make([]*instance, *instances), rate: *rate, counts: map[string]*count{}}
	if err := c.run(*duration, *nodes); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// chaos is one run.
type chaos struct {
	rng       *rand.Rand
	seed      uint64
	rate      int
	binary    string
	kafka     *kafka.Cluster
	api       *fetchtest.API
	url       string
	admin     *kadm.Client
	instances []*instance
	counts    map[string]*count
	ledger    oracle.Ledger
}

// count is how often a kind of fault was injected, and how often it hit an
// instance with a transaction open.
type count struct{ injected, hit int }

// instance is a process of the program.
type instance struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
}

func (c *chaos) run(duration time.Duration, nodes int) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c.binary = filepath.Join(dir, "enricher")
	if out, err := exec.Command("go", "build", "-o", c.binary, "./cmd/enricher").CombinedOutput(); err != nil {
		return fmt.Errorf("build the program (run this from the top of the repository): %w\n%s", err, out)
	}
	if c.kafka, err = kafka.Start(ctx, kafka.Config{Nodes: nodes}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.kafka.Stop()) }()
	c.api = fetchtest.New(fetchtest.Config{Rate: 200, Seed: c.seed, Misbehave: []fetchtest.Chance{
		{Percent: 3, Fault: fetchtest.BadGateway()}, {Percent: 2, Fault: fetchtest.NotJSON()},
		{Percent: 2, Fault: fetchtest.CutBody()}, {Percent: 1, Fault: fetchtest.Reset()},
	}})
	server, err := fetchtest.Listen(c.api)
	if err != nil {
		return err
	}
	defer server.Close()
	c.url = server.URL
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.kafka.Brokers...))
	if err != nil {
		return err
	}
	defer cl.Close()
	c.admin = kadm.NewClient(cl)
	created, err := c.admin.CreateTopics(ctx, partitions, -1, nil, inTopic, outTopic, deadTopic)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for i := range c.instances {
		c.instances[i] = &instance{name: "i" + strconv.Itoa(i)}
		if c.instances[i].log, err = os.Create(filepath.Join(dir, c.instances[i].name+".log")); err != nil {
			return err
		}
		if err := c.start(c.instances[i]); err != nil {
			return err
		}
	}
	defer func() {
		for _, i := range c.instances {
			i.kill()
		}
	}()
	feeding, fed := context.WithCancel(ctx)
	fedErr := make(chan error, 1)
	go func() { fedErr <- c.feed(feeding, cl) }()
	faultErr := c.faults(ctx, duration, nodes)
	fed()
	if err := errors.Join(faultErr, <-fedErr); err != nil {
		return err
	}
	return c.settle(ctx)
}

func (c *chaos) start(i *instance) error {
	i.cmd = exec.Command(c.binary, "run", "--brokers", strings.Join(c.kafka.Brokers, ","), "--group", group, "--instance", i.name,
		"--api-url", c.url, "--sdk-app-id", strconv.Itoa(fetchtest.DemoSDKAppID), "--admin-addr", "127.0.0.1:0",
		"--settle-delay", "300ms", "--not-found-window", "5s")
	i.cmd.Env = append(os.Environ(), "ENRICHER_SECRET_KEY="+fetchtest.DemoKey)
	i.cmd.Stderr = i.log
	return i.cmd.Start()
}

func (i *instance) kill() {
	if i.cmd != nil && i.cmd.ProcessState == nil {
		_ = i.cmd.Process.Kill() // gone already, at worst
		_ = i.cmd.Wait()         // says that it was killed
	}
}

// feed produces events until ctx ends, and keeps the ledger.
func (c *chaos) feed(ctx context.Context, cl *kgo.Client) error {
	rng := rand.New(rand.NewPCG(c.seed, 1))
	tick := time.NewTicker(time.Second / time.Duration(c.rate))
	defer tick.Stop()
	failed := make(chan error, 1)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			if err := cl.Flush(context.Background()); err != nil {
				return err
			}
			select {
			case err := <-failed:
				return fmt.Errorf("feed: %w", err)
			default:
				return nil
			}
		case <-tick.C:
		}
		r, e := c.event(rng, n)
		cl.Produce(context.Background(), r, func(r *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
				return
			}
			c.ledger.Add(oracle.Source{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}, e)
		})
	}
}

func (c *chaos) event(rng *rand.Rand, n int) (*kgo.Record, oracle.Expect) {
	id := "call-" + strconv.Itoa(n)
	var e oracle.Expect
	r := &kgo.Record{Topic: inTopic}
	switch kind := rng.IntN(100); {
	case kind < 2:
		r.Value, e.Reasons = []byte("junk"), []schemas.Reason{schemas.Malformed}
	case kind < 4:
		r.Value = []byte(`{"CallbackCommand":"Call.CallbackAfterStartCall"}`)
	default:
		if kind < 20 && n > 0 {
			id = "call-" + strconv.Itoa(rng.IntN(n)) // repeated, perhaps of one that was nothing before
		}
		record := c.api.RecordFor(id)
		e.CallID, e.Enriched = id, schemas.Enrich(&record).Encode()
		r.Value = fmt.Appendf(nil, `{"CallId":%q}`, id)
	}
	r.Key = []byte(id)
	e.Key, e.Value, e.Produced = r.Key, r.Value, time.Now()
	return r, e
}

// faults injects one after the other.
func (c *chaos) faults(ctx context.Context, duration time.Duration, nodes int) error {
	kinds := []string{"kill", "kill", "kill", "term", "term", "freeze", "broker"}
	for end := time.Now().Add(duration); time.Now().Before(end); {
		<-time.After(time.Duration(1000+c.rng.IntN(4000)) * time.Millisecond)
		kind := kinds[c.rng.IntN(len(kinds))]
		i := c.instances[c.rng.IntN(len(c.instances))]
		n := c.counts[kind]
		if n == nil {
			n = &count{}
			c.counts[kind] = n
		}
		n.injected++
		if c.awaitTransaction(ctx, i) {
			n.hit++
		}
		if err := c.inject(ctx, kind, i, nodes); err != nil {
			return fmt.Errorf("%s %s: %w", kind, i.name, err)
		}
	}
	return nil
}

// awaitTransaction waits a while for a moment at which the instance has a
// transaction open, in most cases.
func (c *chaos) awaitTransaction(ctx context.Context, i *instance) bool {
	id := producer.TransactionalID(group, i.name)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		got, err := c.admin.DescribeTransactions(ask, id)
		cancel()
		if err == nil && got[id].State == "Ongoing" {
			return true
		}
	}
	return false
}

func (c *chaos) inject(ctx context.Context, kind string, i *instance, nodes int) error {
	restart := func() error {
		<-time.After(time.Duration(c.rng.IntN(3000)) * time.Millisecond)
		return c.start(i)
	}
	switch kind {
	case "kill":
		i.kill()
		return restart()
	case "term":
		if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := i.cmd.Wait(); err != nil {
			return fmt.Errorf("did not drain: %w", err)
		}
		return restart()
	case "freeze":
		if err := i.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		<-time.After(frozen)
		return i.cmd.Process.Signal(syscall.SIGCONT)
	case "broker":
		node := c.rng.IntN(nodes)
		if err := c.kafka.Kill(node); err != nil {
			return err
		}
		<-time.After(time.Duration(c.rng.IntN(3000)) * time.Millisecond)
		if err := c.kafka.Run(node); err != nil {
			return err
		}
		return c.kafka.Await(ctx, nodes)
	}
	return errors.New("no such fault")
}

// settle waits for the last outcomes and makes the account.
func (c *chaos) settle(ctx context.Context) error {
	var a *oracle.Account
	for end := time.Now().Add(patience); ; {
		records, err := oracle.Read(ctx, []kgo.Opt{kgo.SeedBrokers(c.kafka.Brokers...)}, outTopic, deadTopic)
		if err != nil {
			return err
		}
		a = c.ledger.Check(records)
		if a.OK() || len(a.Doubled)+len(a.Wrong) > 0 || time.Now().After(end) {
			break
		}
		<-time.After(time.Second)
	}
	fmt.Println(a)
	fmt.Printf("API: %d requests, %.3f per call, at most %d in one second\n", c.api.Requests(), c.api.RequestsPerCallID(), c.api.MaxInAnyWindow(time.Second))
	var problems []error
	for kind, n := range c.counts {
		fmt.Printf("%s: %d injected, %d hit an open transaction\n", kind, n.injected, n.hit)
		if n.hit == 0 {
			problems = append(problems, fmt.Errorf("no %s hit an open transaction: run longer", kind))
		}
	}
	if !a.OK() {
		problems = append(problems, errors.New("the account is not right"))
	}
	return errors.Join(problems...)
}
