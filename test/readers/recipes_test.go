package readers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.yaml.in/yaml/v4"

	"enricher/fetch/fetchtest"
	"enricher/schemas"
	"enricher/test/harness"
)

const recipes = "../../deploy/recipes"

// wantRecipes skips a test that runs a recipe, unless it is asked for: the engines take
// up to a gigabyte and minutes to install.
func wantRecipes(t *testing.T) {
	t.Helper()
	if os.Getenv("RECIPE_TESTS") == "" {
		t.Skip("the engine is not started: set RECIPE_TESTS=1 (downloads up to a gigabyte), and KAFKA_TESTS=1")
	}
}

// calls is a topic with enriched records, each call twice, and with an aborted
// transaction.
type calls struct {
	brokers, topic string
	talk           int64 // of all calls together, in seconds
	talked         int   // calls with a talk time above 0
}

func writeCalls(t *testing.T) calls {
	t.Helper()
	e := harness.NewEnv(harness.SharedKafka(t), harness.UniqueTopics(), fetchtest.Config{})
	e.CreateTopics(partitions, e.Enriched)
	c := calls{brokers: strings.Join(e.Addrs, ","), topic: e.Enriched}
	var records []*kgo.Record
	for i := range 200 {
		call := e.API.RecordFor("call-" + strconv.Itoa(i%100))
		enriched := schemas.Enrich(&call)
		records = append(records, &kgo.Record{Topic: c.topic, Partition: int32(i % 100 % partitions), Key: []byte(call.CallID), Value: enriched.Encode()})
		if talk := *enriched.TalkSeconds; i < 100 && talk > 0 {
			c.talk += talk
			c.talked++
		}
	}
	e.Produce(records[:150]...)
	abort(t, e, c.topic)
	e.Produce(records[150:]...)
	return c
}

