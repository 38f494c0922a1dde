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

	"enricher/consumer/audit"
	"enricher/producer"
	"enricher/producer/replay"
	"enricher/schemas"
)

const (
	inTopic    = "calls"
	deadTopic  = "dead"
	journal    = "dead-journal"
	partitions = 4
)

// env is a broker with dead letters, and what was produced to it.
type env struct {
	t         testing.TB
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	brokers   []string
	login     []kgo.Opt
	cluster   *kfake.Cluster // nil for a real Kafka
	feeder    *kgo.Client
	fed       int // events 0 to fed-1 are dead letters
	positions map[int]replay.Position
}

func newEnv(t testing.TB) *env {
	t.Helper()
	return makeEnv(t, new(net.Dialer).DialContext)
}

// newVirtualEnv makes an env for a synctest bubble.
func newVirtualEnv(t testing.TB) *env {
	t.Helper()
	network := new(kfake.VirtualNetwork)
	return makeEnv(t, network.DialContext, kfake.Ports(9092), kfake.ListenFn(network.Listen))
}

func makeEnv(t testing.TB, dial func(context.Context, string, string) (net.Conn, error), opts ...kfake.Opt) *env {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(partitions, inTopic, deadTopic)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	e := joinEnv(t, dial, c.ListenAddrs())
	e.cluster = c
	return e
}

func joinEnv(t testing.TB, dial func(context.Context, string, string) (net.Conn, error), brokers []string, login ...kgo.Opt) *env {
	t.Helper()
	e := &env{t: t, dial: dial, brokers: brokers, login: login, positions: make(map[int]replay.Position)}
	var err error
	e.feeder, err = kgo.NewClient(append(e.opts(), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.feeder.Close)
	return e
}

func (e *env) opts() []kgo.Opt {
	return append([]kgo.Opt{kgo.SeedBrokers(e.brokers...), kgo.Dialer(e.dial)}, e.login...)
}

func (e *env) topics() replay.Topics {
	return replay.Topics{Kafka: e.opts(), DeadLetterTopic: deadTopic, JournalTopic: journal}
}

// job replays all dead letters. It takes over from other runs, since many tests
// overlap them on purpose.
func (e *env) job() replay.Job {
	return replay.Job{Topics: e.topics(), Action: replay.Replayed, TakeOver: true, MaxReplays: 3, Retention: 7 * 24 * time.Hour}
}

// setTransactionVersion sets the cluster's feature level.
func (e *env) setTransactionVersion(version int16) {
	e.t.Helper()
	const allowDowngrade = 2 // UpgradeType: if no metadata is lost
	results, err := kadm.NewClient(e.feeder).UpdateFeatures(context.Background(), false, kadm.FeatureUpdate{
		Feature: "transaction.version", MaxVersionLevel: version, UpgradeType: allowDowngrade,
	})
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// value returns the value of the nth event.
func value(n int) string { return fmt.Sprintf(`{"CallId":"c%d"}`, n) }

// event returns the nth event as it was in the input topic, and why it became a
// dead letter: every third was not found.
func event(n int) (*kgo.Record, *schemas.Failure) {
	f := &schemas.Failure{Reason: schemas.LookupFailed, Code: 502, Message: "bad gateway", Attempts: 7, First: time.Now(), Last: time.Now()}
	if n%3 == 0 {
		f = &schemas.Failure{Reason: schemas.NotFound, Code: 101050, Message: "no record", Attempts: 6, First: time.Now(), Last: time.Now()}
	}
	return &kgo.Record{
		Topic: inTopic, Partition: int32(n % partitions), Offset: int64(n), Timestamp: time.Now(),
		Key: []byte("c" + strconv.Itoa(n)), Value: []byte(value(n)), Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte(strconv.Itoa(n))}},
	}, f
}

// feed produces the dead letters of the next n events.
func (e *env) feed(n int) {
	e.t.Helper()
	records := make([]*kgo.Record, n)
	outputs := producer.RecordBuilder{DeadLetterTopic: deadTopic}
	for i := range records {
		records[i] = outputs.DeadLetter(event(e.fed + i))
		records[i].Partition = int32((e.fed + i) % partitions)
	}
	e.produce(records...)
	for i, r := range records {
		e.positions[e.fed+i] = replay.Position{Partition: r.Partition, Offset: r.Offset}
	}
	e.fed += n
}

func (e *env) produce(records ...*kgo.Record) {
	e.t.Helper()
	if err := e.feeder.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) read(topics ...string) []*kgo.Record {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	records, err := audit.Read(ctx, e.opts(), topics...)
	if err != nil {
		e.t.Fatal(err)
	}
	return records
}

// replayed returns how many times the input topic holds each event.
func (e *env) replayed() map[string]int {
	e.t.Helper()
	count := make(map[string]int)
	for _, r := range e.read(inTopic) {
		count[string(r.Value)]++
	}
	return count
}

