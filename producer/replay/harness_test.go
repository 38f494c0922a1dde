package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/producer/replay"
	"enricher/schemas"
	"enricher/test/oracle"
)

const (
	inTopic    = "calls"
	deadTopic  = "dead"
	journal    = "dead-journal"
	partitions = 4
)

// world is a broker with dead letters, and what was fed to it.
type world struct {
	t       testing.TB
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	brokers []string
	cluster *kfake.Cluster // nil: a real Kafka
	feeder  *kgo.Client
	fed     int
	refs    map[int]replay.Position
}

func newWorld(t testing.TB, opts ...kfake.Opt) *world {
	t.Helper()
	return makeWorld(t, new(net.Dialer).DialContext, opts...)
}

// newVirtualWorld is for a bubble of virtual time.
func newVirtualWorld(t testing.TB) *world {
	t.Helper()
	network := new(kfake.VirtualNetwork)
	return makeWorld(t, network.DialContext, kfake.Ports(9092), kfake.ListenFn(network.Listen))
}

func makeWorld(t testing.TB, dial func(context.Context, string, string) (net.Conn, error), opts ...kfake.Opt) *world {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, inTopic, deadTopic, "elsewhere")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	w := joinWorld(t, dial, c.ListenAddrs())
	w.cluster = c
	return w
}

func joinWorld(t testing.TB, dial func(context.Context, string, string) (net.Conn, error), brokers []string) *world {
	t.Helper()
	w := &world{t: t, dial: dial, brokers: brokers, refs: make(map[int]replay.Position)}
	var err error
	w.feeder, err = kgo.NewClient(append(w.opts(), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.feeder.Close)
	return w
}

func (w *world) opts() []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(w.brokers...), kgo.Dialer(w.dial)}
}

func (w *world) topics() replay.Topics {
	return replay.Topics{Kafka: w.opts(), DeadLetterTopic: deadTopic, JournalTopic: journal}
}

func (w *world) job() replay.Job {
	return replay.Job{Topics: w.topics(), Action: replay.Replayed, MaxReplays: 3, Retention: 7 * 24 * time.Hour}
}

// value is what the nth event holds.
func value(n int) string { return fmt.Sprintf(`{"CallId":"c%d"}`, n) }

// event is the nth event as it stood in the input topic. Every third is not
// found.
func event(n int) (*kgo.Record, *producer.Failure) {
	f := &producer.Failure{Reason: schemas.LookupFailed, Code: 502, Message: "bad gateway", Attempts: 7, First: time.Now(), Last: time.Now()}
	if n%3 == 0 {
		f = &producer.Failure{Reason: schemas.NotFound, Code: 101050, Message: "no record", Attempts: 6, First: time.Now(), Last: time.Now()}
	}
	return &kgo.Record{
		Topic: inTopic, Partition: int32(n % partitions), Offset: int64(n), Timestamp: time.Now(),
		Key: []byte("c" + strconv.Itoa(n)), Value: []byte(value(n)), Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte(strconv.Itoa(n))}},
	}, f
}

// letters feeds n letters.
func (w *world) letters(n int) {
	w.t.Helper()
	records := make([]*kgo.Record, n)
	outputs := producer.Outputs{DeadLetterTopic: deadTopic}
	for i := range records {
		records[i] = outputs.DeadLetter(event(w.fed + i))
		records[i].Partition = int32((w.fed + i) % partitions)
	}
	w.produce(records...)
	for i, r := range records {
		w.refs[w.fed+i] = replay.Position{Partition: r.Partition, Offset: r.Offset}
	}
	w.fed += n
}

