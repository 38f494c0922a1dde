package consumer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
)

// victim is what a child process is told: this test binary, run as one
// instance until it is killed.
type victim struct {
	names
	Brokers   []string
	API       string
	Instance  string
	Unlimited bool // no quota, no settle delay, no flood guard
	// Hold is where to get stuck; it says so on standard output.
	Hold *failpoint
}

const victimEnv = "ENRICHER_TEST_VICTIM"

func TestMain(m *testing.M) {
	if told := os.Getenv(victimEnv); told != "" {
		if err := beVictim(told); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// The tests in real time wait for brokers and members most of the time.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8") // a number, so it cannot fail
	}
	code := m.Run()
	if sharedKafka.cluster != nil {
		if err := sharedKafka.cluster.Stop(); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func beVictim(told string) error {
	var v victim
	if err := json.Unmarshal([]byte(told), &v); err != nil {
		return err
	}
	cfg, err := config(v.Instance, v.API, nil, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	cfg.Kafka = func() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(v.Brokers...)} }
	v.apply(&cfg)
	quick(&cfg)
	if v.Hold != nil {
		n := &network{dial: new(net.Dialer).DialContext}
		n.onRequest(v.Hold.stuck)
		cfg.Kafka = func() []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(v.Brokers...), kgo.Dialer(n.DialContext)} }
	}
	if v.Unlimited {
		cfg.APIRate, cfg.Retry.LookupDelay, cfg.MaxConsecutiveDeadLetters = 0, 0, 0
	}
	c, err := consumer.New(cfg)
	if err != nil {
		return err
	}
	return c.Run(context.Background())
}

// process is a child that runs an instance.
type process struct {
	cmd    *exec.Cmd
	stdout io.Reader
}

func (w *world) spawn(instance, api string) *process {
	w.t.Helper()
	return w.spawnAs(victim{Brokers: w.brokers, API: api, Instance: instance})
}

func (w *world) spawnAs(v victim) *process {
	w.t.Helper()
	v.names = w.names
	told, err := json.Marshal(v)
	if err != nil {
		w.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), victimEnv+"="+string(told))
	p.cmd.Stderr = os.Stderr
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		w.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.kill)
	return p
}

// kill is SIGKILL; it returns when the process is gone.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill() // gone already, at worst
		_ = p.cmd.Wait()         // says that it was killed
	}
}

// failpoint is a moment of a transaction: a request that is under way. Happens
// says whether it still takes effect.
type failpoint struct {
	Key     kmsg.Key
	Happens bool
}

// stuck lets the process that reaches the failpoint go no further.
func (p *failpoint) stuck(k kmsg.Key) *fate {
	if k != p.Key {
		return nil
	}
	stay := func() {
		_, _ = fmt.Println("stuck") // a parent that is gone needs no word
		select {}
	}
	if p.Happens {
		return &fate{after: stay}
	}
	return &fate{before: stay}
}

// stuck waits until the process is at its failpoint.
func (p *process) stuck(t *testing.T) {
	t.Helper()
	if _, err := bufio.NewReader(p.stdout).ReadString('\n'); err != nil {
		t.Fatal("the failpoint was not reached: ", err)
	}
}

// failpoints are the moments of a transaction at which a process dies. On the
// embedded broker the process is gone before the broker goes on.
var failpoints = map[string]failpoint{
	"before begin":                  {kmsg.Produce, false},
	"during produce":                {kmsg.Produce, true},
	"after produce":                 {kmsg.TxnOffsetCommit, false},
	"after the offsets":             {kmsg.TxnOffsetCommit, true},
	"before end":                    {kmsg.EndTxn, false},
	"after end, before it is known": {kmsg.EndTxn, true},
}

