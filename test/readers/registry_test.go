package readers_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	"enricher/consumer/audit"
	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/apicurio"
	"enricher/test/harness"
)

// schemaRegistry is one that enricher and deserializers use.
type schemaRegistry struct {
	name    string
	address string   // with Confluent's API
	own     string   // with Apicurio's API; "": it has none
	places  []string // where records can name their schema
}

// registered is a topic for deserializers to read.
type registered struct {
	registry schemaRegistry
	place    string
	format   schemas.Format
	topics   harness.Topics
}

// TestKafkaDeserializers has enricher write records in each format, with the schema's
// id in the payload and in a header, for two registries: a simulated one, and Apicurio
// if there is a Java for it. Then deserializers that others have written look the
// schema up there and read all fields of all records.
func TestKafkaDeserializers(t *testing.T) {
	e := harness.NewEnv(harness.SharedKafka(t), harness.UniqueTopics(), fetchtest.Config{})
	e.CreateTopics(partitions, e.In)
	calls := feedVaried(e)
	all := writeRegistered(t, e, registries(t))

	for _, d := range []struct {
		name    string
		address func(registered) string // of the registry; "": it cannot use that
		run     func(ctx context.Context, brokers string) (*exec.Cmd, error)
	}{
		{"confluent-kafka", func(r registered) string {
			if r.format == schemas.Protobuf && r.registry.own != "" {
				return "" // Apicurio returns the descriptor as text, in which bytes are replaced
			}
			return r.registry.address
		}, func(ctx context.Context, brokers string) (*exec.Cmd, error) {
			dir, err := installPython(ctx, "registry/requirements.txt")
			return pythonCommand(ctx, dir, "registry/read.py", brokers), err
		}},
		{"Apicurio's serdes", func(r registered) string { return r.registry.own }, func(ctx context.Context, brokers string) (*exec.Cmd, error) {
			dir, err := install(ctx, []string{"registry/pom.xml"}, "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs")
			return exec.CommandContext(ctx, "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(dir, "libs", "*"), "registry/Read.java", brokers), err
		}},
	} {
		t.Run(d.name, func(t *testing.T) {
			var reads []map[string]any
			for _, r := range all {
				if address := d.address(r); address != "" {
					reads = append(reads, map[string]any{"topic": r.topics.Enriched, "format": r.format, "registry": address})
				}
			}
			if len(reads) == 0 {
				t.Skip("reads nothing: it needs Apicurio Registry")
			}
			ctx, cancel := context.WithTimeout(t.Context(), readTimeout)
			defer cancel()
			cmd, err := d.run(ctx, strings.Join(e.Addrs, ","))
			skipMissing(t, err)
			version, results := deserialize(t, cmd, reads)
			for _, r := range all {
				if d.address(r) == "" {
					continue
				}
				got := results[r.topics.Enriched]
				what := fmt.Sprintf("%s in the %s, %s", r.format, r.place, r.registry.name)
				if got.err != "" {
					t.Errorf("%s: %s", what, got.err)
				}
				compare(t, what, got.records, expectedValues(t, calls, r.format))
				t.Logf("%s %s: %s: %d records", d.name, version, what, len(got.records))
			}
		})
	}
}

// registries starts those of the test.
func registries(t *testing.T) []schemaRegistry {
	t.Helper()
	fake := httptest.NewServer(withDescriptors(t, srfake.NewRegistry().Handler()))
	t.Cleanup(fake.Close)
	all := []schemaRegistry{{name: "simulated registry", address: fake.URL, places: []string{"header", "payload"}}}
	r, err := apicurio.Start(t.Context())
	if errors.Is(err, apicurio.ErrMissing) {
		t.Logf("not on Apicurio Registry: %v", err)
		return all
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if log := r.Stop(); t.Failed() {
			t.Logf("the registry's log ends with: %s", log)
		}
	})
	// It has no GUIDs, and so nothing for the header.
	return append(all, schemaRegistry{name: "Apicurio Registry " + apicurio.Version, address: r.Confluent(), own: r.Own(), places: []string{"payload"}})
}

// withDescriptors lets a simulated registry return a schema in Protocol Buffers as
// confluent-kafka asks for it, and as Confluent's registry has it: as a descriptor.
func withDescriptors(t *testing.T, h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("format") != "serialized" {
			h.ServeHTTP(w, r)
			return
		}
		response := httptest.NewRecorder()
		h.ServeHTTP(response, r)
		var body map[string]any
		if err := json.Unmarshal(response.Body.Bytes(), &body); err != nil {
			t.Errorf("%v: %s", err, response.Body)
		}
		if schema, ok := body["schema"].(string); ok {
			body["schema"] = descriptor(t, schema)
		}
		w.Header().Set("Content-Type", response.Header().Get("Content-Type"))
		w.WriteHeader(response.Code)
		_ = json.NewEncoder(w).Encode(body) // the client may be gone
	}
}

