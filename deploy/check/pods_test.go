package check

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"k8s.io/utils/ptr"
)

// podOf returns a pod of the StatefulSet.
func podOf(o *objects) *core.Pod {
	t := o.set.Spec.Template
	return &core.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
}

// checkRestricted checks a pod as a namespace does that enforces the Pod Security
// Standard "restricted".
func checkRestricted(t *testing.T, pod *core.Pod) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	if r := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec)); !r.Allowed {
		t.Errorf("pod %s: %s", pod.Name, r.ForbiddenDetail())
	}
}

// checkTestPods checks that helm test runs check with the instances' configuration,
// and health against their Service, and that nothing mistakes its pods for instances.
func checkTestPods(t *testing.T, o *objects) {
	t.Helper()
	instance := podOf(o)
	c := instance.Spec.Containers[0]
	for command, want := range map[string][]string{
		"check":  append([]string{"check"}, c.Args[1:]...),
		"health": {"health", "--admin-addr", o.service.Name + ":" + strconv.Itoa(int(o.service.Spec.Ports[0].Port))},
	} {
		pod := o.tests[command]
		if pod == nil {
			t.Errorf("helm test does not run %s", command)
			continue
		}
		got := pod.Spec.Containers[0]
		for requirement, ok := range map[string]bool{
			"it is a test": pod.Annotations["helm.sh/hook"] == "test" && pod.Spec.RestartPolicy == core.RestartPolicyNever,
			"the arguments are those of the instances": slices.Equal(got.Args, want),
			"image, environment and mounts are those of the instances": got.Image == c.Image && reflect.DeepEqual(got.Env, c.Env) &&
				reflect.DeepEqual(got.VolumeMounts, c.VolumeMounts) && reflect.DeepEqual(pod.Spec.Volumes, instance.Spec.Volumes),
			"the account is that of the instances": pod.Spec.ServiceAccountName == instance.Spec.ServiceAccountName,
			"the Service does not select it":       !labels.SelectorFromSet(o.service.Spec.Selector).Matches(labels.Set(pod.Labels)),
		} {
			if !ok {
				t.Errorf("helm test, %s: not true: %s", command, requirement)
			}
		}
	}
}

// checkExporter checks that the exporter reads the configuration of the instances,
// that Prometheus finds it, and that nothing mistakes it for an instance.
func checkExporter(t *testing.T, o *objects) {
	t.Helper()
	template := o.exporter.Spec.Template
	pod := &core.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	checkRestricted(t, pod)
	selects := func(s *meta.LabelSelector) bool {
		selector, err := meta.LabelSelectorAsSelector(s)
		return err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels))
	}
	instance := podOf(o)
	c, of := pod.Spec.Containers[0], instance.Spec.Containers[0]
	for requirement, ok := range map[string]bool{
		"there is one":                     ptr.Deref(o.exporter.Spec.Replicas, 1) == 1 && selects(o.exporter.Spec.Selector),
		"it has the configuration of run":  slices.Equal(c.Args[2:], of.Args[1:3]) && reflect.DeepEqual(c.VolumeMounts, of.VolumeMounts) && reflect.DeepEqual(pod.Spec.Volumes, instance.Spec.Volumes),
		"it has the probes of an instance": reflect.DeepEqual(c.LivenessProbe, of.LivenessProbe) && reflect.DeepEqual(c.ReadinessProbe, of.ReadinessProbe) && reflect.DeepEqual(c.Ports, of.Ports),
		"Prometheus scrapes it":            o.pods != nil && selects(&o.pods.Spec.Selector) && *o.pods.Spec.PodMetricsEndpoints[0].Port == c.Ports[0].Name,
		"the network policy holds for it":  o.network == nil || selects(&o.network.Spec.PodSelector),
		"the Service does not select it":   !labels.SelectorFromSet(o.service.Spec.Selector).Matches(labels.Set(pod.Labels)),
		"the budget does not count it":     o.budget == nil || !selects(o.budget.Spec.Selector),
	} {
		if !ok {
			t.Errorf("exporter: not true: %s", requirement)
		}
	}
	checkConfig(t, o, c.Args, kafkaSecrets)
}

