package preflight

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"enricher/consumer"
	"enricher/consumer/session"
	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/producer"
)

// The checked service.
const (
	in, out, dead   = "calls", "enriched", "dead"
	group, instance = "g", "a"
	password        = "a-password-that-must-not-leak"
)

// env is a healthy cluster and API, until a test changes them.
type env struct {
	t       *testing.T
	brokers []string
	cluster *kfake.Cluster // nil: the brokers are real
	api     *fetchtest.API
	server  *fetchtest.Server
	cfg     Config
}

// healthy are the settings of a topic without a finding.
var healthy = map[string]string{"min.insync.replicas": "2"}

func newEnv(t *testing.T, opts ...kfake.Opt) *env {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(3), kfake.MaxVersions(kversion.V4_2_0()), // a version without findings
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0", "offset.metadata.max.bytes": "4096"}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	w := connectEnv(t, cluster.ListenAddrs())
	w.cluster = cluster
	for _, topic := range []string{in, out, dead} {
		w.topic(topic, 4, healthy)
	}
	return w
}

// connectEnv returns an env with existing brokers.
func connectEnv(t *testing.T, brokers []string) *env {
	t.Helper()
	w := &env{t: t, brokers: brokers, api: fetchtest.New(fetchtest.Config{})}
	var err error
	w.server, err = fetchtest.Listen(w.api)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.server.Close() })
	w.reach(brokers...)
	w.cfg.Requirements = Requirements{Group: group, TransactionalID: session.TransactionalID(group, instance), Read: []string{in}, Write: []string{out, dead}}
	w.cfg.Instance, w.cfg.DeadLetterTopic, w.cfg.Start, w.cfg.APIRate = instance, dead, consumer.Earliest, 200
	w.cfg.MaxRecordBytes, w.cfg.Compression, w.cfg.Codecs = producer.DefaultMaxRecordBytes, "snappy", map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	w.useAPI(fetch.ClientConfig{BaseURL: w.server.URL})
	return w
}

// topic creates a topic, and deletes it first if it exists.
func (w *env) topic(name string, partitions int32, settings map[string]string) {
	w.t.Helper()
	_ = w.cluster.DeleteTopic(name) // there may be none
	if err := w.cluster.CreateTopic(name, partitions, settings); err != nil {
		w.t.Fatal(err)
	}
}

// with returns the healthy settings and these.
func with(more ...string) map[string]string {
	m := maps.Clone(healthy)
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

// reach sets the addresses of the brokers.
func (w *env) reach(brokers ...string) {
	w.cfg.Brokers = brokers
	w.cfg.Kafka = []kgo.Opt{kgo.SeedBrokers(brokers...)}
}

// useAPI sets the client of the API.
func (w *env) useAPI(cfg fetch.ClientConfig) {
	w.t.Helper()
	if cfg.Key == nil {
		key, err := fetch.KeyFromValue(fetch.NewSecret(fetchtest.DemoKey))
		if err != nil {
			w.t.Fatal(err)
		}
		cfg.Key = key
	}
	cfg.SDKAppID = fetchtest.DemoSDKAppID
	c, err := fetch.NewClient(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	w.cfg.API = c
}

// client returns a client of the cluster.
func (w *env) client(opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(w.brokers...)}, opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cl.Close)
	return cl
}

// advertise makes the cluster advertise one more broker, at addr. With leads, that
// broker leads all partitions of the input.
func (w *env) advertise(addr string, leads bool) {
	w.t.Helper()
	metadata, err := w.cfg.metadata(context.Background(), w.client())
	if err != nil {
		w.t.Fatal(err)
	}
	ip, port, err := net.SplitHostPort(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	b := kmsg.NewMetadataResponseBroker()
	b.NodeID, b.Host = 9, ip
	if _, err := fmt.Sscan(port, &b.Port); err != nil {
		w.t.Fatal(err)
	}
	metadata.Brokers = append(metadata.Brokers, b)
	for i := range metadata.Topics[0].Partitions {
		if leads {
			metadata.Topics[0].Partitions[i].Leader = 9
		}
	}
	w.cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		resp := *metadata
		resp.Version = req.GetVersion()
		return &resp, nil, true
	})
}

// fill produces n events into a partition of the input.
func (w *env) fill(partition int32, n int) {
	w.t.Helper()
	cl := w.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{Topic: in, Partition: partition, Value: []byte("{}")}
	}
	if err := cl.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// commit commits an offset for the group.
func (w *env) commit(partition int32, offset int64, metadata string) {
	w.t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: in, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: metadata})
	if err := kadm.NewClient(w.client()).CommitAllOffsets(context.Background(), group, offsets); err != nil {
		w.t.Fatal(err)
	}
}

// check runs all checks and compares the findings that are not ok with the wanted
// ones: lines of "status check subject: words", where the words need only occur in
// the finding or its remedy. The report must not contain a secret.
func (w *env) check(want ...string) {
	w.t.Helper()
	r, err := Run(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	var text, program bytes.Buffer
	if err := r.Text(&text); err != nil {
		w.t.Fatal(err)
	}
	if err := r.JSON(&program); err != nil {
		w.t.Fatal(err)
	}
	for _, b := range [][]byte{text.Bytes(), program.Bytes()} {
		w.api.Secrets().AssertAbsent(w.t, "the report", b)
		if bytes.Contains(b, []byte(password)) {
			w.t.Error("the report contains the password")
		}
	}
	var fatal, warnings int
	var left []string
	for _, f := range r.Checks {
		switch f.Status {
		case OK:
			continue
		case Fatal:
			fatal++
		case Warning:
			warnings++
		}
		if f.Status != Skipped && f.Remedy == "" {
			w.t.Errorf("%+v: no remedy", f)
		}
		head := fmt.Sprintf("%s %s %s: ", f.Status, f.Check, f.Subject)
		i := slices.IndexFunc(want, func(line string) bool {
			words, ok := strings.CutPrefix(line, head)
			return ok && strings.Contains(f.Found+" → "+f.Remedy, words)
		})
		if i < 0 {
			left = append(left, head+f.Found+" → "+f.Remedy)
		} else {
			want = slices.Delete(slices.Clone(want), i, i+1)
		}
	}
	if len(want) > 0 || len(left) > 0 {
		w.t.Errorf("missing:\n  %s\nunexpected:\n  %s\nthe whole report:\n%s", strings.Join(want, "\n  "), strings.Join(left, "\n  "), &text)
	}
	if fatal != r.Fatal || warnings != r.Warnings {
		w.t.Errorf("%d fatal and %d warnings are counted as %d and %d", fatal, warnings, r.Fatal, r.Warnings)
	}
}

// certified returns a server with a certificate for 127.0.0.1 and example.com.
func certified(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	t.Cleanup(s.Close)
	return s
}
