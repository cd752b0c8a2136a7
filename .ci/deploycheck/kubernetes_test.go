package deploycheck

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	nack "github.com/nats-io/nack/pkg/jetstream/apis/jetstream/v1beta2"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const manifests = "deploy/kubernetes"

// decode reads a manifest as the API server would with strict field validation.
func decode(t *testing.T, name, manifest string) any {
	t.Helper()
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(manifest), &kind); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	objects := map[string]any{
		"v1 Namespace":                            new(corev1.Namespace),
		"v1 ServiceAccount":                       new(corev1.ServiceAccount),
		"v1 ConfigMap":                            new(corev1.ConfigMap),
		"v1 Service":                              new(corev1.Service),
		"apps/v1 Deployment":                      new(appsv1.Deployment),
		"policy/v1 PodDisruptionBudget":           new(policyv1.PodDisruptionBudget),
		"networking.k8s.io/v1 NetworkPolicy":      new(networkingv1.NetworkPolicy),
		"networking.k8s.io/v1 Ingress":            new(networkingv1.Ingress),
		"monitoring.coreos.com/v1 PodMonitor":     new(monitoringv1.PodMonitor),
		"monitoring.coreos.com/v1 PrometheusRule": new(monitoringv1.PrometheusRule),
		"jetstream.nats.io/v1beta2 Account":       new(nack.Account),
		"jetstream.nats.io/v1beta2 Stream":        new(nack.Stream),
		"jetstream.nats.io/v1beta2 KeyValue":      new(nack.KeyValue),
	}
	object := objects[kind.APIVersion+" "+kind.Kind]
	if object == nil {
		t.Fatalf("%s: %s %s is a kind that this test does not know", name, kind.APIVersion,
			kind.Kind)
	}
	if err := yaml.UnmarshalStrict([]byte(manifest), object); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return object
}

// build is what kubectl apply -k of a directory sends, by kind and name. Names are without hashes.
func build(t *testing.T, dir string) map[string]any {
	t.Helper()
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(),
		filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	built := make(map[string]any)
	for _, r := range result.Resources() {
		manifest, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if r.GetNamespace() != "rollcall" && r.GetKind() != "Namespace" {
			t.Errorf("%s %s is in the namespace %q", r.GetKind(), r.GetName(), r.GetNamespace())
		}
		name := r.GetName()
		if r.GetKind() == "ConfigMap" {
			name = name[:strings.LastIndex(name, "-")]
		}
		built[r.GetKind()+" "+name] = decode(t, r.GetName(), string(manifest))
	}
	return built
}

