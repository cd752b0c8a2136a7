//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// refuses runs rollcall, which is to end by itself with an exit code, and returns its lines on
// standard error.
func refuses(t *testing.T, code int, env map[string]string, args ...string) []string {
	t.Helper()
	p := Rollcall(t, env, args...)
	if got := p.Wait(); got != code {
		t.Errorf("exit %d, want %d:\n%s", got, code, p.Output())
	}
	if out := p.Stdout(); out != "" {
		t.Errorf("on standard output: %s", out)
	}
	return strings.Split(strings.TrimSuffix(p.Stderr(), "\n"), "\n")
}

// named fails the test unless each of the names begins what exactly one of the lines says, with
// every one of its words.
func named(t *testing.T, lines []string, wants map[string][]string) {
	t.Helper()
	for name, words := range wants {
		var found []string
		for _, l := range lines {
			if regexp.MustCompile(`\b` + name + `\b`).MatchString(strings.SplitN(l, ": want",
				2)[0]) {
				found = append(found, l)
			}
		}
		if len(found) != 1 {
			t.Errorf("%s is named on %d lines, want 1:\n%s", name, len(found),
				strings.Join(lines, "\n"))
			continue
		}
		for _, w := range words {
			if !strings.Contains(found[0], w) {
				t.Errorf("%q does not say %q", found[0], w)
			}
		}
	}
	if len(lines) != len(wants) {
		t.Errorf("%d lines, want %d:\n%s", len(lines), len(wants), strings.Join(lines, "\n"))
	}
}

func TestNoSettings(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"run"}} {
		named(t, refuses(t, 2, nil, args...), map[string][]string{
			"ROLLCALL_ISDP_URL": {"not set"}, "ROLLCALL_ISDP_CLIENT_ID": {"not set"},
			"ROLLCALL_ISDP_CLIENT_SECRET": {"not set"},
			"ROLLCALL_ISDP_USERNAME":      {"not set"}, "ROLLCALL_ISDP_PASSWORD": {"not set"},
		})
	}
}

func TestUnusableSettings(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-that-nobody-may-see"
	missing := filepath.Join(t.TempDir(), "missing")
	env := map[string]string{
		"ROLLCALL_ISDP_URL":                "https://user:" + secret + "@isdp.example",
		"ROLLCALL_ISDP_CLIENT_ID":          "isdp-1-openapi",
		"ROLLCALL_ISDP_CLIENT_SECRET_FILE": missing,
		"ROLLCALL_ISDP_USERNAME":           "u",
		"ROLLCALL_ISDP_PASSWORD":           secret,
		"ROLLCALL_ISDP_TYPES":              "0,ten",
		"ROLLCALL_TENANT_ID":               "none",
		"ROLLCALL_POLL_INTERVAL":           "5",
		"ROLLCALL_PAGE_SIZE":               "51",
		"ROLLCALL_CONCURRENCY":             "0",
		"ROLLCALL_RATE_LIMIT":              "-1",
		"ROLLCALL_REMOVE_AFTER":            "zero",
		"ROLLCALL_MAX_MISSING":             "1.5",
		"ROLLCALL_NATS_URL":                "nats://rollcall:" + secret + "@ nowhere:4222",
		"ROLLCALL_NATS_MANAGE":             "perhaps",
		"ROLLCALL_EVENTS_MAX_AGE":          "1500ms",
		"ROLLCALL_NATS_MAX_BYTES":          "1GB",
		"ROLLCALL_LEASE_TTL":               "1s",
		"ROLLCALL_HTTP_LISTEN":             "8080",
		"ROLLCALL_LOG_LEVEL":               "loud",
		"ROLLCALL_LOG_FORMAT":              "xml",
	}
	lines := refuses(t, 2, env)
	wants := map[string][]string{}
	for name, value := range env {
		switch name {
		case "ROLLCALL_ISDP_CLIENT_ID", "ROLLCALL_ISDP_USERNAME", "ROLLCALL_ISDP_PASSWORD": // fine
		case "ROLLCALL_ISDP_URL", "ROLLCALL_NATS_URL":
			wants[name] = nil
		default:
			wants[name] = []string{value, "want "}
		}
	}
	named(t, lines, wants)
	for _, l := range lines {
		if strings.Contains(l, secret) {
			t.Errorf("a secret was printed: %s", l)
		}
	}

	// What is sent to the vendor may be in clear on loopback only.
	lines = refuses(t, 2, map[string]string{
		"ROLLCALL_ISDP_URL": "http://isdp.example", "ROLLCALL_ISDP_CLIENT_ID": "i",
		"ROLLCALL_ISDP_CLIENT_SECRET": secret,
		"ROLLCALL_ISDP_USERNAME":      "u", "ROLLCALL_ISDP_PASSWORD": secret,
	})
	named(t, lines, map[string][]string{"ROLLCALL_ISDP_URL": {"https"}})
}

