package check

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

// helmPath returns the path of Helm, in the version that go.mod pins.
var helmPath = sync.OnceValues(func() (string, error) {
	out, errs, err := output(context.Background(), "go", "tool", "-n", "helm")
	if err != nil {
		return "", fmt.Errorf("build helm: %w\n%s", err, errs)
	}
	return strings.TrimSpace(out), nil
})

// helm runs Helm and returns its output. --kube-version is the version of the
// Kubernetes API types in go.mod.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := helmPath()
	if err != nil {
		t.Fatal(err)
	}
	out, errs, err := output(t.Context(), path, append(args, "--kube-version=1.37")...)
	if err != nil {
		return "", errors.New(errs + out)
	}
	return out, nil
}

// objects are the Kubernetes objects that the chart renders.
type objects struct {
	config   core.ConfigMap
	service  core.Service
	account  *core.ServiceAccount
	set      apps.StatefulSet
	tests    map[string]*core.Pod // of helm test, by the command that each runs
	network  *networking.NetworkPolicy
	budget   *policy.PodDisruptionBudget
	monitor  *monitoring.ServiceMonitor
	exporter *apps.Deployment // of metrics about dead letters
	pods     *monitoring.PodMonitor
	rule     *monitoring.PrometheusRule
	board    *core.ConfigMap
	rendered int
}

// decode decodes YAML documents as the API server does with strict field
// validation.
func decode(docs string) ([]runtime.Object, error) {
	s := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(s), monitoring.AddToScheme(s)); err != nil {
		return nil, err
	}
	strict := serializer.NewCodecFactory(s, serializer.EnableStrict).UniversalDeserializer()
	reader := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(docs)))
	var all []runtime.Object
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		o, _, err := strict.Decode(doc, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, doc)
		}
		all = append(all, o)
	}
}

// render renders the chart with one of the value sets in ci/.
func render(t *testing.T, set string, args ...string) *objects {
	t.Helper()
	return renderChart(t, chart, append([]string{"--values=" + valuesFile(set)}, args...)...)
}

func renderChart(t *testing.T, path string, args ...string) *objects {
	t.Helper()
	out, err := helm(t, append([]string{"template", "calls", path, "--namespace=ns"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := decode(out)
	if err != nil {
		t.Fatal(err)
	}
	o := &objects{rendered: len(decoded), tests: map[string]*core.Pod{}}
	for _, d := range decoded {
		switch d := d.(type) {
		case *core.ConfigMap:
			if _, ok := d.Data["enricher.json"]; ok {
				o.board = d
			} else {
				o.config = *d
			}
		case *core.Service:
			o.service = *d
		case *core.ServiceAccount:
			o.account = d
		case *apps.StatefulSet:
			o.set = *d
		case *core.Pod:
			o.tests[d.Spec.Containers[0].Args[0]] = d
		case *networking.NetworkPolicy:
			o.network = d
		case *policy.PodDisruptionBudget:
			o.budget = d
		case *monitoring.ServiceMonitor:
			o.monitor = d
		case *apps.Deployment:
			o.exporter = d
		case *monitoring.PodMonitor:
			o.pods = d
		case *monitoring.PrometheusRule:
			o.rule = d
		default:
			t.Errorf("the chart renders an unexpected %T", d) // in particular, it must not render a Secret
		}
	}
	return o
}

func valuesFile(set string) string { return chart + "/ci/" + set + "-values.yaml" }

// The checks of the chart are useless unless decode rejects mistakes.
func TestDecodeRejectsMistakes(t *testing.T) {
	for _, doc := range []string{
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {publishNotReady: true}\n",
		"apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: a}\nspec: {maxUnavailable: 1, maxUnavailable: 2}\n",
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata: {name: a}\nspec: {groups: [{name: a, rules: [{allert: a}]}]}\n",
		"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {}, ingress: [{port: 9464}]}\n",
		"apiVersion: apps/v2\nkind: StatefulSet\nmetadata: {name: a}\n",
	} {
		if _, err := decode(doc); err == nil {
			t.Errorf("accepted:\n%s", doc)
		}
	}
}
