package readers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/harness"
)

// partitions is how many each topic has.
const partitions = 3

// defaultCodec is the compression of an enricher without --compression.
const defaultCodec = "gzip"

// output is a topic that enricher has written.
type output struct {
	what, topic, codec string
	// committed and aborted records, as describe has them.
	committed, aborted []string
}

// event is a record for the input topic, with its outcome.
type event struct {
	Partition int32       `json:"partition"`
	Key       []byte      `json:"key"`
	Value     []byte      `json:"value"`
	Headers   [][2]string `json:"headers"` // the value in base64

	expect audit.Expect
}

// batch is what produce.py produces at once.
type batch struct {
	Compression string  `json:"compression"`
	End         string  `json:"end"` // of a transaction: commit or abort; "": none
	Records     []event `json:"records"`
}

// batches returns events in each compression and of every kind.
func batches(api *fetchtest.API) []batch {
	anHourAgo := time.Now().Add(-time.Hour) // so that enricher does not wait for the record
	found := func(prefix string, n int) []event {
		var events []event
		for i := range n {
			id := prefix + "-" + strconv.Itoa(i%(n-1)) // the last one is a duplicate of the first
			events = append(events, event{
				Partition: int32(i % partitions), Key: []byte("key of " + id), Value: audittest.EndCall(id, anHourAgo),
				expect: audittest.Enriched(api, id),
			})
		}
		return events
	}
	var all []batch
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		all = append(all, batch{Compression: codec, Records: found(codec, 10)})
	}
	all = append(all,
		batch{Compression: "lz4", End: "commit", Records: found("committed", 10)},
		batch{Compression: "lz4", End: "abort", Records: found("aborted", 10)})

	api.Never("never-found")
	dead := []event{
		{Value: audittest.EndCall("never-found", anHourAgo), Key: []byte("k"), Headers: [][2]string{{"trace", "YWJj"}, {"empty", ""}}},
		{Value: nil, Key: []byte("no value")},
		{Value: []byte{}, Key: []byte{}},
		{Value: []byte("not an event"), Key: nil},
		{Value: []byte("{\"CallId\":\"\xc3\xa4\u00e4\"]"), Key: []byte("umlauts \u00e4")},
	}
	for i := range dead {
		dead[i].Partition = int32(i % partitions)
		dead[i].expect.Reasons = []schemas.Reason{schemas.Malformed}
	}
	dead[0].expect.Reasons = []schemas.Reason{schemas.NotFound}
	return append(all, batch{Compression: "none", Records: dead})
}

// writeOutputs runs the pipeline, one group for each compression, and returns what its
// topics contain.
func writeOutputs(t *testing.T, b *harness.Broker) []output {
	t.Helper()
	e := harness.NewEnv(b, harness.UniqueTopics(), fetchtest.Config{})
	e.CreateTopics(partitions, e.In)
	produceEvents(t, e, batches(e.API))
	api := httptest.NewServer(e.API)
	defer api.Close()
	binary := buildEnricher(t)

	codecs := []string{defaultCodec, "none", "snappy", "lz4", "zstd"}
	topics := make(map[string]harness.Topics)
	for _, codec := range codecs {
		n := harness.Topics{In: e.In, Enriched: e.Enriched + "-" + codec, Dead: e.Dead + "-" + codec, Group: e.Group + "-" + codec}
		e.CreateTopics(partitions, n.Enriched, n.Dead)
		topics[codec] = n
		var flags []string
		if codec != defaultCodec {
			flags = []string{"--compression", codec}
		}
		runEnricher(t, binary, e, n, api.URL, codec, flags...)
	}
	var outputs []output
	for _, codec := range codecs {
		n := topics[codec]
		e.Eventually(time.Minute, func() error {
			if report := e.Ledger.Check(e.Read(n.Enriched, n.Dead)); !report.OK() {
				return fmt.Errorf("%s: %v", codec, report)
			}
			return nil
		})
		outputs = append(outputs, output{what: "enriched records", topic: n.Enriched, codec: codec})
		if codec == defaultCodec {
			outputs = append(outputs, output{what: "dead letters", topic: n.Dead, codec: codec})
			outputs[0].aborted, outputs[1].aborted = abort(t, e, n.Enriched), abort(t, e, n.Dead)
		}
	}
	for i, o := range outputs {
		var end []*kgo.Record
		for p := range int32(partitions) {
			end = append(end, &kgo.Record{Topic: o.topic, Partition: p, Key: []byte(endKey), Value: []byte("{}")})
		}
		e.Produce(end...)
		compressed := false
		for _, r := range e.Read(o.topic) {
			outputs[i].committed = append(outputs[i].committed, describe(r))
			compressed = compressed || string(r.Key) != endKey && codecName(r) == o.codec
		}
		if !compressed {
			t.Errorf("no record of %s is compressed with %s", o.topic, o.codec)
		}
	}
	return outputs
}

