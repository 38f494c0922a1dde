package check

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	sigsyaml "sigs.k8s.io/yaml"
)

// board has the parts of a Grafana dashboard that the tests use.
type board struct {
	Panels []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []target
		FieldConfig              struct{ Defaults struct{ Unit string } }
	}
	Templating struct {
		List []struct {
			Name, Type, Definition string
		}
	}
	Annotations struct{ List []target }
}

type target struct {
	Expr  string
	panel string
}

func readBoard(t *testing.T) *board {
	t.Helper()
	b := &board{}
	if err := json.Unmarshal(read(t, boardFile), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// queries returns the queries of all panels.
func (b *board) queries() []target {
	var all []target
	for _, p := range b.Panels {
		for _, q := range p.Targets {
			q.panel = p.Title
			all = append(all, q)
		}
	}
	return all
}

// expand replaces the variables as Grafana does when all jobs and instances are
// selected.
func (b *board) expand(expr string) string {
	for _, v := range b.Templating.List {
		expr = strings.ReplaceAll(expr, "$"+v.Name, ".*")
	}
	return strings.ReplaceAll(expr, "$__rate_interval", rateInterval)
}

var labelValues = regexp.MustCompile(`^label_values\((.+), \w+\)$`)

// variableSelectors returns the series from which Grafana gets the values of the
// variables.
func (b *board) variableSelectors() []string {
	var all []string
	for _, v := range b.Templating.List {
		if m := labelValues.FindStringSubmatch(v.Definition); m != nil {
			all = append(all, m[1])
		}
	}
	return all
}

// Every panel has a title, a description, a unit and a query, and overlaps no
// other. Every query is valid and is filtered by job and instance, or, if the exporter
// of dead letters serves its series, by the exporter's job.
func TestDashboardPanelsAndQueries(t *testing.T) {
	b := readBoard(t)
	taken := map[[2]int]string{}
	ids := map[int]bool{}
	for _, p := range b.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q: id %d is 0 or used twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("panel %q overlaps %q or is too wide", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q lacks a title, a description, a unit or a query", p.ID, p.Title)
		}
	}
	if len(b.queries()) < len(ids)/2 || len(b.Annotations.List) != 1 || len(b.variableSelectors()) != 3 {
		t.Errorf("%d queries, %d annotations, %d variables", len(b.queries()), len(b.Annotations.List), len(b.variableSelectors()))
	}
	for _, q := range append(b.queries(), b.Annotations.List...) {
		for _, s := range selectors(t, strings.ReplaceAll(q.Expr, "$__rate_interval", rateInterval)) {
			filter := `{job=~"$job",instance=~"$instance"`
			if strings.HasPrefix(s, "enricher_dlq_") {
				filter = `{job=~"$exporter"`
			}
			if !strings.Contains(s, filter) {
				t.Errorf("panel %q: %s is not filtered by %s", q.panel, s, filter)
			}
		}
	}
}

// rule is an alert rule.
type rule struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations map[string]string
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	if err := sigsyaml.Unmarshal(read(t, alertsFile), &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// Every alert refers to its section of the runbook, and alerts_test.yaml tests that
// it fires and that it does not.
func TestAlertsAreDocumentedAndTested(t *testing.T) {
	var tests struct {
		Tests []struct {
			Cases []struct {
				Alert  string `json:"alertname"`
				Alerts []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	if err := sigsyaml.Unmarshal(read(t, deploy+"/prometheus/alerts_test.yaml"), &tests); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, c := range test.Cases {
			fires[c.Alert] = fires[c.Alert] || len(c.Alerts) > 0
			silent[c.Alert] = silent[c.Alert] || len(c.Alerts) == 0
		}
	}
	for _, r := range readRules(t) {
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s: tested to fire: %v, tested not to fire: %v", r.Alert, fires[r.Alert], silent[r.Alert])
		}
		a := r.Annotations
		if a["summary"] == "" || a["description"] == "" || a["runbook"] != "docs/runbook.md#"+strings.ToLower(r.Alert) {
			t.Errorf("%s lacks a summary, a description or the anchor of its section in the runbook: %v", r.Alert, a)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
	}
}