// crashPoints: an instance dies by SIGKILL at every point of a transaction;
// itself restarted, or another one, takes over; exactly once each time.
func crashPoints(t *testing.T) {
	for name, point := range failpoints {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, api := tcpWorld(t)
			var armed atomic.Pointer[process]
			died := make(chan struct{}, 1)
			w.cluster.ControlKey(int16(point.Key), func(kmsg.Request) (kmsg.Response, error, bool) {
				w.cluster.KeepControl()
				p := armed.Swap(nil)
				if p == nil {
					return nil, nil, false
				}
				p.kill()
				died <- struct{}{}
				if point.Happens {
					return nil, nil, false
				}
				return nil, context.Canceled, true
			})
			for round, instance := range []string{"a", "a"} {
				p := w.spawn(instance, api)
				w.calls("warm"+strconv.Itoa(round)+"-", 30)
				w.await(30 * time.Second)
				armed.Store(p)
				w.calls("c"+strconv.Itoa(round)+"-", 200)
				select {
				case <-died:
				case <-time.After(20 * time.Second):
					t.Fatal("the failpoint was not reached")
				}
			}
			w.spawn("b", api)
			w.await(30 * time.Second)
			w.check()
		})
	}
}

// mutantIsCaught: a pipeline that commits its offsets outside the
// transaction loses events when it dies before the end; the check must say so.
func mutantIsCaught(t *testing.T) {
	t.Parallel()
	w, api := tcpWorld(t)
	// The broker plays the mutant: it commits at once what should wait for the
	// end of the transaction.
	w.cluster.ControlKey(int16(kmsg.TxnOffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		req := kreq.(*kmsg.TxnOffsetCommitRequest)
		resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		plain := kmsg.NewPtrOffsetCommitRequest()
		plain.Group, plain.Generation, plain.MemberID = req.Group, req.Generation, req.MemberID
		for _, t := range req.Topics {
			pt, rt := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewTxnOffsetCommitResponseTopic()
			pt.Topic, pt.TopicID, rt.Topic, rt.TopicID = t.Topic, t.TopicID, t.Topic, t.TopicID
			for _, p := range t.Partitions {
				pp, rp := kmsg.NewOffsetCommitRequestTopicPartition(), kmsg.NewTxnOffsetCommitResponseTopicPartition()
				pp.Partition, pp.Offset, pp.Metadata, rp.Partition = p.Partition, p.Offset, p.Metadata, p.Partition
				pt.Partitions, rt.Partitions = append(pt.Partitions, pp), append(rt.Partitions, rp)
			}
			plain.Topics, resp.Topics = append(plain.Topics, pt), append(resp.Topics, rt)
		}
		w.cluster.SleepControl(func() {
			if _, err := plain.RequestWith(context.Background(), w.feeder); err != nil {
				t.Error(err)
			}
		})
		return resp, nil, true
	})
	var armed atomic.Pointer[process]
	died := make(chan struct{}, 1)
	w.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		p := armed.Swap(nil)
		if p == nil {
			return nil, nil, false
		}
		p.kill()
		died <- struct{}{}
		return nil, context.Canceled, true
	})
	p := w.spawn("a", api)
	w.calls("warm-", 30)
	w.await(30 * time.Second)
	armed.Store(p)
	w.calls("c-", 200)
	select {
	case <-died:
	case <-time.After(20 * time.Second):
		t.Fatal("the failpoint was not reached")
	}
	w.spawn("b", api)
	w.calls("more-", 30)
	for deadline := time.Now().Add(10 * time.Second); ; {
		a := w.ledger.Check(w.outputs())
		if a.Enriched >= 100 && len(a.Lost) > 0 && time.Now().After(deadline) {
			return // caught
		}
		if a.OK() {
			t.Fatalf("the mutant went unnoticed: %v", a)
		}
		<-time.After(time.Second)
	}
}

// tcpWorld is a world that other processes reach.
func tcpWorld(t *testing.T) (w *world, api string) {
	t.Helper()
	w = makeWorld(t, fetchtest.Config{}, new(net.Dialer).DialContext)
	server, err := fetchtest.Listen(w.api)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return w, server.URL
}