// codecName is the compression of the batch that a record came in.
func codecName(r *kgo.Record) string {
	return []string{"none", "gzip", "snappy", "lz4", "zstd"}[r.Attrs.CompressionType()]
}

// produceEvents has confluent-kafka produce batches, and adds to the ledger those that
// are committed.
func produceEvents(t *testing.T, e *harness.Env, all []batch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readTimeout)
	defer cancel()
	dir, err := installPython(ctx, "requirements.txt")
	if errors.Is(err, errMissing) {
		t.Logf("confluent-kafka produces no events, franz-go does: %v", err)
		for _, b := range all {
			for _, r := range b.Records {
				if b.End != "abort" {
					r.expect.Key, r.expect.Value = r.Key, r.Value
					e.Feed(r.Partition, r.expect)
				}
			}
		}
		return
	} else if err != nil {
		t.Fatal(err)
	}
	input, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	out, err := runWith(pythonCommand(ctx, dir, "produce.py", strings.Join(e.Addrs, ","), e.In), input)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(all) {
		t.Fatalf("%d batches were produced of %d:\n%s", len(lines), len(all), out)
	}
	for i, b := range all {
		var offsets []int64
		if err := json.Unmarshal([]byte(lines[i]), &offsets); err != nil {
			t.Fatal(err)
		}
		for k, r := range b.Records {
			if b.End != "abort" {
				r.expect.Key, r.expect.Value = r.Key, r.Value
				e.Ledger.Add(audit.Source{Topic: e.In, Partition: r.Partition, Offset: offsets[k]}, r.expect)
			}
		}
	}
	codecs := make(map[string]bool)
	for _, r := range e.Read(e.In) {
		codecs[codecName(r)] = true
	}
	for _, b := range all {
		if !codecs[b.Compression] {
			t.Errorf("no event is compressed with %s", b.Compression)
		}
	}
	t.Logf("confluent-kafka produced events in %d batches: each compression, and transactions that were committed and aborted", len(all))
}

// buildEnricher returns the path of the program.
func buildEnricher(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "enricher")
	if out, err := exec.Command("go", "build", "-o", binary, "enricher/cmd/enricher").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// runEnricher runs the program until the end of the test.
func runEnricher(t *testing.T, binary string, e *harness.Env, n harness.Topics, apiURL, instance string, flags ...string) {
	t.Helper()
	args := []string{"run", "--brokers", strings.Join(e.Addrs, ","), "--instance", instance, "--group", n.Group,
		"--input-topics", n.In, "--enriched-topic", n.Enriched, "--dead-letter-topic", n.Dead,
		"--api-url", apiURL, "--sdk-app-id", strconv.Itoa(fetchtest.DemoSDKAppID), "--admin-addr", "127.0.0.1:0",
		"--not-found-window", "2s"}
	cmd := exec.Command(binary, append(args, flags...)...)
	cmd.Env = append(os.Environ(), "ENRICHER_SECRET_KEY="+fetchtest.DemoKey)
	log := new(strings.Builder)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have failed already
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("enricher: %v\n%s", err, log)
		}
	})
}

// abort writes records to a topic in a transaction that is aborted, and returns them.
func abort(t *testing.T, e *harness.Env, topic string) []string {
	t.Helper()
	cl := e.NewClient(kgo.TransactionalID(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	var records []*kgo.Record
	for p := range int32(partitions) {
		records = append(records, &kgo.Record{Topic: topic, Partition: p, Key: []byte("aborted"), Value: []byte(`{"call_id":"aborted"}`)})
	}
	if err := errors.Join(cl.ProduceSync(t.Context(), records...).FirstErr(), cl.EndTransaction(t.Context(), kgo.TryAbort)); err != nil {
		t.Fatal(err)
	}
	var described []string
	for _, r := range records {
		described = append(described, describe(r))
	}
	return slices.Clip(described)
}
