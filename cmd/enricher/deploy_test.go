package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.yaml.in/yaml/v4"

	"enricher/cmd/enricher/internal/credentials"
	"enricher/consumer"
	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/producer/replay"
)

// What deploy/ and docs/ say about the program is checked here as far as it
// needs no more than the program; deploy/check.sh does the rest.
const (
	alertsFile = "../../deploy/helm/enricher/files/alerts.yaml"
	boardFile  = "../../deploy/helm/enricher/files/dashboard.json"
	runbook    = "../../docs/runbook.md"
)

// readAlerts returns the expression of every alert.
func readAlerts(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	alerts := map[string]string{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			alerts[r.Alert] = r.Expr
		}
	}
	return alerts
}

// readBoard returns every query of the dashboard.
func readBoard(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(boardFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	var queries []string
	for _, p := range file.Panels {
		for _, q := range p.Targets {
			queries = append(queries, q.Expr)
		}
	}
	return queries
}

// Alerts, dashboard and documents name no metric, and no value of a label, that
// a working pipeline does not expose.
func TestDeployedMetrics(t *testing.T) {
	exposed := exposedMetrics(t)
	quoted := regexp.MustCompile(`"[^"]*"`)
	metric := regexp.MustCompile(`\b(?:enricher|go|process)_\w+`)
	selector := regexp.MustCompile(`\b(enricher_\w+)\{([^}]*)\}`)
	equal := regexp.MustCompile(`(\w+="[^"$]*")`)
	texts := readBoard(t)
	for _, expr := range readAlerts(t) {
		texts = append(texts, expr)
	}
	for _, path := range []string{runbook, "../../docs/operations.md", "../../README.md"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	for _, text := range texts {
		names := metric.FindAllString(quoted.ReplaceAllString(text, ""), -1)
		if len(names) == 0 {
			t.Errorf("no metric in %s", text)
		}
		for _, name := range names {
			if exposed[name] == nil {
				t.Errorf("there is no metric %s", name)
			}
		}
		for _, m := range selector.FindAllStringSubmatch(text, -1) {
			for _, pair := range equal.FindAllString(m[2], -1) {
				if !exposed[m[1]][pair] {
					t.Errorf("no series of %s has %s", m[1], pair)
				}
			}
		}
	}
}

// exposedMetrics lists the names of all series of the service, each with its
// labels. The service enriches one event and dead-letters another, so that the
// Kafka client's series exist, too.
func exposedMetrics(t *testing.T) map[string]map[string]bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const input, enriched, dead = "call-ended", "call-enriched", "call-dead-letters"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, input, enriched, dead))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	brokers := kgo.SeedBrokers(cluster.ListenAddrs()...)
	s := startService(t, brokers, consumer.Config{
		Group: "call-enricher", Instance: "a", InputTopics: []string{input}, EnrichedTopic: enriched, DeadLetterTopic: dead,
		MaxConsecutiveDeadLetters: 1000, CacheSize: 10, CacheBytes: 1 << 20, CacheTTL: time.Hour,
	})
	s.metrics.ExposeDroppedLines(func() uint64 { return 0 }) // as run does
	// As dlq exporter does.
	topics := replay.Topics{Kafka: []kgo.Opt{brokers}, DeadLetterTopic: dead, JournalTopic: dead + "-journal"}
	t.Cleanup(s.metrics.WatchDeadLetters(topics, time.Minute, func(error) {}))

	cl, err := kgo.NewClient(brokers, kgo.ConsumeTopics(enriched, dead),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, value := range []string{`{"CallId":"a"}`, "not JSON"} {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: input, Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for n := 0; n < 2; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		n += fetches.NumRecords()
	}

	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exposed := map[string]map[string]bool{}
	for _, f := range families {
		pairs := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				pairs[fmt.Sprintf("%s=%q", l.GetName(), l.GetValue())] = true
			}
		}
		exposed[f.GetName()] = pairs
		if f.GetMetric()[0].GetHistogram() != nil {
			exposed[f.GetName()+"_bucket"], exposed[f.GetName()+"_sum"], exposed[f.GetName()+"_count"] = pairs, pairs, pairs
		}
	}
	return exposed
}

// startService runs the service against a simulated API until the test ends.
func startService(t *testing.T, brokers kgo.Opt, cfg consumer.Config) *service {
	t.Helper()
	api, err := fetchtest.Listen(fetchtest.New(fetchtest.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	key, err := fetch.KeyFromValue(fetch.NewSecret(fetchtest.DemoKey))
	if err != nil {
		t.Fatal(err)
	}
	cfg.SDKAppID = fetchtest.DemoSDKAppID
	cfg.Client, err = fetch.NewClient(fetch.ClientConfig{BaseURL: api.URL, SDKAppID: cfg.SDKAppID, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Kafka = func() []kgo.Opt { return []kgo.Opt{brokers} }
	s, err := newService(cfg, new(credentials.Credentials))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.pipeline.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// The runbook has one section for each alert, and none for another.
func TestRunbook(t *testing.T) {
	b, err := os.ReadFile(runbook)
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^### (Enricher\w+)$`).FindAllStringSubmatch(string(b), -1) {
		sections = append(sections, m[1])
	}
	alerts := readAlerts(t)
	if len(sections) != len(alerts) {
		t.Errorf("%d sections for %d alerts", len(sections), len(alerts))
	}
	for alert := range alerts {
		if !slices.Contains(sections, alert) {
			t.Errorf("no section %s", alert)
		}
	}
	for section := range strings.SplitSeq(string(b), "\n### ") {
		if strings.HasPrefix(section, "Enricher") && strings.Count(section, "\n") < 4 {
			t.Errorf("says nothing: %s", section)
		}
	}
}
