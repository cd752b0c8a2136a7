package deploycheck

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"sigs.k8s.io/yaml"
)

// compose loads the files as docker compose does, schema and all.
func compose(t *testing.T, env map[string]string, files ...string) *types.Project {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(root, "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	details := types.ConfigDetails{WorkingDir: dir, Environment: env}
	for _, f := range files {
		details.ConfigFiles = append(details.ConfigFiles,
			types.ConfigFile{Filename: filepath.Join(dir, f)})
	}
	project, err := loader.LoadWithContext(t.Context(), details)
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestCompose(t *testing.T) {
	t.Parallel()
	project := compose(t, map[string]string{"ROLLCALL_ISDP_URL": "https://isdp.example.com"},
		"compose.yaml")
	want := []string{"board", "grafana", "nats-1", "nats-2", "nats-3", "prometheus", "rollcall-1",
		"rollcall-2"}
	if got := project.ServiceNames(); !slices.Equal(got, want) {
		t.Fatalf("services %v, want %v", got, want)
	}
	checkServices(t, project)
	for name, s := range project.Services {
		for variable, value := range s.Environment {
			if value != nil && secretVariable(variable, *value) &&
				!strings.HasSuffix(variable, "__FILE") {
				t.Errorf("%s: the environment holds the secret %s", name, variable)
			}
		}
	}
	for _, name := range []string{"rollcall-1", "rollcall-2"} {
		s := project.Services[name]
		if len(s.Ports) > 0 {
			t.Errorf("%s publishes ports", name)
		}
		if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) < 12*time.Second {
			t.Errorf("%s is killed after %v; it takes 10 s at most", name, s.StopGracePeriod)
		}
		servers := strings.Split(*s.Environment["ROLLCALL_NATS_URL"], ",")
		for _, server := range servers {
			u, err := url.Parse(server)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := project.Services[u.Hostname()]; !ok {
				t.Errorf("%s: no service is called %s", name, u.Hostname())
			}
		}
		if replicas := *s.Environment["ROLLCALL_NATS_REPLICAS"]; len(servers) != 3 ||
			replicas != "3" {
			t.Errorf("%s: %d servers, %s replicas of the log", name, len(servers), replicas)
		}
	}
}

func TestComposeDemo(t *testing.T) {
	t.Parallel()
	project := compose(t, nil, "compose.yaml", "compose.demo.yaml")
	checkServices(t, project)
	tenant := project.Services["tenant"]
	for _, name := range []string{"rollcall-1", "rollcall-2"} {
		s := project.Services[name]
		if s.NetworkMode != "service:tenant" || len(s.Networks) > 0 {
			t.Errorf("%s does not share the tenant's network: %q, %v", name, s.NetworkMode,
				s.Networks)
		}
		u, err := url.Parse(*s.Environment["ROLLCALL_ISDP_URL"])
		if err != nil || u.Hostname() != "127.0.0.1" || !slices.Contains(tenant.Command, u.Host) {
			t.Errorf("%s polls %v (%v), the tenant listens by %v", name, u, err, tenant.Command)
		}
		if !slices.Contains(tenant.Networks["inside"].Aliases, name) {
			t.Errorf("Prometheus does not find %s", name)
		}
		for variable, value := range s.Environment {
			if strings.HasPrefix(variable, "ROLLCALL_ISDP_") &&
				strings.HasSuffix(variable, "_FILE") && *value != "" {
				t.Errorf("%s: %s is still set", name, variable)
			}
		}
		if len(s.Secrets) != 1 {
			t.Errorf("%s gets the secrets %v", name, s.Secrets)
		}
	}
	one, two := project.Services["rollcall-1"].Environment,
		project.Services["rollcall-2"].Environment
	for _, name := range []string{"ROLLCALL_OPS_LISTEN", "ROLLCALL_HTTP_LISTEN",
		"ROLLCALL_INSTANCE"} {
		if *one[name] == *two[name] {
			t.Errorf("both have %s=%s, in one network namespace", name, *one[name])
		}
	}
}

// keys makes the secrets as whoever deploys does, once for all tests.
func keys(t *testing.T) (dir string) {
	t.Helper()
	dir, err := makeKeys()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var makeKeys = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(scratch, "secrets")
	if out, err := exec.Command(root+"/deploy/keys", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("deploy/keys: %w\n%s", err, out)
	}
	return dir, nil
})