func TestMistypedName(t *testing.T) {
	t.Parallel()
	lines := refuses(t, 2, map[string]string{
		"ROLLCALL_ISDP_URL": "https://isdp.example", "ROLLCALL_ISDP_CLIENT_ID": "i",
		"ROLLCALL_ISDP_CLIENT_SECRET": "s3cret",
		"ROLLCALL_ISDP_USERNAME":      "u", "ROLLCALL_ISDP_PASWORD": "s3cret-mistyped",
	})
	out := strings.Join(lines, "\n")
	if strings.Contains(out, "s3cret") || !strings.Contains(out, "ROLLCALL_ISDP_PASWORD") ||
		!strings.Contains(out, "did you mean ROLLCALL_ISDP_PASSWORD?") {
		t.Error(out)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"nonsense"}, {"run", "extra"}, {"--nonsense"},
		{"demo", "--nonsense"}} {
		lines := refuses(t, 2, nil, args...)
		if out := strings.Join(lines, "\n"); !strings.HasPrefix(out, "rollcall: ") ||
			!strings.Contains(out, args[len(args)-1]) || !strings.Contains(out, "--help") {
			t.Errorf("%q: %s", args, out)
		}
	}
	p := Rollcall(t, nil, "version")
	if code := p.Wait(); code != 0 || p.Stderr() != "" {
		t.Errorf("exit %d: %s", code, p.Stderr())
	}
	if want := regexp.MustCompile(
		`^rollcall \S+\ncommit \S+\ngo1\.\d\S* \w+/\w+\nschema v?1\n$`); !want.MatchString(
		p.Stdout()) {
		t.Errorf("version: %q", p.Stdout())
	}
}

func TestDataDirectory(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	env, _ := Embedded(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("not rollcall's"), 0o600); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(file, "data")
	out := strings.Join(refuses(t, 2,
		Settings(v.Env(), env, map[string]string{"ROLLCALL_DATA_DIR": below})), "\n")
	for _, want := range []string{below, "ROLLCALL_DATA_DIR"} {
		if !strings.Contains(out, want) {
			t.Errorf("a data directory that can't be written: %s", out)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "not rollcall's" {
		t.Errorf("%q, %v", b, err)
	}

	// In use by another one; and, the other way round, the port.
	first := Rollcall(t, Settings(v.Env(), env))
	first.WaitFor("first complete sweep")
	other, _ := Embedded(t)
	for _, c := range []struct {
		name  string
		with  map[string]string
		wants []string
	}{
		{"directory", map[string]string{"ROLLCALL_DATA_DIR": env["ROLLCALL_DATA_DIR"]},
			[]string{"in use by another rollcall", "ROLLCALL_DATA_DIR", env["ROLLCALL_DATA_DIR"]}},
		{"port", map[string]string{"ROLLCALL_NATS_LISTEN": env["ROLLCALL_NATS_LISTEN"]},
			[]string{"ROLLCALL_NATS_LISTEN", env["ROLLCALL_NATS_LISTEN"]}},
	} {
		out := strings.Join(refuses(t, 1, Settings(v.Env(), other, c.with)), "\n")
		for _, want := range c.wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s in use: %s", c.name, out)
			}
		}
	}
	if code, _ := first.Terminate(); code != 0 {
		t.Errorf("the first one: exit %d", code)
	}
	first.NoSecrets(v.Secrets()...)
}

