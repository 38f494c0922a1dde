package check

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	// scrapes is the number of scrapes to wait for, at one per second. They cover
	// rateInterval twice, so that the rates of the dashboard have enough samples.
	scrapes      = 20
	rateInterval = "10s"
)

// A real Prometheus scrapes a running demo. Every query of the dashboard returns
// data, every series in the expression of an alert exists with its labels (except
// those of kube-state-metrics), every
// rule is evaluated without an error, and no alert fires.
func TestDashboardAndAlertsOnDemo(t *testing.T) {
	target := startDemo(t)
	p := startPrometheus(t, target)
	p.await(t, fmt.Sprintf("sum(count_over_time(enricher_ready[5m])) >= %d", scrapes))

	b := readBoard(t)
	for _, q := range b.queries() {
		expr := b.expand(q.Expr)
		switch series, err := p.query(t.Context(), expr); {
		case err != nil:
			t.Errorf("panel %q: %v", q.panel, err)
		case !anyNumber(series):
			t.Errorf("panel %q: %s returns no data: %v", q.panel, expr, series)
		}
	}
	for _, selector := range b.variableSelectors() {
		if series, err := p.query(t.Context(), b.expand(selector)); err != nil || len(series) == 0 {
			t.Errorf("variable of the dashboard: %s returns no series: %v", selector, err)
		}
	}
	for _, r := range readRules(t) {
		for _, selector := range selectors(t, r.Expr) {
			if strings.HasPrefix(selector, "kube_") { // of kube-state-metrics
				continue
			}
			if series, err := p.query(t.Context(), selector); err != nil || len(series) == 0 {
				t.Errorf("%s uses %s, which the demo does not expose: %v", r.Alert, selector, err)
			}
		}
	}
	p.checkRules(t)
}

// startDemo starts the demo, with enough events to outlast the test, and returns
// the address of its metrics.
func startDemo(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(program(t, "enricher"), "demo", "--events=100000", "--rate=250", "--admin-addr=127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := regexp.MustCompile(`^instance a: http://(.+)/metrics$`).FindStringSubmatch(lines.Text()); m != nil {
			go func() { _, _ = io.Copy(io.Discard, out) }() // returns when the demo exits
			return m[1]
		}
	}
	t.Fatalf("the demo does not print the address of its metrics: %v", lines.Err())
	return ""
}

// start starts a command and stops it when the test ends.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait() // the demo returns an error when it is interrupted
	})
}

// server is a running Prometheus.
type server struct{ url string }

func startPrometheus(t *testing.T, target string) *server {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("%v; install it: apt-get install prometheus", err)
	}
	dir := t.TempDir()
	alerts, err := filepath.Abs(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: enricher
    static_configs: [{targets: [%q]}]
`, alerts, target)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil { // with port 0, Prometheus does not report which port it uses
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--config.file="+filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr, "--log.level=warn")
	cmd.Stderr = t.Output()
	start(t, cmd)
	return &server{url: "http://" + addr}
}

// get requests a path of the API and decodes the data of the response.
func (s *server) get(ctx context.Context, path string, data any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return fmt.Errorf("%s: %w", resp.Status, err)
	}
	if body.Status != "success" {
		return fmt.Errorf("%s: %s", resp.Status, body.Error)
	}
	return json.Unmarshal(body.Data, data)
}

// sample is one series of a query result.
type sample struct {
	Metric map[string]string
	Value  [2]any // time, and the value as a string
}

func (s *server) query(ctx context.Context, expr string) ([]sample, error) {
	var data struct{ Result []sample }
	err := s.get(ctx, "/api/v1/query?query="+url.QueryEscape(expr), &data)
	return data.Result, err
}

// anyNumber reports whether any sample is a number. A quantile without
// observations, for example, is NaN.
func anyNumber(series []sample) bool {
	for _, s := range series {
		if f, err := strconv.ParseFloat(fmt.Sprint(s.Value[1]), 64); err == nil && !math.IsNaN(f) {
			return true
		}
	}
	return false
}

// await waits until a query returns a series.
func (s *server) await(t *testing.T, expr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		series, err := s.query(ctx, expr)
		if len(series) > 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v, %v", expr, series, err)
		case <-tick.C:
		}
	}
}

// checkRules checks that Prometheus evaluates all rules and that no alert fires.
func (s *server) checkRules(t *testing.T) {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError, State string }
		}
	}
	if err := s.get(t.Context(), "/api/v1/rules", &data); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" || r.State == "firing" {
				t.Errorf("rule %s: %s, %s %s", r.Name, r.State, r.Health, r.LastError)
			}
		}
	}
	if want := len(readRules(t)); n != want {
		t.Errorf("Prometheus has %d rules, want %d", n, want)
	}
}

// selectors returns the series that an expression uses, each as a query.
func selectors(t *testing.T, expr string) []string {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	var all []string
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			var matchers []string
			for _, m := range v.LabelMatchers {
				if m.Name != model.MetricNameLabel {
					matchers = append(matchers, m.String())
				}
			}
			all = append(all, v.Name+"{"+strings.Join(matchers, ",")+"}")
		}
		return nil
	})
	if len(all) == 0 {
		t.Errorf("%s uses no series", expr)
	}
	return all
}