// recipe writes a copy of a recipe for the topic, with further replacements.
func (c *calls) recipe(t *testing.T, name string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(recipes, name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	replace = append(replace, "kafka:9092", c.brokers, "call-enriched", c.topic)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s does not contain %q", name, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestKafkaRecipeClickHouse(t *testing.T) {
	wantRecipes(t)
	c := writeCalls(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	dir, err := installPython(ctx, "recipes/requirements.txt")
	skipMissing(t, err)
	out, err := runWith(pythonCommand(ctx, dir, "recipes/clickhouse.py", c.recipe(t, "clickhouse.sql"),
		"SELECT count(), sum(talk_seconds) FROM calls FINAL HAVING count() >= 100"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(string(out)), fmt.Sprintf("100,%d", c.talk); got != want {
		t.Errorf("calls and talk seconds are %s, want %s", got, want)
	}
}

func TestKafkaRecipeFlink(t *testing.T) {
	wantRecipes(t)
	c := writeCalls(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	dir, err := install(ctx, []string{"recipes/pom.xml"}, "mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs")
	skipMissing(t, err)
	file := c.recipe(t, "flink.sql", "'format' = 'json'", "'format' = 'json', 'scan.bounded.mode' = 'latest-offset'")
	out, err := runWith(exec.CommandContext(ctx, "java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(dir, "libs", "*"),
		"recipes/Flink.java", file, "SELECT COUNT(*), SUM(talk_seconds) FROM distinct_calls"), nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if got, want := lines[len(lines)-1], fmt.Sprintf("+U[100, %d]", c.talk); got != want {
		t.Errorf("the last row is %s, want %s", got, want)
	}
}

// meter is a service to which recipes send usage events over HTTP. It counts each id
// once, as OpenMeter and Lago do.
type meter struct {
	mu     sync.Mutex
	counts map[string]int // requests by id
	talk   int64
	broken []string
	// duplicate is the status of the response to an id that was counted.
	duplicate int
	// usage returns the id and the talk seconds of an event.
	usage func(event map[string]any) (id string, talk float64, err error)
}

func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var event map[string]any
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &event)
	}
	id, talk, usageErr := m.usage(event)
	if err = errors.Join(err, usageErr); err != nil {
		m.broken = append(m.broken, fmt.Sprintf("%v: %s", err, body))
		return
	}
	m.counts[id]++
	if m.counts[id] > 1 {
		w.WriteHeader(m.duplicate)
		return
	}
	m.talk += int64(talk)
}

func TestKafkaRecipeOpenMeter(t *testing.T) {
	runMeter(t, "openmeter.yaml", "http://openmeter:8888", &meter{duplicate: http.StatusNoContent, usage: func(e map[string]any) (string, float64, error) {
		for _, name := range []string{"id", "source", "specversion", "type", "subject", "time"} {
			if text, ok := e[name].(string); !ok || text == "" {
				return "", 0, fmt.Errorf("there is no %s", name)
			}
		}
		_, err := time.Parse(time.RFC3339, e["time"].(string))
		talk, _ := e["data"].(map[string]any)["talk_seconds"].(float64)
		return e["id"].(string), talk, err
	}})
}

func TestKafkaRecipeLago(t *testing.T) {
	runMeter(t, "lago.yaml", "https://api.getlago.com", &meter{duplicate: http.StatusUnprocessableEntity, usage: func(body map[string]any) (string, float64, error) {
		e, _ := body["event"].(map[string]any)
		for _, name := range []string{"transaction_id", "external_subscription_id", "code"} {
			if text, ok := e[name].(string); !ok || text == "" {
				return "", 0, fmt.Errorf("there is no %s", name)
			}
		}
		if at, ok := e["timestamp"].(float64); !ok || at < schemas.EarliestTime {
			return "", 0, errors.New("there is no timestamp")
		}
		talk, _ := e["properties"].(map[string]any)["talk_seconds"].(float64)
		return e["transaction_id"].(string), talk, nil
	}})
}

// runMeter runs a recipe for Redpanda Connect until every call was sent twice.
func runMeter(t *testing.T, name, url string, m *meter) {
	t.Helper()
	wantRecipes(t)
	m.counts = make(map[string]int)
	c := writeCalls(t)
	program := filepath.Join(t.TempDir(), "benthos")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = "recipes/benthos"
	if _, err := runWith(build, nil); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(m)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-c", c.recipe(t, name, url, server.URL))
	log := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Connect(t, strings.Split(c.brokers, ",")...).Eventually(time.Minute, func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		requests := 0
		for _, n := range m.counts {
			requests += n
		}
		if requests < 2*c.talked && len(m.broken) == 0 {
			return fmt.Errorf("%d requests of %d", requests, 2*c.talked)
		}
		return nil
	})
	cancel()
	_ = cmd.Wait() // killed
	if len(m.counts) != c.talked || m.talk != c.talk || len(m.broken) > 0 {
		t.Errorf("%d calls, %d talk seconds, want %d and %d; %d are broken: %.3v\n%s", len(m.counts), m.talk, c.talked, c.talk, len(m.broken), m.broken, log)
	}
}

func skipMissing(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, errMissing) {
		t.Skipf("not run: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// TestRecipesParse parses every recipe, also those whose engine no test runs: each reads
// committed records only, and says what to change.
func TestRecipesParse(t *testing.T) {
	committed := map[string]string{
		"openmeter.yaml": "transaction_isolation_level: read_committed", "lago.yaml": "transaction_isolation_level: read_committed",
		"clickhouse.sql":          "by default", // of librdkafka
		"flink.sql":               "'properties.isolation.level' = 'read_committed'",
		"connect-jdbc.properties": "\nconsumer.override.isolation.level=read_committed\n",
		"connect-s3.properties":   "\nconsumer.override.isolation.level=read_committed\n",
	}
	files, err := os.ReadDir(recipes)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(committed) {
		t.Errorf("%d recipes, and %d in this test", len(files), len(committed))
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(recipes, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if want := committed[f.Name()]; want == "" || !strings.Contains(text, want) {
			t.Errorf("%s does not contain %q", f.Name(), want)
		}
		if !regexp.MustCompile(`(?m)^(#|--) Change: `).MatchString(text) {
			t.Errorf("%s does not say what to change", f.Name())
		}
		switch filepath.Ext(f.Name()) {
		case ".yaml":
			var config struct{ Input, Pipeline, Output map[string]any }
			if err := yaml.Unmarshal(b, &config); err != nil || len(config.Input) != 1 || len(config.Output) != 1 || len(config.Pipeline) != 1 {
				t.Errorf("%s: %v, %v", f.Name(), err, config)
			}
		case ".properties":
			checkConnector(t, f.Name(), text)
		}
	}
}

// checkConnector checks the properties of a connector, in the format of Java.
func checkConnector(t *testing.T, name, text string) {
	t.Helper()
	properties := make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || properties[key] != "" || value == "" || strings.ContainsAny(key, " :") {
			t.Errorf("%s: %q", name, line)
		}
		properties[key] = value
	}
	for _, key := range []string{"name", "connector.class", "topics", "value.converter"} {
		if properties[key] == "" {
			t.Errorf("%s: there is no %s", name, key)
		}
	}
	if properties["topics"] != "call-enriched" {
		t.Errorf("%s: topics is %q", name, properties["topics"])
	}
}