func TestForeignStream(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	server.Start()
	nc := Connect(t, server.URL)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	s, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: Stream,
		Subjects: []string{"orders.>"}, MaxAge: time.Hour, MaxMsgsPerSubject: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "orders.1", []byte("somebody's")); err != nil {
		t.Fatal(err)
	}
	before := s.CachedInfo().Config
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	out := strings.Join(refuses(t, 1,
		Settings(v.Env(), map[string]string{"ROLLCALL_NATS_URL": server.URL})), "\n")
	for _, want := range []string{Stream, "orders.>", "rollcall.log.>", "transform", "republish",
		"discard", "max age", "1h", "per subject", "size limit",
		"atomic", "rollup", "TTL", "direct get", "deny delete"} {
		if !strings.Contains(out, want) {
			t.Errorf("the error does not name %q: %s", want, out)
		}
	}
	for _, right := range []string{"retention is", "sources or a mirror"} {
		if strings.Contains(out, right) {
			t.Errorf("the error names %q, which fits: %s", right, out)
		}
	}
	info, err := s.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, info.Config); d != "" || info.State.Msgs != 1 {
		t.Errorf("the stream has been altered: %d messages, %s", info.State.Msgs, d)
	}
}

// tenantEnv is where rollcall need not ask the vendor whose agents these are.
var tenantEnv = map[string]string{"ROLLCALL_TENANT_ID": "886"}

// healthOf waits for a health message.
func healthOf(t *testing.T, url, state, reason string) {
	t.Helper()
	nc := Connect(t, url)
	wait.Eventually(t, "health "+state+" "+reason, func() bool {
		m, ok := Last(nc, "agent.health.886")
		var h schemas.Health
		return ok && json.Unmarshal([]byte(m.Body), &h) == nil && string(h.State) == state &&
			string(h.Reason) == reason
	})
}

func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		env  map[string]string
	}{{"tenant unknown", nil}, {"tenant known", tenantEnv}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := NewVendor(t, isdpsim.Config{Agents: 5})
			v.SetFault(isdpsim.OnToken(isdpsim.CredentialsRefused()))
			env, url := Embedded(t)
			p := Rollcall(t, Settings(v.Env(), env, c.env))
			wait.Eventually(t, "another try", func() bool { return v.Stats().TokenRequests >= 2 })
			if c.env != nil {
				healthOf(t, url, "failing", "credentials")
			}
			if told := p.Logged("the token call is refused"); len(told) != 1 ||
				told[0].Level() != "ERROR" {
				t.Errorf("told %d times: %v", len(told), told)
			}
			if s := v.Stats(); s.PageRequests > 0 || !p.Running() {
				t.Errorf("%d page requests; running: %t", s.PageRequests, p.Running())
			}
			requests := v.Requests()
			for i, r := range requests[1:] {
				if gap := r.Time.Sub(requests[i].Time); gap < 1900*time.Millisecond {
					t.Errorf("token request %d came %v after the one before", i+2, gap)
				}
			}
			v.SetFault(nil)
			healthOf(t, url, "ok", "")
			if code, _ := p.Terminate(); code != 0 {
				t.Errorf("exit %d", code)
			}
			p.NoSecrets(v.Secrets()...)
		})
	}
}