func (w *world) produce(records ...*kgo.Record) {
	w.t.Helper()
	if err := w.feeder.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(topics ...string) []*kgo.Record {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	records, err := oracle.Read(ctx, w.opts(), topics...)
	if err != nil {
		w.t.Fatal(err)
	}
	return records
}

// replayed counts how often the input topic holds each event.
func (w *world) replayed() map[string]int {
	w.t.Helper()
	count := make(map[string]int)
	for _, r := range w.read(inTopic) {
		count[string(r.Value)]++
	}
	return count
}

// check compares what a read_committed reader finds with what must be there:
// each letter that is done exactly once in the input topic, as its event was,
// and exactly once in the journal; no other.
func (w *world) check(isDone func(n int) bool) {
	w.t.Helper()
	count := w.replayed()
	lost, doubled, early := 0, 0, 0
	for n := range w.fed {
		got := count[value(n)]
		delete(count, value(n))
		switch {
		case !isDone(n) && got > 0:
			early++
		case isDone(n) && got == 0:
			lost++
		case got > 1:
			doubled++
		}
	}
	if lost+doubled+early+len(count) > 0 {
		w.t.Errorf("%d letters: %d lost, %d replayed twice, %d replayed though they must not be, %d unknown", w.fed, lost, doubled, early, len(count))
	}
	for _, r := range w.read(inTopic) {
		want := fmt.Sprintf("trace=%s", string(r.Key)[1:])
		got := ""
		for _, h := range r.Headers {
			switch h.Key {
			case schemas.HeaderOriginalTimestamp:
			case schemas.HeaderReplays:
				if string(h.Value) != "1" {
					w.t.Errorf("%s: replays = %s", r.Value, h.Value)
				}
			default:
				got += h.Key + "=" + string(h.Value)
			}
		}
		if got != want {
			w.t.Errorf("%s: headers %q, want %q", r.Value, got, want)
		}
	}
	states := w.states()
	wrong := 0
	for n, ref := range w.refs {
		if state, there := states[ref]; there && (state == replay.Replayed) != isDone(n) {
			wrong++
		}
	}
	if wrong > 0 {
		w.t.Errorf("the state of %d letters is wrong", wrong)
	}
	markers := make(map[string]int)
	for _, r := range w.read(journal) {
		markers[string(r.Key)]++
	}
	for key, n := range markers {
		if n > 1 {
			w.t.Fatalf("letter %s has %d markers", key, n)
		}
	}
}

func all(int) bool { return true }

// states looks at the letters as a command would.
func (w *world) states() map[replay.Position]replay.State {
	w.t.Helper()
	v, err := replay.OpenSnapshot(context.Background(), w.topics())
	if err != nil {
		w.t.Fatal(err)
	}
	defer v.Close()
	states := make(map[replay.Position]replay.State)
	for e, err := range v.Records(context.Background(), replay.Filter{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		states[e.Position] = e.State
	}
	return states
}

// watch is an Observer.
type watch struct {
	t         testing.TB
	plan      *replay.Plan
	committed func(int)
	startOver atomic.Int32
}

func (o *watch) Planned(p *replay.Plan) { o.plan = p }

func (o *watch) Committed(n int) {
	if o.committed != nil {
		o.committed(n)
	}
}

func (o *watch) Retrying(err error) {
	o.startOver.Add(1)
	o.t.Logf("starts over: %v", err)
}

// run does a job that must succeed.
func (w *world) run(j replay.Job) replay.Result {
	w.t.Helper()
	result, err := replay.Run(context.Background(), j, &watch{t: w.t})
	if err != nil {
		w.t.Fatal(err)
	}
	return result
}

// A victim is a replay in a process of its own, until it is killed.
type victim struct {
	cmd  *exec.Cmd
	done chan error
}

const victimEnv = "ENRICHER_TEST_REPLAY"

func TestMain(m *testing.M) {
	if told := os.Getenv(victimEnv); told != "" {
		if err := beVictim(told); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

func beVictim(told string) error {
	var brokers []string
	if err := json.Unmarshal([]byte(told), &brokers); err != nil {
		return err
	}
	w := world{brokers: brokers, dial: new(net.Dialer).DialContext}
	_, err := replay.Run(context.Background(), w.job(), quiet{})
	return err
}

type quiet struct{}

func (quiet) Planned(*replay.Plan) {}
func (quiet) Committed(int)        {}
func (quiet) Retrying(error)       {}

func (w *world) spawn() *victim {
	w.t.Helper()
	told, err := json.Marshal(w.brokers)
	if err != nil {
		w.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	v := &victim{cmd: exec.Command(self), done: make(chan error, 1)}
	v.cmd.Env = append(os.Environ(), victimEnv+"="+string(told))
	v.cmd.Stderr = os.Stderr
	if err := v.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { v.done <- v.cmd.Wait() }()
	return v
}

// kill is SIGKILL.
func (v *victim) kill() { _ = v.cmd.Process.Kill() } // it may be gone already

// end waits until the process is gone, and says whether it was killed.
func (v *victim) end(t testing.TB) (killed bool) {
	t.Helper()
	var exit *exec.ExitError
	switch err := <-v.done; {
	case err == nil:
		return false
	case errors.As(err, &exit) && strings.Contains(exit.String(), "killed"):
		return true
	default:
		t.Fatalf("the replay failed: %v", err)
		return false
	}
}

func (w *world) admin() *kadm.Client { return kadm.NewClient(w.feeder) }
