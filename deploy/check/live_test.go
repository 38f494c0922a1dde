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
	// scrapes to wait for, one a second: so many that the rates of the
	// dashboard, over rateInterval, have something to go by.
	scrapes      = 20
	rateInterval = "10s"
)

// TestLive has a real Prometheus scrape a running demo. Every query of the
// dashboard returns data, every series that an alert looks at is there, with
// its labels, every rule is evaluated without an error, and no alert fires.
func TestLive(t *testing.T) {
	target := startDemo(t)
	p := startPrometheus(t, target)
	p.await(t, fmt.Sprintf("sum(count_over_time(enricher_ready[5m])) >= %d", scrapes))

	b := readBoard(t)
	for _, q := range b.queries() {
		expr := b.fill(q.Expr)
		switch series, err := p.query(t.Context(), expr); {
		case err != nil:
			t.Errorf("panel %q: %v", q.panel, err)
		case !anyNumber(series):
			t.Errorf("panel %q: %s returns no data: %v", q.panel, expr, series)
		}
	}
	for _, name := range b.variableSelectors() {
		if series, err := p.query(t.Context(), b.fill(name)); err != nil || len(series) == 0 {
			t.Errorf("variable of the dashboard: %s: %v %v", name, series, err)
		}
	}
	for _, r := range readRules(t) {
		for _, selector := range selectors(t, r.Expr) {
			if series, err := p.query(t.Context(), selector); err != nil || len(series) == 0 {
				t.Errorf("%s looks at %s, which the program does not expose: %v", r.Alert, selector, err)
			}
		}
	}
	p.rules(t)
}

// startDemo starts the demo, with events for longer than the test takes, and
// returns the address of its metrics.
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
			go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the demo
			return m[1]
		}
	}
	t.Fatalf("the demo does not say where its metrics are: %v", lines.Err())
	return ""
}

// start starts a command, which ends with the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait() // an interrupted demo fails
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
	if err := l.Close(); err != nil { // Prometheus does not tell which free port it took
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--config.file="+filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr, "--log.level=warn")
	cmd.Stderr = t.Output()
	start(t, cmd)
	return &server{"http://" + addr}
}

// get reads what the API says.
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
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", resp.Status, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", resp.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

// sample is one series of an answer.
type sample struct {
	Metric map[string]string
	Value  [2]any // time, text of the value
}

func (s *server) query(ctx context.Context, expr string) ([]sample, error) {
	var data struct{ Result []sample }
	err := s.get(ctx, "/api/v1/query?query="+url.QueryEscape(expr), &data)
	return data.Result, err
}

// anyNumber says whether any sample is a number. The rate of a quantile without
// observations, say, is none.
func anyNumber(series []sample) bool {
	for _, s := range series {
		if f, err := strconv.ParseFloat(fmt.Sprint(s.Value[1]), 64); err == nil && !math.IsNaN(f) {
			return true
		}
	}
	return false
}

// await waits until a query has a result.
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

// rules holds all rules to be evaluated, and none to fire.
func (s *server) rules(t *testing.T) {
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

// selectors are the series that an expression looks at, each as a query.
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
		t.Errorf("%s looks at nothing", expr)
	}
	return all
}