// checkServices is what holds for everything that compose runs here.
func checkServices(t *testing.T, project *types.Project) {
	t.Helper()
	made := keys(t)
	version := regexp.MustCompile(`:v?\d+\.\d+\.\d+(-\w+)?$`)
	for name, s := range project.Services {
		if s.Build == nil && !version.MatchString(s.Image) {
			t.Errorf("%s: the image %s is not of one version", name, s.Image)
		}
		if s.Build != nil {
			if _, err := os.Stat(filepath.Join(s.Build.Context, "Dockerfile")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("%s: restart %q", name, s.Restart)
		}
		if s.Build == nil && s.HealthCheck == nil { // the Dockerfile has one of its own
			t.Errorf("%s has no health check", name)
		}
		if !slices.Contains(s.CapDrop, "ALL") ||
			!slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s keeps capabilities or may gain privileges", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s: %s:%s is published beyond this machine", name, p.HostIP, p.Published)
			}
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !v.ReadOnly {
				t.Errorf("%s can write to %s", name, v.Source)
			}
		}
		for _, secret := range s.Secrets {
			dir, file := filepath.Split(project.Secrets[secret.Source].File)
			if _, err := os.Stat(filepath.Join(made, file)); err != nil ||
				filepath.Base(dir) != "secrets" {
				t.Errorf("%s: deploy/keys does not make %s%s: %v", name, dir, file, err)
			}
		}
		for variable, value := range s.Environment {
			mounted, ok := strings.CutPrefix(*value, "/run/secrets/")
			if ok && !slices.ContainsFunc(s.Secrets, func(c types.ServiceSecretConfig) bool {
				return c.Source == mounted
			}) {
				t.Errorf("%s: %s names a secret that is not mounted: %s", name, variable, *value)
			}
		}
	}

	// The servers' configuration gets every variable that it asks for.
	stub := t.TempDir()
	write(t, filepath.Join(stub, "nats-server"), "#!/bin/sh\necho \"ARGS=$*\"\nexec env\n")
	if err := os.Chmod(filepath.Join(stub, "nats-server"), 0o755); err != nil {
		t.Fatal(err)
	}
	files := included(t, "cluster.conf")
	for _, name := range []string{"nats-1", "nats-2", "nats-3"} {
		s := project.Services[name]
		args := slices.Clone(s.Entrypoint[1:])
		args[len(args)-1] = strings.ReplaceAll(args[len(args)-1], "/run/secrets/", made+"/")
		cmd := exec.Command(s.Entrypoint[0], args...)
		cmd.Env = []string{"PATH=" + stub + ":" + os.Getenv("PATH")}
		for variable, value := range s.Environment {
			cmd.Env = append(cmd.Env, variable+"="+*value)
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		env := make(map[string]string)
		for line := range strings.Lines(string(out)) {
			variable, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			env[variable] = value
		}
		if env["NATS_SERVER_NAME"] != name || strings.Count(env["NATS_ROUTES"],
			"nats://route:"+env["NATS_CLUSTER_PASSWORD"]+"@nats-") != 3 ||
			!strings.Contains(env["NATS_ROUTES"], "@"+name+":6222") {
			t.Errorf("%s is called %q, and the routes are %q", name, env["NATS_SERVER_NAME"],
				env["NATS_ROUTES"])
		}
		if !strings.Contains(env["ARGS"], "--config /etc/nats/cluster.conf") {
			t.Errorf("%s is started with %s", name, env["ARGS"])
		}
		for file, content := range files {
			for _, v := range natsVariables(content) {
				if env[v] == "" {
					t.Errorf("%s lacks %s, which %s asks for", name, v, file)
				}
			}
		}
	}

	// nginx asks where the replicas listen.
	asked := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^\s*server (rollcall-\d:\d+)`).FindAllStringSubmatch(
		read(t, "deploy/nginx/compose.conf"), -1) {
		asked[m[1]] = true
	}
	shown := make(map[string]bool)
	for _, name := range []string{"rollcall-1", "rollcall-2"} {
		shown[name+*project.Services[name].Environment["ROLLCALL_HTTP_LISTEN"]] = true
	}
	if !maps.Equal(asked, shown) {
		t.Errorf("nginx asks %v, the replicas show the board at %v", asked, shown)
	}

	// Prometheus looks where the replicas listen.
	var config struct {
		ScrapeConfigs []struct {
			JobName       string                       `json:"job_name"`
			StaticConfigs []struct{ Targets []string } `json:"static_configs"`
		} `json:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy/prometheus/prometheus.yml")),
		&config); err != nil {
		t.Fatal(err)
	}
	listens := make(map[string]bool)
	for _, name := range []string{"rollcall-1", "rollcall-2"} {
		listens[name+*project.Services[name].Environment["ROLLCALL_OPS_LISTEN"]] = true
	}
	got := slices.Sorted(slices.Values(config.ScrapeConfigs[0].StaticConfigs[0].Targets))
	if want := slices.Sorted(maps.Keys(listens)); !slices.Equal(got, want) ||
		config.ScrapeConfigs[0].JobName != "rollcall" {
		t.Errorf("Prometheus scrapes %v, the replicas listen at %v", got, want)
	}
}

