package check

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	sigsyaml "sigs.k8s.io/yaml"
)

// The chart rejects values with which enricher could not work.
func TestChartRejectsInvalidValues(t *testing.T) {
	for set, message := range map[string]string{
		"secretKey.existingSecret=":                   "secretKey.existingSecret must name a Secret",
		"terminationGracePeriodSeconds=20":            "must be longer than config.drain-timeout (20s)",
		"config.drain-timeout=1m":                     "must be longer than config.drain-timeout (60s)",
		"config.drain-timeout=soon":                   "drain-timeout",
		"config.region=":                              "set config.region or config.api-url",
		"config.sdk-app-id=null":                      "sdk-app-id",
		"config.api-rats=5":                           "api-rats",
		"config.instance=one":                         "instance",
		"config.secret-key-file=/tmp/key":             "secret-key-file",
		"config.sasl-user=me":                         "kafka.sasl.existingSecret must name a Secret",
		"config.max-consecutive-dead-letters=-1":      "max-consecutive-dead-letters",
		"replicas=-1":                                 "replicas",
		"extraArgs[0]=--drain-timeout=2m":             "set config.drain-timeout",
		"extraArgs[0]=--instance":                     "the chart sets it",
		"extraEnv[0].name=ENRICHER_ADMIN_ADDR":        "the chart sets it",
		"extraEnv[0].value=nameless":                  "name",
		"extraVolumeMounts[0].name=pathless":          "mountPath",
		"resources.limits.memory=lots":                "resources.limits.memory",
		"serviceAccount.anotations.x=y":               "anotations",
		"networkPolicy.egres[0].x=y":                  "egres",
		"secretKey.value=5bd2850fff3ecb11d7c805251c5": "value",
	} {
		_, err := helm(t, "template", "calls", chart, "--values="+valuesFile("minimal"), "--set="+set)
		if err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: %v, want %q", set, err, message)
		}
	}
}

// Numbers keep their form. For example, a large integer does not become
// 1.400000001e+09.
func TestChartKeepsNumbers(t *testing.T) {
	for set, want := range map[string]string{
		"config.sdk-app-id=1400000001": "sdk-app-id: 1400000001\n",
		"config.api-rate=0.25":         "api-rate: 0.25\n",
		"config.api-rate=100":          "api-rate: 100\n",
	} {
		if o := render(t, "minimal", "--set-json="+set); !strings.Contains(o.config.Data["enricher.yaml"], want) {
			t.Errorf("%s: got %s", set, o.config.Data["enricher.yaml"])
		}
	}
}

// values.schema.json has every flag of `enricher run` that the chart does not set
// itself, and everything-values.yaml uses them all.
func TestChartHasEveryFlag(t *testing.T) {
	help, errs, err := output(t.Context(), program(t, "enricher"), "run", "--help")
	if err != nil {
		t.Fatal(err, errs)
	}
	setByChart := []string{"help", "config", "instance", "admin-addr", "secret-key-file", "sasl-password-file", "tls-ca", "tls-cert", "tls-key"}
	var flags []string
	for _, m := range regexp.MustCompile(`(?m)^ .*?--([a-z-]+)`).FindAllStringSubmatch(help, -1) {
		if !slices.Contains(setByChart, m[1]) && strings.Contains(help, "$ENRICHER_"+strings.ToUpper(strings.ReplaceAll(m[1], "-", "_"))+"]") {
			flags = append(flags, m[1])
		}
	}
	slices.Sort(flags)
	flags = slices.Compact(flags)
	var schema struct {
		Properties struct {
			Config struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(read(t, chart+"/values.schema.json"), &schema); err != nil {
		t.Fatal(err)
	}
	var everything struct{ Config map[string]any }
	if err := sigsyaml.Unmarshal(read(t, valuesFile("everything")), &everything); err != nil {
		t.Fatal(err)
	}
	everything.Config["api-url"] = "" // excludes region
	for _, flag := range flags {
		if strings.HasPrefix(flag, "oauth-") || flag == "sasl-extension" { // exclude sasl-user
			everything.Config[flag] = ""
		}
	}
	for file, got := range map[string]map[string]any{"values.schema.json": schema.Properties.Config.Properties, "everything-values.yaml": everything.Config} {
		if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, flags) {
			t.Errorf("flags in %s:\n%v\nflags of enricher run:\n%v", file, names, flags)
		}
	}
}