// checkNetwork checks that the policy holds for instances and tests, and lets the
// tests reach the instances.
func checkNetwork(t *testing.T, o *objects) {
	t.Helper()
	selects := func(s *meta.LabelSelector, pod *core.Pod) bool {
		selector, err := meta.LabelSelectorAsSelector(s)
		return err == nil && selector.Matches(labels.Set(pod.Labels))
	}
	peer := func(peers []networking.NetworkPolicyPeer, pod *core.Pod) bool {
		return len(peers) == 0 || slices.ContainsFunc(peers, func(p networking.NetworkPolicyPeer) bool {
			return p.PodSelector != nil && p.NamespaceSelector == nil && selects(p.PodSelector, pod)
		})
	}
	spec, instance, test := o.network.Spec, podOf(o), o.tests["health"]
	port := instance.Spec.Containers[0].Ports[0].ContainerPort
	opens := func(ports []networking.NetworkPolicyPort) bool {
		return len(ports) == 1 && ports[0].Port.IntVal == port
	}
	restricts := slices.Contains(spec.PolicyTypes, networking.PolicyTypeEgress)
	for requirement, ok := range map[string]bool{
		"it holds for instances":                    selects(&spec.PodSelector, instance),
		"it holds for tests":                        selects(&spec.PodSelector, test),
		"ingress is restricted to the admin port":   slices.Contains(spec.PolicyTypes, networking.PolicyTypeIngress) && len(spec.Ingress) == 1 && opens(spec.Ingress[0].Ports),
		"tests reach instances":                     peer(spec.Ingress[0].From, test),
		"egress is restricted only if it has rules": restricts == (len(spec.Egress) > 0),
		"tests may leave for instances": !restricts || slices.ContainsFunc(spec.Egress, func(r networking.NetworkPolicyEgressRule) bool {
			return opens(r.Ports) && peer(r.To, instance)
		}),
		"names can be looked up": !restricts || slices.ContainsFunc(spec.Egress, func(r networking.NetworkPolicyEgressRule) bool {
			return len(r.To) == 0 && slices.ContainsFunc(r.Ports, func(p networking.NetworkPolicyPort) bool {
				return p.Port.IntVal == 53 && *p.Protocol == core.ProtocolUDP
			})
		}),
	} {
		if !ok {
			t.Errorf("NetworkPolicy: not true: %s", requirement)
		}
	}
}

// memoryLimit returns GOMEMLIMIT of the instances, in the order of their variables.
func memoryLimit(o *objects) []string {
	var all []string
	for _, e := range o.set.Spec.Template.Spec.Containers[0].Env {
		if e.Name == "GOMEMLIMIT" {
			all = append(all, e.Value)
		}
	}
	return all
}

// GOMEMLIMIT is nine tenths of the memory limit, however that is written.
func TestMemoryLimitFollowsTheContainers(t *testing.T) {
	for _, limit := range []string{`"1Gi"`, `"900Mi"`, `"1.5Gi"`, `"2G"`, `"1500M"`, `"700000k"`, `"1e9"`, `"1073741824"`, `1073741824`, `"4194304Ki"`, `"1Ti"`} {
		quantity := resource.MustParse(strings.Trim(limit, `"`))
		want := strconv.FormatInt(int64(quantity.AsApproximateFloat64()*0.9/1024), 10) + "KiB"
		if got := memoryLimit(render(t, "minimal", "--set-json=resources.limits.memory="+limit)); !slices.Equal(got, []string{want}) {
			t.Errorf("limit %s: GOMEMLIMIT %v, want %s", limit, got, want)
		}
	}
	for _, none := range []string{`resources.limits=null`, `resources={"limits":{"memory":null}}`} {
		if got := memoryLimit(render(t, "minimal", "--set-json="+none)); got != nil {
			t.Errorf("%s: GOMEMLIMIT %v, want none", none, got)
		}
	}
	if got := memoryLimit(render(t, "existing-account")); !slices.Equal(got, []string{"800MiB"}) {
		t.Errorf("set by hand: GOMEMLIMIT %v", got)
	}
}

