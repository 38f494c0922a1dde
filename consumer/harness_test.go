package consumer_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/fetch/lookup"
	"enricher/schemas"
)

const (
	partitions  = 12
	settleDelay = 5 * time.Second
	// shareDelay is when an instance that was started may make requests: the
	// timeout of a request and a second after it has its assignment.
	shareDelay = 7 * time.Second
)

// names are those of the topics and of the group.
type names struct{ In, Out, Dead, Group string }

// embedded are the names on a broker that no other test uses.
var embedded = names{In: "calls", Out: "enriched", Dead: "dead", Group: "g"}

func (n names) apply(c *consumer.Config) {
	c.Group, c.InputTopics, c.EnrichedTopic, c.DeadLetterTopic = n.Group, []string{n.In}, n.Out, n.Dead
}

// world is an embedded broker, a simulated API, and a ledger of what was fed.
type world struct {
	names
	t       testing.TB
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	brokers []string
	cluster *kfake.Cluster // nil: a real Kafka
	api     *fetchtest.API
	ledger  audit.Ledger
	feeder  *kgo.Client
	fed     int
	// settings of every instance; nil: those of production, on virtual time.
	settings func(*consumer.Config)
	// real time passes: waits are short.
	real bool
}

// span is a wait: of virtual time, or of real time.
func (w *world) span(virtual, real time.Duration) time.Duration {
	if w.real {
		return real
	}
	return virtual
}

// newWorld makes one in memory, so that it runs in a bubble of virtual time.
func newWorld(t testing.TB, cfg fetchtest.Config) *world {
	t.Helper()
	network := new(kfake.VirtualNetwork)
	return makeWorld(t, cfg, network.DialContext, kfake.Ports(9092), kfake.ListenFn(network.Listen))
}

func makeWorld(t testing.TB, cfg fetchtest.Config, dial func(context.Context, string, string) (net.Conn, error), opts ...kfake.Opt) *world {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1),
		kfake.SeedTopics(partitions, embedded.In, embedded.Out, embedded.Dead),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	w := joinWorld(t, cfg, dial, c.ListenAddrs())
	w.cluster = c
	return w
}

// joinWorld makes a world with brokers that are there already.
func joinWorld(t testing.TB, cfg fetchtest.Config, dial func(context.Context, string, string) (net.Conn, error), brokers []string) *world {
	t.Helper()
	w := &world{names: embedded, t: t, api: fetchtest.New(cfg), dial: dial, brokers: brokers}
	var err error
	w.feeder, err = kgo.NewClient(append(w.opts(), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(1048588))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.feeder.Close)
	return w
}

// opts reach the embedded broker.
func (w *world) opts() []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(w.brokers...), kgo.Dialer(w.dial), kgo.MetadataMinAge(100 * time.Millisecond)}
}

// feed produces an event and enters what must come of it.
func (w *world) feed(p int32, value []byte, e audit.Expect) {
	w.t.Helper()
	e.Key, e.Value, e.Produced = []byte("key-"+strconv.Itoa(w.fed)), value, time.Now()
	r := &kgo.Record{Topic: w.In, Partition: p, Key: e.Key, Value: value}
	if err := w.feeder.ProduceSync(context.Background(), r).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
	w.fed++
	w.ledger.Add(audit.Source{Topic: w.In, Partition: p, Offset: r.Offset}, e)
}

// call feeds the end of a call whose record exists.
func (w *world) call(p int32, callID string) {
	w.t.Helper()
	w.feed(p, callback(callID, time.Now()), w.enriched(callID))
}

func (w *world) enriched(callID string) audit.Expect {
	r := w.api.RecordFor(callID)
	return audit.Expect{CallID: callID, Enriched: schemas.Enrich(&r).Encode()}
}

// calls feeds n calls with ids of their own, over all partitions.
func (w *world) calls(prefix string, n int) {
	w.t.Helper()
	for i := range n {
		w.call(int32(i%partitions), prefix+strconv.Itoa(i))
	}
}

// keepCalling feeds a call at every interval until the function that it returns
// is called.
func (w *world) keepCalling(every time.Duration) (stop func()) {
	over, fed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(fed)
		for n := 0; ; n++ {
			select {
			case <-over:
				return
			case <-time.After(every):
				w.call(int32(n%partitions), "c"+strconv.Itoa(n))
			}
		}
	}()
	return func() {
		close(over)
		<-fed
	}
}

// letter feeds an event that must become a dead letter.
func (w *world) letter(p int32, value []byte, reasons ...schemas.Reason) {
	w.t.Helper()
	w.feed(p, value, audit.Expect{Reasons: reasons})
}

func callback(callID string, at time.Time) []byte {
	return fmt.Appendf(nil, `{"CallbackCommand":"Call.CallbackAfterEndCall","CallRecord":{"CallId":%q},"EventTime":%d}`, callID, at.UnixMilli())
}

// instance is a running consumer.
type instance struct {
	*consumer.Consumer
	w       *world
	reg     *prometheus.Registry
	logs    *observer.ObservedLogs
	stop    context.CancelFunc
	done    chan struct{}
	err     error // of Run, once done is closed
	network *network
}

