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

	"github.com/twmb/franz-go/pkg/kgo"
	"gopkg.in/yaml.v3"

	"enricher/fetch/fetchtest"
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

// exposedMetrics has a pipeline enrich one event and give another up, so that the
// Kafka client's series are there too, and lists the names of all series, each with its labels.
func exposedMetrics(t *testing.T) map[string]map[string]bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, closeKafka, err := (&demoCmd{}).kafka(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = closeKafka() })
	api, err := fetchtest.Listen(fetchtest.New(fetchtest.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	s.API = api.URL
	a, err := startInside(s, "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.stop(); err != nil {
			t.Error(err)
		}
	})

	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers...), kgo.ConsumeTopics(s.Enriched, s.Dead),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, value := range []string{`{"CallId":"a"}`, "not JSON"} {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: s.Input, Value: []byte(value)}).FirstErr(); err != nil {
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

	families, err := a.metrics.Gather()
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