// admitted reports a pod that the namespace's own policy would refuse.
func admitted(t *testing.T, namespace *corev1.Namespace, pod *corev1.PodTemplateSpec) {
	t.Helper()
	level := podsecurity.Level(namespace.Labels[podsecurity.EnforceLevelLabel])
	if level != podsecurity.LevelRestricted {
		t.Errorf("the namespace enforces %q", level)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	verdict := policy.AggregateCheckResults(evaluator.EvaluatePod(
		podsecurity.LevelVersion{Level: level, Version: podsecurity.LatestVersion()},
		&pod.ObjectMeta, &pod.Spec))
	if !verdict.Allowed {
		t.Errorf("Pod Security: %s", verdict.ForbiddenDetail())
	}
}

func TestKubernetes(t *testing.T) {
	built := build(t, manifests)
	want := []string{"ConfigMap rollcall", "Deployment rollcall", "Namespace rollcall",
		"NetworkPolicy rollcall", "PodDisruptionBudget rollcall", "Service rollcall-ops",
		"ServiceAccount rollcall"}
	if got := slices.Sorted(maps.Keys(built)); !slices.Equal(got, want) {
		t.Fatalf("kustomize builds %v, want %v", got, want)
	}
	deployment := built["Deployment rollcall"].(*appsv1.Deployment)
	pod, config := &deployment.Spec.Template, built["ConfigMap rollcall"].(*corev1.ConfigMap)

	admitted(t, built["Namespace rollcall"].(*corev1.Namespace), pod)

	if n := ptr.Deref(deployment.Spec.Replicas, 1); n != 2 {
		t.Errorf("%d replicas, want 2", n)
	}
	if s := ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, 30); s < 15 {
		t.Errorf("killed after %d s; it takes 10 s at most", s)
	}
	if ptr.Deref(pod.Spec.AutomountServiceAccountToken, true) {
		t.Error("the pod gets a token of the Kubernetes API")
	}
	if ptr.Deref(pod.Spec.EnableServiceLinks, true) {
		t.Error("service links bring variables that begin with ROLLCALL_")
	}
	if len(pod.Spec.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Spec.Containers))
	}
	c := &pod.Spec.Containers[0]
	if !ptr.Deref(c.SecurityContext.ReadOnlyRootFilesystem, false) {
		t.Error("the root file system can be written to")
	}
	if strings.HasSuffix(c.Image, ":latest") || !strings.Contains(c.Image, ":") {
		t.Errorf("the image %s has no version", c.Image)
	}
	if _, ok := c.Resources.Limits[corev1.ResourceMemory]; !ok ||
		c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("resources %+v: want requests and a limit of memory", c.Resources)
	}

	// The settings: from the ConfigMap of that very name, and secrets from files that are mounted.
	if len(c.EnvFrom) != 1 || c.EnvFrom[0].ConfigMapRef == nil ||
		c.EnvFrom[0].ConfigMapRef.Name != config.Name {
		t.Errorf("the environment comes from %+v, want the ConfigMap %s", c.EnvFrom, config.Name)
	}
	for name, value := range config.Data {
		if secretVariable(name, value) {
			t.Errorf("the ConfigMap holds the secret %s", name)
		}
	}
	env := maps.Clone(config.Data)
	for _, e := range c.Env {
		if secretVariable(e.Name, e.Value+"x") {
			t.Errorf("the environment holds the secret %s", e.Name)
		}
		if _, twice := env[e.Name]; twice {
			t.Errorf("%s is set twice", e.Name)
		}
		env[e.Name] = e.Value
		if strings.HasSuffix(e.Name, "_FILE") &&
			!slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.ReadOnly && strings.HasPrefix(e.Value, m.MountPath+"/")
			}) {
			t.Errorf("%s=%s: nothing is mounted there", e.Name, e.Value)
		}
	}
	for _, name := range []string{"ROLLCALL_ISDP_URL", "ROLLCALL_NATS_URL",
		"ROLLCALL_NATS_REPLICAS", "ROLLCALL_OPS_LISTEN"} {
		if env[name] == "" {
			t.Errorf("%s is not set", name)
		}
	}

	// Probes and scrapers find the port that it listens on.
	port := func(name string) string {
		for _, p := range c.Ports {
			if p.Name == name {
				return ":" + strconv.Itoa(int(p.ContainerPort))
			}
		}
		return "none"
	}
	for name, p := range map[string]struct {
		probe *corev1.Probe
		path  string
	}{"startup": {c.StartupProbe, "/healthz"}, "liveness": {c.LivenessProbe, "/healthz"},
		"readiness": {c.ReadinessProbe, "/readyz"}} {
		if p.probe == nil || p.probe.HTTPGet == nil || p.probe.HTTPGet.Path != p.path ||
			port(p.probe.HTTPGet.Port.StrVal) != env["ROLLCALL_OPS_LISTEN"] {
			t.Errorf("the %s probe does not ask %s at %s: %+v", name, p.path,
				env["ROLLCALL_OPS_LISTEN"], p.probe)
		}
	}
	if ":"+pod.Annotations["prometheus.io/port"] != env["ROLLCALL_OPS_LISTEN"] {
		t.Errorf("the scrapers' annotation says port %s", pod.Annotations["prometheus.io/port"])
	}

	// Whoever selects pods, selects these.
	monitor := decode(t, "podmonitor.yaml",
		read(t, manifests+"/podmonitor.yaml")).(*monitoringv1.PodMonitor)
	budget, network := built["PodDisruptionBudget rollcall"].(*policyv1.PodDisruptionBudget),
		built["NetworkPolicy rollcall"].(*networkingv1.NetworkPolicy)
	selectors := map[string]*metav1.LabelSelector{
		"deployment": deployment.Spec.Selector, "disruption budget": budget.Spec.Selector,
		"network policy": &network.Spec.PodSelector, "pod monitor": &monitor.Spec.Selector,
		"service": {MatchLabels: built["Service rollcall-ops"].(*corev1.Service).Spec.Selector},
	}
	for i, s := range pod.Spec.TopologySpreadConstraints {
		over := pod.Spec.TopologySpreadConstraints[i].TopologyKey
		selectors["spread over "+over] = s.LabelSelector
	}
	for name, s := range selectors {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil || selector.Empty() || !selector.Matches(labels.Set(pod.Labels)) {
			t.Errorf("%s: selector %v (%v) does not match the pods' labels %v", name, selector, err,
				pod.Labels)
		}
	}
	if _, ok := selectors["spread over kubernetes.io/hostname"]; !ok {
		t.Error("nothing keeps the two replicas from sharing a node")
	}
	if len(network.Spec.PolicyTypes) != 2 {
		t.Errorf("the network policy is of %v", network.Spec.PolicyTypes)
	}
	if e := monitor.Spec.PodMetricsEndpoints; len(e) != 1 || e[0].Port == nil ||
		port(*e[0].Port) != env["ROLLCALL_OPS_LISTEN"] {
		t.Errorf("the pod monitor scrapes %+v", e)
	}
	if monitor.Name != "rollcall" {
		t.Errorf("the pod monitor is called %s, and so the job is not one that the alerts look for",
			monitor.Name)
	}
}