// start runs a consumer. Settings are those of production, save what change says.
func (w *world) start(name string, change ...func(*consumer.Config)) *instance {
	w.t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	i := &instance{w: w, reg: prometheus.NewRegistry(), logs: logs, done: make(chan struct{}), network: &network{dial: w.dial}}
	cfg, err := config(name, "http://127.0.0.1", fetchtest.Transport(w.api), i.reg)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.Kafka = func() []kgo.Opt { return append(w.opts(), kgo.Dialer(i.network.DialContext)) }
	cfg.Log = zap.New(core)
	w.apply(&cfg)
	if w.settings != nil {
		w.settings(&cfg)
	}
	for _, c := range change {
		c(&cfg)
	}
	i.Consumer, err = consumer.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	i.stop = cancel
	go func() {
		defer close(i.done)
		i.err = i.Run(ctx)
	}()
	w.t.Cleanup(func() {
		i.stop()
		i.network.reappear()
		<-i.done
		if w.t.Failed() {
			for _, e := range i.logs.All() {
				w.t.Log(name, e.Time.Format(time.TimeOnly+".000"), e.Message, e.ContextMap())
			}
		}
	})
	return i
}

// config is that of production, but for how to reach the brokers.
func config(name, api string, transport http.RoundTripper, reg prometheus.Registerer) (consumer.Config, error) {
	key, err := fetch.KeyFromValue(fetch.NewSecret(fetchtest.DemoKey))
	if err != nil {
		return consumer.Config{}, err
	}
	client, err := fetch.NewClient(fetch.ClientConfig{BaseURL: api, SDKAppID: fetchtest.DemoSDKAppID, Key: key, Transport: transport})
	return consumer.Config{
		Instance: name,
		SDKAppID: fetchtest.DemoSDKAppID, Client: client, APIRate: 200,
		Retry:                     lookup.RetryPolicy{LookupDelay: settleDelay, NotFoundWindow: 2 * time.Minute, RetryWindow: 5 * time.Minute},
		MaxConsecutiveDeadLetters: 1000, CacheSize: 100000, CacheBytes: 256 << 20, CacheTTL: time.Hour,
		Metrics: consumer.NewMetrics(reg),
	}, err
}

// notReady returns why an instance is not ready.
func (i *instance) notReady() string {
	var all []string
	for _, c := range i.Ready() {
		all = append(all, c.String())
	}
	return strings.Join(all, "; ")
}

// end drains an instance.
func (i *instance) end() {
	i.stop()
	<-i.done
}

// metric is the value of a counter or gauge, added up over its labels; with
// values, only over those series that have one of them as a label.
func (i *instance) metric(name string, values ...string) float64 {
	i.w.t.Helper()
	families, err := i.reg.Gather()
	if err != nil {
		i.w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			sum := 0.0
			for _, m := range f.GetMetric() {
				if len(values) == 0 || slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return slices.Contains(values, l.GetValue()) }) {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
			return sum
		}
	}
	i.w.t.Fatalf("no metric %s", name)
	return 0
}

// die cuts an instance off from Kafka for good: nothing of it is heard any more.
func (i *instance) die() {
	i.network.set(true)
	i.stop()
}

// await waits until every event that must have an output has one.
func (w *world) await(limit time.Duration) {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	for pause := 200 * time.Millisecond; ; pause = min(pause*3/2, 5*time.Second) {
		if n := len(w.outputs()); n >= w.ledger.Due() {
			return
		} else if time.Now().After(deadline) {
			w.t.Fatalf("after %v: %d outputs of %d; %v", limit, n, w.ledger.Due(), w.ledger.Check(w.outputs()))
		}
		<-time.After(pause)
	}
}

func (w *world) outputs() []*kgo.Record {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	records, err := audit.Read(ctx, w.opts(), w.Out, w.Dead)
	if err != nil {
		w.t.Fatal(err)
	}
	return records
}

// check is the whole invariant: exactly one outcome for every event, and the
// committed offsets say so.
func (w *world) check() *audit.Account {
	w.t.Helper()
	a := w.ledger.Check(w.outputs())
	if !a.OK() {
		w.t.Fatal(a)
	}
	w.checkOffsets()
	return a
}

// checkOffsets: all events are done, so the committed offset of every partition
// is its end, once it has events.
func (w *world) checkOffsets() {
	w.t.Helper()
	adm := kadm.NewClient(w.feeder)
	var why string
	for range 100 {
		committed, err := adm.FetchOffsets(context.Background(), w.Group)
		if err != nil {
			w.t.Fatal(err)
		}
		ends, err := adm.ListEndOffsets(context.Background(), w.In)
		if err != nil {
			w.t.Fatal(err)
		}
		why = ""
		ends.Each(func(end kadm.ListedOffset) {
			at, ok := committed.Lookup(w.In, end.Partition)
			if end.Offset > 0 && (!ok || at.At != end.Offset) {
				why += fmt.Sprintf("partition %d: committed %d, end %d\n", end.Partition, at.At, end.Offset)
			}
		})
		if why == "" {
			return
		}
		<-time.After(200 * time.Millisecond) // skipped events are committed, but seen by no reader
	}
	w.t.Fatal(why)
}