// descriptor returns that of a schema in Protocol Buffers, in base64.
func descriptor(t *testing.T, schema string) string {
	t.Helper()
	const name = "enriched.proto"
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{name: schema})}}
	files, err := c.Compile(context.Background(), name)
	if err != nil {
		t.Errorf("%v: %s", err, schema)
		return ""
	}
	b, err := proto.Marshal(protodesc.ToFileDescriptorProto(files[0]))
	if err != nil {
		t.Error(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// feedVaried feeds calls of every kind, one of them twice, and returns their records.
func feedVaried(e *harness.Env) map[string]schemas.CallRecord {
	e.T.Helper()
	start := time.Now().Add(-2 * time.Hour).Unix()
	special := map[string]schemas.CallRecord{
		"other scripts": {Caller: "jürgen 🎧", Callees: []string{"jürgen 🎧", "王", "\"\\\n<&>"}, MediaType: "Video", CallType: "MultiCall",
			Start: start, Accept: start + 5, End: start + 65, Result: "NormalEnd", RoomID: "зал", RoomIDType: 2},
		"anomalies": {Caller: "a", Callees: []string{"b"}, MediaType: "Audio", CallType: "SingleCall", Start: start, Accept: start + 5, End: start - 1, Result: "NormalEnd"},
		"empty":     {Callees: []string{}, Start: start, End: start, Result: "Cancel"},
		"long":      {Callees: []string{strings.Repeat("x", 300)}, Start: start, Accept: start, End: start + 100_000, Result: "NormalEnd"},
	}
	calls := make(map[string]schemas.CallRecord)
	for id, r := range special {
		r.CallID = id
		calls[id] = r
	}
	for i := range 16 {
		r := e.API.RecordFor(fmt.Sprint("call-", i))
		calls[r.CallID] = r
	}
	e.API.OnRequest(func(id string) *fetchtest.Fault {
		r, ok := calls[id]
		if _, isSpecial := special[id]; !isSpecial || !ok {
			return nil
		}
		record, err := json.Marshal(r)
		if err != nil {
			panic(err) // it has only texts and numbers
		}
		f := fetchtest.Body("special", "application/json", fmt.Sprintf(
			`{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","RequestId":"special","Response":{"CallRecord":%s}}`, record))
		return &f
	})
	feed := func(id string) {
		e.Feed(int32(e.Fed%partitions), audit.Expect{Value: audittest.EndCall(id, time.Now().Add(-time.Hour))})
	}
	for id := range calls {
		feed(id)
	}
	feed("call-0")
	return calls
}

// writeRegistered registers the schemas, and runs the pipeline for each format and
// registry.
func writeRegistered(t *testing.T, e *harness.Env, all []schemaRegistry) []registered {
	t.Helper()
	api := httptest.NewServer(e.API)
	t.Cleanup(api.Close)
	binary := buildEnricher(t)
	var topics []registered
	for i, r := range all {
		for _, place := range r.places {
			for _, f := range schemas.Formats() {
				suffix := fmt.Sprintf("-%d-%s-%s", i, place, f)
				n := harness.Topics{In: e.In, Enriched: e.Enriched + suffix, Dead: e.Dead + suffix, Group: e.Group + suffix}
				e.CreateTopics(partitions, n.Enriched, n.Dead)
				flags := []string{"--output-format", string(f), "--schema-registry-url", r.address, "--schema-id", place}
				register := exec.CommandContext(t.Context(), binary, append([]string{"schema", "register", "--enriched-topic", n.Enriched}, flags...)...)
				if _, err := runWith(register, nil); err != nil {
					t.Fatal(err)
				}
				runEnricher(t, binary, e, n, api.URL, n.Group, flags...)
				topics = append(topics, registered{r, place, f, n})
			}
		}
	}
	for _, r := range topics {
		e.Eventually(time.Minute, func() error {
			if n := len(e.Read(r.topics.Enriched)); n != e.Fed {
				return fmt.Errorf("%s: %d records of %d", r.topics.Enriched, n, e.Fed)
			}
			return nil
		})
	}
	return topics
}

// deserialize runs a script that takes reads and prints values.
func deserialize(t *testing.T, cmd *exec.Cmd, reads []map[string]any) (version string, results map[string]*result) {
	t.Helper()
	input, err := json.Marshal(map[string]any{"reads": reads, "descriptor": descriptor(t, schemas.Protobuf.Schema())})
	if err != nil {
		t.Fatal(err)
	}
	out, err := runWith(cmd, input)
	if err != nil {
		t.Fatal(err)
	}
	results = make(map[string]*result)
	for _, r := range reads {
		results[r["topic"].(string)] = new(result)
	}
	for text := range bytes.Lines(out) {
		var l struct {
			Version, Topic, Error, Key string
			Value                      json.RawMessage
		}
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		switch {
		case l.Version != "":
			version = l.Version
		case l.Error != "":
			results[l.Topic].err = l.Error
		default:
			r := results[l.Topic]
			r.records = append(r.records, l.Key+": "+canonical(t, decode(t, l.Value)))
		}
	}
	return version, results
}

// expectedValues are the keys and values of all records, as deserializers return them:
// in JSON a field may be absent, and in the others it is null, or an empty list.
func expectedValues(t *testing.T, calls map[string]schemas.CallRecord, f schemas.Format) []string {
	t.Helper()
	var values []string
	for id, call := range calls {
		b, err := json.Marshal(schemas.Enrich(&call))
		if err != nil {
			t.Fatal(err)
		}
		fields := decode(t, b)
		if f != schemas.JSON {
			for _, name := range []string{"revision", "accept_time", "ring_seconds", "talk_seconds", "total_seconds"} {
				if _, ok := fields[name]; !ok {
					fields[name] = nil
				}
			}
			if _, ok := fields["anomalies"]; !ok {
				fields["anomalies"] = []any{}
			}
		}
		values = append(values, id+": "+canonical(t, fields))
		if id == "call-0" {
			values = append(values, values[len(values)-1])
		}
	}
	return values
}

// decode keeps numbers as they are written, so that 1 and 1.0 differ.
func decode(t *testing.T, b []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var fields map[string]any
	if err := d.Decode(&fields); err != nil {
		t.Errorf("%v: %s", err, b)
	}
	return fields
}

// canonical returns fields in the order of their names.
func canonical(t *testing.T, fields map[string]any) string {
	t.Helper()
	b, err := json.Marshal(fields)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}