func TestVendorDownAtStart(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	port := FreePort(t)
	env, url := Embedded(t)
	p := Rollcall(t, Settings(v.Env(), env, tenantEnv,
		map[string]string{"ROLLCALL_ISDP_URL": fmt.Sprintf("http://127.0.0.1:%d", port)}))
	healthOf(t, url, "failing", "unreachable")
	nc := Connect(t, url)
	m, ok := Last(nc, "agent.watermark.886")
	var w map[string]any
	if err := json.Unmarshal([]byte(m.Body), &w); err != nil || !ok || w["sweep"] != 0.0 ||
		w["agents"] != 0.0 || w["online"] != 0.0 || w["startedAt"] != nil || w["nextBy"] == nil {
		t.Errorf("a watermark without any sweep: %s", m.Body)
	}
	// The vendor comes up.
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, v)
	healthOf(t, url, "ok", "")
	if n := len(Roster(t, nc, 886)); n != 5 {
		t.Errorf("%d states", n)
	}
	for _, m := range ReadStream(t, nc, 1, "agent.online.>", "agent.offline.>", "agent.updated.>") {
		if !strings.Contains(m.Body, `"reason":"baseline"`) ||
			strings.Contains(m.Body, "notBefore") {
			t.Errorf("not a baseline: %s", m.Body)
		}
	}
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	p.NoSecrets(v.Secrets()...)
}

func TestTenantMismatch(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 5, TenantID: 887})
	env, _ := Embedded(t)
	out := strings.Join(refuses(t, 2, Settings(v.Env(), env, tenantEnv)), "\n")
	for _, want := range []string{"rollcall: ROLLCALL_TENANT_ID", "886", "887"} {
		if !strings.Contains(out, want) {
			t.Errorf("the error does not say %q: %s", want, out)
		}
	}
	if n := v.Stats().PageRequests; n > 0 {
		t.Errorf("%d pages read", n)
	}
}

func TestBrokerAwayAtStart(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	p := Rollcall(t,
		Settings(v.Env(),
			map[string]string{"ROLLCALL_NATS_URL": strings.Replace(server.URL, "nats://",
				"nats://someone:s3cret-broker@", 1)}))
	p.WaitFor("can't connect to NATS yet")
	p.WaitFor("ROLLCALL_NATS_URL")
	server.Start()
	healthOf(t, server.URL, "ok", "")
	if n := len(Roster(t, Connect(t, server.URL), 886)); n != 5 {
		t.Errorf("%d states", n)
	}
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	p.NoSecrets(append(v.Secrets(), "s3cret-broker")...)

	// A stop while nothing has begun is a good end, too.
	server.Kill()
	p = Rollcall(t, Settings(v.Env(), map[string]string{"ROLLCALL_NATS_URL": server.URL}))
	p.WaitFor("can't connect to NATS yet")
	if code, took := p.Terminate(); code != 0 || took > 5*time.Second {
		t.Errorf("exit %d after %v", code, took)
	}
}

// A reader on the embedded server can do nothing but read.
func TestReadersCannotWrite(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	env, url := Embedded(t)
	p := Rollcall(t, Settings(v.Env(), env))
	healthOf(t, url, "ok", "")
	nc := Connect(t, url)
	live := Record(t, url)
	live.Ready(t)
	for _, subject := range []string{"rollcall.log.online.886.10.1", "agent.online.886.10.1"} {
		if err := nc.Publish(subject, []byte("forged")); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.FlushTimeout(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	m, err := nc.Request("$JS.API.STREAM.PURGE."+Stream, nil, 5*time.Second)
	if err != nil || !strings.Contains(string(m.Data), "403") {
		t.Errorf("a purge: %v, %s", err, m.Data)
	}
	v.SetOnline(isdpsim.FirstID, !isOnline(v, isdpsim.FirstID))
	var last Msg
	wait.Eventually(t, "a real event", func() bool {
		var ok bool
		last, ok = Last(nc, fmt.Sprintf("agent.state.886.%d", isdpsim.FirstID))
		return ok && strings.Contains(last.Body, `"revision":2`)
	})
	for _, m := range append(live.Through(t, last.Seq), ReadStream(t, nc, 1)...) {
		if m.Body == "forged" {
			t.Errorf("a forged message on %s", m.Subject)
		}
	}
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// Secrets may come from files, with a newline at their end.
func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	env, url := Embedded(t)
	settings := Settings(v.Env(), env)
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(v.Env())) {
		if name == "ROLLCALL_ISDP_URL" {
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(settings[name]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		delete(settings, name)
		settings[name+"_FILE"] = path
	}
	p := Rollcall(t, settings)
	healthOf(t, url, "ok", "")
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	p.NoSecrets(v.Secrets()...)
}