// TestProvisioning sees whether Grafana finds the data source and the dashboard that compose
// mounts.
func TestProvisioning(t *testing.T) {
	project := compose(t, nil, "compose.yaml")
	var sources struct {
		Datasources []struct{ Name, UID, Type, URL string }
	}
	if err := yaml.Unmarshal([]byte(read(t,
		"deploy/grafana/provisioning/datasources/prometheus.yaml")), &sources); err != nil {
		t.Fatal(err)
	}
	if len(sources.Datasources) != 1 {
		t.Fatalf("%d data sources", len(sources.Datasources))
	}
	u, err := url.Parse(sources.Datasources[0].URL)
	if err != nil || sources.Datasources[0].Type != "prometheus" ||
		project.Services[u.Hostname()].Name == "" {
		t.Errorf("data source %+v: no such service", sources.Datasources[0])
	}
	var providers struct {
		Providers []struct {
			Type    string
			Options struct{ Path string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t,
		"deploy/grafana/provisioning/dashboards/rollcall.yaml")), &providers); err != nil {
		t.Fatal(err)
	}
	if len(providers.Providers) != 1 || !slices.ContainsFunc(project.Services["grafana"].Volumes,
		func(v types.ServiceVolumeConfig) bool {
			return filepath.Dir(v.Target) == providers.Providers[0].Options.Path
		}) {
		t.Errorf("dashboards are looked for at %+v, where nothing is mounted", providers.Providers)
	}
}

// TestKeys: they can be made again without changing what is there, and nobody else may read them.
func TestKeys(t *testing.T) {
	t.Parallel()
	dir := keys(t)
	before, err := os.ReadFile(filepath.Join(dir, "nats.env"))
	if err != nil {
		t.Fatal(err)
	}
	run(t, root, "deploy/keys", dir)
	if after, err := os.ReadFile(filepath.Join(dir, "nats.env")); err != nil ||
		string(after) != string(before) {
		t.Errorf("made anew: %s then %s (%v)", before, after, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	for _, user := range []string{"rollcall", "operator", "copy-operator", "reader"} {
		seed, err := os.ReadFile(filepath.Join(dir, user+".nk"))
		if err != nil || !strings.HasPrefix(string(seed), "SU") {
			t.Errorf("%s.nk holds no user's seed (%v)", user, err)
		}
	}
}