// TestLogin sees whether browsers get from the ingress to the board, and nobody past the login.
func TestLogin(t *testing.T) {
	plain, built := build(t, manifests), build(t, "deploy/oauth2-proxy")
	for name := range plain {
		if built[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	board := built["Deployment rollcall"].(*appsv1.Deployment)
	login := built["Deployment rollcall-login"].(*appsv1.Deployment)
	admitted(t, built["Namespace rollcall"].(*corev1.Namespace), &login.Spec.Template)

	// leads follows a port of a service to what a container listens on, and names it.
	leads := func(service string, deployment *appsv1.Deployment, env, want string) {
		t.Helper()
		s := built["Service "+service].(*corev1.Service)
		pod := deployment.Spec.Template
		c := pod.Spec.Containers[0]
		if !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			t.Errorf("the service %s selects %v", service, s.Spec.Selector)
		}
		listens := ""
		for _, e := range c.Env {
			if e.Name == env {
				listens = e.Value
			}
		}
		if listens != want {
			t.Errorf("%s=%q, want %q", env, listens, want)
		}
		port := s.Spec.Ports[0]
		if ":"+strconv.Itoa(int(port.Port)) != want || !slices.ContainsFunc(c.Ports,
			func(p corev1.ContainerPort) bool {
				return p.Name == port.TargetPort.StrVal &&
					":"+strconv.Itoa(int(p.ContainerPort)) == want
			}) {
			t.Errorf("the service %s leads to %+v of %+v", service, port, c.Ports)
		}
	}
	leads("rollcall-board", board, "ROLLCALL_HTTP_LISTEN", ":8080")
	leads("rollcall-login", login, "OAUTH2_PROXY_HTTP_ADDRESS", ":4180")
	for _, e := range login.Spec.Template.Spec.Containers[0].Env {
		if e.Name == "OAUTH2_PROXY_UPSTREAMS" && e.Value != "http://rollcall-board:8080/" {
			t.Errorf("the login leads to %s", e.Value)
		}
	}
	backend := built["Ingress rollcall-board"].(*networkingv1.Ingress).Spec.Rules[0].HTTP.Paths[0].
		Backend.Service
	if backend.Name != "rollcall-login" || backend.Port.Name != "http" {
		t.Errorf("the ingress leads to %+v", backend)
	}

	// Of all policies together, only one lets somebody reach the board, and that is the login.
	for name, object := range built {
		network, ok := object.(*networkingv1.NetworkPolicy)
		if !ok || network.Spec.PodSelector.MatchLabels["app.kubernetes.io/name"] != "rollcall" {
			continue
		}
		for _, rule := range network.Spec.Ingress {
			if len(rule.Ports) == 0 {
				t.Errorf("%s opens every port", name)
			}
			for _, p := range rule.Ports {
				if p.Port.StrVal != "board" {
					continue
				}
				if len(rule.From) != 1 || rule.From[0].PodSelector == nil ||
					rule.From[0].NamespaceSelector != nil ||
					rule.From[0].PodSelector.MatchLabels["app.kubernetes.io/name"] !=
						"rollcall-login" {
					t.Errorf("%s lets %+v reach the board", name, rule.From)
				}
			}
		}
	}
	config := built["ConfigMap rollcall-login"].(*corev1.ConfigMap)
	if login.Spec.Template.Spec.Volumes[0].ConfigMap.Name != config.Name ||
		!strings.Contains(config.Data["oauth2-proxy.cfg"], "cookie_secret_file") {
		t.Errorf("the login's settings are %+v of %s", login.Spec.Template.Spec.Volumes[0],
			config.Name)
	}
}

// TestPrometheusRule makes a PrometheusRule as the comment in podmonitor.yaml says.
func TestPrometheusRule(t *testing.T) {
	comment := strings.ReplaceAll(read(t, manifests+"/podmonitor.yaml"), "\n# ", "\n")
	script := regexp.MustCompile(`(?s)\{ printf .*?; \} `).FindString(comment)
	if script == "" {
		t.Fatal("podmonitor.yaml has no such command")
	}
	manifest := run(t, root, "sh", "-ec", script)
	rule := decode(t, "the PrometheusRule", manifest).(*monitoringv1.PrometheusRule)
	if len(rule.Spec.Groups) < 2 {
		t.Errorf("%d groups of rules", len(rule.Spec.Groups))
	}
}

// TestNATSValues sees whether the chart's values bring what the accounts' files ask for.
func TestNATSValues(t *testing.T) {
	policy := decode(t, "nats-networkpolicy.yaml",
		read(t, manifests+"/nats-networkpolicy.yaml")).(*networkingv1.NetworkPolicy)
	if len(policy.Spec.Ingress) == 0 {
		t.Error("the NATS servers' network policy lets nobody in")
	}
	text := read(t, manifests+"/nats-values.yaml")
	var values struct {
		Config struct {
			Cluster struct {
				Enabled  bool
				Replicas int
			}
			Merge map[string]any
		}
		Container struct {
			Env   map[string]any
			Patch []struct{ Value corev1.VolumeMount }
		}
		PodTemplate struct {
			Patch []struct{ Value corev1.Volume }
		}
	}
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	if !values.Config.Cluster.Enabled || values.Config.Cluster.Replicas != 3 {
		t.Errorf("cluster %+v", values.Config.Cluster)
	}
	include, _ := values.Config.Merge["$include"].(string)
	if filepath.Join("/etc/nats-config", include) != "/etc/rollcall/accounts.conf" {
		t.Errorf("includes %q, which is not the accounts' file", include)
	}
	mount, volume := values.Container.Patch[0].Value, values.PodTemplate.Patch[0].Value
	if mount.MountPath != "/etc/rollcall" || mount.Name != volume.Name || volume.ConfigMap == nil ||
		!strings.Contains(text, "create configmap "+volume.ConfigMap.Name+" ") {
		t.Errorf("mounts %+v of %+v", mount, volume)
	}
	needed := included(t, "accounts.conf")
	for file := range needed {
		if !strings.Contains(text, "--from-file=deploy/nats/"+file+" ") &&
			!strings.Contains(text, "--from-file=deploy/nats/"+file+"\n") {
			t.Errorf("the ConfigMap lacks %s", file)
		}
	}
	var variables []string
	for _, content := range needed {
		variables = append(variables, natsVariables(content)...)
	}
	for _, v := range variables {
		if values.Container.Env[v] == nil {
			t.Errorf("the servers lack %s", v)
		}
	}
}

// included are a file of deploy/nats and the files that it includes, by name.
func included(t *testing.T, name string) map[string]string {
	t.Helper()
	text := read(t, "deploy/nats/"+name)
	files := map[string]string{name: text}
	for _, m := range regexp.MustCompile(`(?m)^\s*include "([^"]+)"`).FindAllStringSubmatch(text,
		-1) {
		maps.Copy(files, included(t, m[1]))
	}
	return files
}

// natsVariables are the environment's that a configuration of nats-server uses.
func natsVariables(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^[^#\n]*?[:\s{]\$(NATS_\w+)`).FindAllStringSubmatch(
		text, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}