// On OpenShift, the platform chooses user and groups. A chart that has this one as a
// dependency can leave that to it as well.
func TestChartFixesNoUserOnOpenShift(t *testing.T) {
	umbrella := t.TempDir()
	if err := os.CopyFS(filepath.Join(umbrella, "charts", "enricher"), os.DirFS(chart)); err != nil {
		t.Fatal(err)
	}
	values := "enricher:\n  " + strings.ReplaceAll(string(read(t, valuesFile("openshift"))), "\n", "\n  ")
	for name, text := range map[string]string{"Chart.yaml": "apiVersion: v2\nname: umbrella\nversion: 1.0.0\n", "values.yaml": values} {
		if err := os.WriteFile(filepath.Join(umbrella, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, o := range map[string]*objects{
		"chart":              render(t, "openshift"),
		"dependency":         renderChart(t, umbrella),
		"no contexts at all": render(t, "minimal", "--set-json=podSecurityContext=null", "--set-json=securityContext=null"),
	} {
		for _, pod := range []*core.Pod{podOf(o), o.tests["check"], o.tests["health"]} {
			p, c := ptr.Deref(pod.Spec.SecurityContext, core.PodSecurityContext{}), ptr.Deref(pod.Spec.Containers[0].SecurityContext, core.SecurityContext{})
			if p.RunAsUser != nil || p.RunAsGroup != nil || p.FSGroup != nil || c.RunAsUser != nil || c.RunAsGroup != nil {
				t.Errorf("%s: pod %q fixes a user or a group: %v %v", name, pod.Name, p, c)
			}
		}
	}
}

// What a user adds is added, and replaces nothing.
func TestChartAddsExtras(t *testing.T) {
	plain, extra := podOf(render(t, "minimal")).Spec, podOf(render(t, "minimal",
		`--set-json=extraArgs=["--log-level=debug"]`, `--set-json=extraEnv=[{"name":"GODEBUG","value":"tlsmlkem=0"}]`,
		`--set-json=extraVolumes=[{"name":"ca","configMap":{"name":"ca"}}]`, `--set-json=extraVolumeMounts=[{"name":"ca","mountPath":"/ca"}]`)).Spec
	p, e := plain.Containers[0], extra.Containers[0]
	added := func(what string, before, after any) {
		b, a := reflect.ValueOf(before), reflect.ValueOf(after)
		if a.Len() != b.Len()+1 || !reflect.DeepEqual(a.Slice(0, b.Len()).Interface(), before) {
			t.Errorf("%s: %v, want one more than %v", what, after, before)
		}
	}
	added("arguments", p.Args, e.Args)
	added("variables", p.Env, e.Env)
	added("volumes", plain.Volumes, extra.Volumes)
	added("mounts", p.VolumeMounts, e.VolumeMounts)
	account := render(t, "everything").account
	if account.Annotations["eks.amazonaws.com/role-arn"] == "" || account.Name != "calls" {
		t.Errorf("the account has no annotation, or another name: %v", account.ObjectMeta)
	}
}

// The probes and Prometheus reach an admin port with certificates.
func TestChartAdminScheme(t *testing.T) {
	for _, want := range []core.URIScheme{core.URISchemeHTTP, core.URISchemeHTTPS} {
		o := render(t, "everything", "--set=adminScheme="+string(want))
		c := podOf(o).Spec.Containers[0]
		for name, got := range map[string]core.URIScheme{
			"liveness": c.LivenessProbe.HTTPGet.Scheme, "readiness": c.ReadinessProbe.HTTPGet.Scheme,
			"Prometheus": core.URIScheme(strings.ToUpper(o.monitor.Spec.Endpoints[0].Scheme.String())),
		} {
			if got != want {
				t.Errorf("%s uses %q, want %q", name, got, want)
			}
		}
	}
}
