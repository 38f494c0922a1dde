package check

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	sigsyaml "sigs.k8s.io/yaml"
)

// optional counts the optional objects that were rendered.
func (o *objects) optional() int {
	n := 0
	for _, rendered := range []bool{o.account != nil, o.network != nil, o.budget != nil, o.monitor != nil, o.rule != nil, o.board != nil, o.exporter != nil, o.pods != nil} {
		if rendered {
			n++
		}
	}
	return n
}

func TestChartRendersValidObjects(t *testing.T) {
	for set, optional := range map[string]int{"minimal": 2, "longer-drain": 1, "everything": 8, "openshift": 2, "existing-account": 2} {
		t.Run(set, func(t *testing.T) {
			if _, err := helm(t, "lint", "--strict", chart, "--values="+valuesFile(set)); err != nil {
				t.Error(err)
			}
			o := render(t, set)
			if o.optional() != optional || o.rendered != 5+optional {
				t.Errorf("%d objects, %d of them optional; want %d and %d", o.rendered, o.optional(), 5+optional, optional)
			}
			checkPod(t, o)
			checkTestPods(t, o)
			for _, pod := range append(slices.Collect(maps.Values(o.tests)), podOf(o)) {
				checkRestricted(t, pod)
			}
			if o.network != nil {
				checkNetwork(t, o)
			}
			if o.exporter != nil {
				checkExporter(t, o)
			}
			checkSelectors(t, o)
			checkConfig(t, o, o.set.Spec.Template.Spec.Containers[0].Args, append(kafkaSecrets, "secret-key-file"))
			if o.rule != nil {
				checkRule(t, o.rule)
			}
			if o.board != nil && strings.TrimSpace(o.board.Data["enricher.json"]) != strings.TrimSpace(string(read(t, boardFile))) {
				t.Errorf("the dashboard differs from %s", boardFile)
			}
		})
	}
}

// checkPod checks that the pod has what enricher needs, and no more privileges
// than that.
func checkPod(t *testing.T, o *objects) {
	pod := o.set.Spec.Template.Spec
	c := pod.Containers[0]
	security := ptr.Deref(c.SecurityContext, core.SecurityContext{})
	env := map[string]core.EnvVar{}
	for _, e := range c.Env {
		env[e.Name] = e
	}
	mounts := map[string]bool{}
	for _, m := range c.VolumeMounts {
		mounts[m.Name] = m.ReadOnly && m.SubPath == ""
	}
	mounted := 0
	for _, v := range pod.Volumes {
		if mounts[v.Name] && (v.Secret != nil || v.ConfigMap != nil) {
			mounted++
		}
	}
	probes := func(p *core.Probe, path string) bool {
		return p != nil && p.HTTPGet != nil && p.HTTPGet.Path == path && p.HTTPGet.Port.StrVal == c.Ports[0].Name
	}
	grace := time.Duration(ptr.Deref(pod.TerminationGracePeriodSeconds, 30)) * time.Second
	drain := drainTimeout(t)
	if m := regexp.MustCompile(`drain-timeout: (\S+)`).FindStringSubmatch(o.config.Data["enricher.yaml"]); m != nil {
		var err error
		if drain, err = time.ParseDuration(m[1]); err != nil {
			t.Error(err)
		}
	}
	for requirement, ok := range map[string]bool{
		"pods start and stop in parallel":                    o.set.Spec.PodManagementPolicy == apps.ParallelPodManagement,
		"the pod has one container":                          len(pod.Containers) == 1 && len(pod.InitContainers) == 0,
		"the instance has the name of the pod":               env["ENRICHER_INSTANCE"].ValueFrom != nil && env["ENRICHER_INSTANCE"].ValueFrom.FieldRef.FieldPath == "metadata.name",
		"the admin address is the container's port":          env["ENRICHER_ADMIN_ADDR"].Value == fmt.Sprintf(":%d", c.Ports[0].ContainerPort),
		"the liveness probe requests /livez":                 probes(c.LivenessProbe, "/livez"),
		"the readiness probe requests /readyz":               probes(c.ReadinessProbe, "/readyz"),
		"the grace period is longer than the drain":          grace > drain,
		"service links are disabled":                         !ptr.Deref(pod.EnableServiceLinks, true),
		"no service account token is mounted":                !ptr.Deref(pod.AutomountServiceAccountToken, true) && (o.account == nil || !ptr.Deref(o.account.AutomountServiceAccountToken, true)),
		"the pod has the account of the release":             pod.ServiceAccountName != "" && (o.account == nil || pod.ServiceAccountName == o.account.Name),
		"the root file system is read-only":                  ptr.Deref(security.ReadOnlyRootFilesystem, false),
		"memory is limited and the CPU is not":               !c.Resources.Limits.Memory().IsZero() && c.Resources.Limits.Cpu().IsZero(),
		"memory and CPU are requested":                       !c.Resources.Requests.Memory().IsZero() && !c.Resources.Requests.Cpu().IsZero(),
		"all volumes are mounted read-only, without subPath": mounted == len(pod.Volumes) && mounted == len(c.VolumeMounts),
	} {
		if !ok {
			t.Errorf("not true: %s", requirement)
		}
	}
}