// checkReplayed compares what a read_committed reader finds with what must be
// there: the event of each replayed dead letter once in the input topic, as it was,
// and its marker once in the journal; no other event or marker.
func (e *env) checkReplayed(isReplayed func(n int) bool) {
	e.t.Helper()
	count := e.replayed()
	lost, duplicated, unexpected := 0, 0, 0
	for n := range e.fed {
		got := count[value(n)]
		delete(count, value(n))
		switch {
		case !isReplayed(n) && got > 0:
			unexpected++
		case isReplayed(n) && got == 0:
			lost++
		case got > 1:
			duplicated++
		}
	}
	if lost+duplicated+unexpected+len(count) > 0 {
		e.t.Errorf("%d dead letters: %d lost, %d duplicated, %d replayed although they must not be, %d unknown events", e.fed, lost, duplicated, unexpected, len(count))
	}
	for _, r := range e.read(inTopic) {
		want := fmt.Sprintf("trace=%s", string(r.Key)[1:])
		got := ""
		for _, h := range r.Headers {
			switch h.Key {
			case schemas.HeaderOriginalTimestamp:
			case schemas.HeaderReplays:
				if string(h.Value) != "1" {
					e.t.Errorf("%s: replays = %s", r.Value, h.Value)
				}
			default:
				got += h.Key + "=" + string(h.Value)
			}
		}
		if got != want {
			e.t.Errorf("%s: headers %q, want %q", r.Value, got, want)
		}
	}
	states := e.states()
	wrong := 0
	for n, pos := range e.positions {
		if state, ok := states[pos]; ok && (state == replay.Replayed) != isReplayed(n) {
			wrong++
		}
	}
	if wrong > 0 {
		e.t.Errorf("the state of %d dead letters is wrong", wrong)
	}
	markers := make(map[string]int)
	for _, r := range e.read(journal) {
		if !strings.Contains(string(r.Key), ":run:") { // which says that a run is running
			markers[string(r.Key)]++
		}
	}
	for key, n := range markers {
		if n > 1 {
			e.t.Fatalf("dead letter %s has %d markers", key, n)
		}
	}
}

func all(int) bool { return true }

// states returns the states in a new snapshot.
func (e *env) states() map[replay.Position]replay.State {
	e.t.Helper()
	s, err := replay.OpenSnapshot(context.Background(), e.topics())
	if err != nil {
		e.t.Fatal(err)
	}
	defer s.Close()
	states := make(map[replay.Position]replay.State)
	for r, err := range s.Records(context.Background(), replay.Filter{}) {
		if err != nil {
			e.t.Fatal(err)
		}
		states[r.Position] = r.State
	}
	return states
}

// watch counts retries, records what was refused, and calls committed after each
// transaction.
type watch struct {
	t         testing.TB
	committed func(int)
	retries   atomic.Int32
	refused   map[replay.Position]error
	waiting   []replay.Running
}

func (o *watch) Planned(*replay.Plan) {}

func (o *watch) Committed(n int) {
	if o.committed != nil {
		o.committed(n)
	}
}

func (o *watch) Refused(pos replay.Position, err error) {
	if o.refused == nil {
		o.refused = make(map[replay.Position]error)
	}
	o.refused[pos] = err
}

func (o *watch) Waiting(other replay.Running) { o.waiting = append(o.waiting, other) }

func (o *watch) Retrying(err error) {
	o.retries.Add(1)
	o.t.Logf("retrying: %v", err)
}

// run runs a job that must succeed.
func (e *env) run(j replay.Job) replay.Result {
	e.t.Helper()
	result, err := replay.Run(context.Background(), j, &watch{t: e.t})
	if err != nil {
		e.t.Fatal(err)
	}
	return result
}

// childInstance is a replay in its own process, to be killed.
type childInstance struct {
	cmd  *exec.Cmd
	exit chan error
}

// childVariable holds a childJob, as JSON, for the test binary to run a replay.
const childVariable = "ENRICHER_TEST_REPLAY"

type childJob struct {
	Brokers    []string
	Positions  []replay.Position // none: all
	Correction *replay.Correction
}

func TestMain(m *testing.M) {
	if job := os.Getenv(childVariable); job != "" {
		if err := runChild(job); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

func runChild(job string) error {
	var c childJob
	if err := json.Unmarshal([]byte(job), &c); err != nil {
		return err
	}
	e := env{brokers: c.Brokers, dial: new(net.Dialer).DialContext}
	j := e.job()
	j.Positions, j.Correction = c.Positions, c.Correction
	_, err := replay.Run(context.Background(), j, quiet{})
	return err
}

// quiet ignores all progress.
type quiet struct{}

func (quiet) Planned(*replay.Plan)           {}
func (quiet) Committed(int)                  {}
func (quiet) Refused(replay.Position, error) {}
func (quiet) Waiting(replay.Running)         {}
func (quiet) Retrying(error)                 {}

// spawn starts a replay of all dead letters.
func (e *env) spawn() *childInstance {
	e.t.Helper()
	return e.spawnJob(childJob{})
}

// spawnJob starts a replay of some dead letters.
func (e *env) spawnJob(c childJob) *childInstance {
	e.t.Helper()
	c.Brokers = e.brokers
	job, err := json.Marshal(c)
	if err != nil {
		e.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	child := &childInstance{cmd: exec.Command(self), exit: make(chan error, 1)}
	child.cmd.Env = append(os.Environ(), childVariable+"="+string(job))
	child.cmd.Stderr = os.Stderr
	if err := child.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	go func() { child.exit <- child.cmd.Wait() }()
	return child
}

// kill sends SIGKILL.
func (c *childInstance) kill() { _ = c.cmd.Process.Kill() } // it may have ended already

// wait waits for the process to end, and reports whether it was killed.
func (c *childInstance) wait(t testing.TB) (killed bool) {
	t.Helper()
	var exit *exec.ExitError
	switch err := <-c.exit; {
	case err == nil:
		return false
	case errors.As(err, &exit) && strings.Contains(exit.String(), "killed"):
		return true
	default:
		t.Fatalf("the replay failed: %v", err)
		return false
	}
}

func (e *env) admin() *kadm.Client { return kadm.NewClient(e.feeder) }