// checkSelectors checks that selectors and references match the objects they are
// meant for.
func checkSelectors(t *testing.T, o *objects) {
	pod := labels.Set(o.set.Spec.Template.Labels)
	selects := func(kind string, s *meta.LabelSelector, set labels.Set) {
		t.Helper()
		selector, err := meta.LabelSelectorAsSelector(s)
		if err != nil || selector.Empty() || !selector.Matches(set) {
			t.Errorf("%s selects %v, which does not match %v: %v", kind, selector, set, err)
		}
	}
	selects("StatefulSet", o.set.Spec.Selector, pod)
	selects("Service", &meta.LabelSelector{MatchLabels: o.service.Spec.Selector}, pod)
	if o.set.Spec.ServiceName != o.service.Name || o.service.Spec.ClusterIP != core.ClusterIPNone || !o.service.Spec.PublishNotReadyAddresses {
		t.Errorf("Service %s is not the StatefulSet's, not headless, or leaves out pods that are not ready", o.service.Name)
	}
	if port := o.service.Spec.Ports[0]; port.TargetPort.StrVal != o.set.Spec.Template.Spec.Containers[0].Ports[0].Name {
		t.Errorf("Service port %v does not target the container's port", port)
	}
	if o.budget != nil {
		selects("PodDisruptionBudget", o.budget.Spec.Selector, pod)
		if p := o.budget.Spec.UnhealthyPodEvictionPolicy; p == nil || *p != policy.AlwaysAllow {
			t.Errorf("the PodDisruptionBudget protects pods that are not ready: %v", p)
		}
	}
	if o.monitor != nil {
		selects("ServiceMonitor", &o.monitor.Spec.Selector, o.service.Labels)
		if o.monitor.Spec.Endpoints[0].Port != o.service.Spec.Ports[0].Name {
			t.Errorf("ServiceMonitor scrapes port %q, which the Service does not have", o.monitor.Spec.Endpoints[0].Port)
		}
	}
}

// kafkaSecrets are the flags whose files are secrets, of every command that connects
// to Kafka.
var kafkaSecrets = []string{"sasl-password-file", "tls-ca", "tls-cert", "tls-key"}

// checkConfig runs enricher with the rendered configuration file. Flags replace
// the paths of the secrets, and an invalid --admin-addr, the last flag that
// enricher validates, makes it exit.
func checkConfig(t *testing.T, o *objects, args, secretFlags []string) {
	dir := t.TempDir()
	file := filepath.Join(dir, "enricher.yaml")
	text := o.config.Data["enricher.yaml"]
	args = slices.Clone(args)
	args[slices.Index(args, "--config")+1] = file
	args = append(args, "--admin-addr=nonsense")
	volumes := map[string]string{"secret-key-file": "secret-key", "sasl-password-file": "sasl", "tls-ca": "tls", "tls-cert": "tls", "tls-key": "tls"}
	secrets := writeSecrets(t, dir)
	var config map[string]any
	if err := sigsyaml.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	for flag, volume := range volumes {
		path, ok := config[flag].(string)
		if !ok {
			continue
		}
		if slices.Contains(secretFlags, flag) {
			args = append(args, "--"+flag+"="+secrets[flag])
		}
		mount := slices.IndexFunc(o.set.Spec.Template.Spec.Containers[0].VolumeMounts, func(m core.VolumeMount) bool {
			return m.Name == volume && m.MountPath == filepath.Dir(path)
		})
		if mount < 0 {
			t.Errorf("%s is %s, but volume %s is not mounted there", flag, path, volume)
		}
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	failsWith(t, exec.Command(program(t, "enricher"), args...), 1, "--admin-addr: listen tcp: address nonsense")
}

// checkRule checks that the PrometheusRule holds the rules of alertsFile.
func checkRule(t *testing.T, rule *monitoring.PrometheusRule) {
	text := strings.ReplaceAll(string(read(t, alertsFile)), "docs/runbook.md#", "https://example.com/docs/runbook.md#")
	var want monitoring.PrometheusRuleSpec
	if err := sigsyaml.UnmarshalStrict([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if len(want.Groups) == 0 || !reflect.DeepEqual(rule.Spec, want) {
		t.Errorf("the rules differ from %s", alertsFile)
	}
}
