//go:build unix

package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

func TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }

// demo starts the demo on a port that no other takes when it is gone, and says where its log is.
func demo(t *testing.T) (p *e2e.Process, url string) {
	t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", e2e.FreePort(t))
	p = e2e.Rollcall(t, map[string]string{"TMPDIR": t.TempDir(), "ROLLCALL_NATS_LISTEN": listen},
		"demo")
	p.WaitFor("Changes from here on")
	return p, "nats://" + listen
}

func on(url string) map[string]string { return map[string]string{"ROLLCALL_NATS_URL": url} }

var (
	summaryLine = regexp.MustCompile(`(?m)^(\d+) of (\d+) agents on duty, ` +
		`as of \d\d:\d\d:\d\d \(\d+s ago\)$`)
	dutyLine = regexp.MustCompile(`(?m)^\d{5}  \S+ +\d+s  ` +
		`(video call|safety|quality|patrol) +\d+  \S+ +\d\d:\d\d:\d\d  \S+$`)
	changeLine = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  (online |offline|updated)  ` +
		`\d{5}  \S+ +\S.*$`)
)

func TestWatchDemo(t *testing.T) {
	t.Parallel()
	demo, url := demo(t)

	// Piped: the state, then changes.
	p := e2e.Rollcall(t, on(url), "watch", "--tenant", "886")
	other := e2e.Rollcall(t, on(url), "watch")
	p.WaitFor("Changes from here on")
	other.WaitFor("Changes from here on")
	wait.Eventually(t, "changes", func() bool {
		return len(changeLine.FindAllString(p.Stdout(), -1)) >= 2
	})
	m := summaryLine.FindStringSubmatch(p.Stdout())
	if m == nil {
		t.Fatalf("no summary:\n%s", p.Stdout())
	}
	onDuty, _ := strconv.Atoi(m[1])
	if rows := len(dutyLine.FindAllString(p.Stdout(), -1)); rows != onDuty || rows < 50 {
		t.Errorf("%d rows as they should look, %s of %s on duty", rows, m[1], m[2])
	}
	for _, w := range []*e2e.Process{p, other} {
		if strings.Contains(w.Output(), "\x1b") || strings.Contains(w.Output(), "\r") {
			t.Errorf("something for a terminal was written to a pipe: %q", w.Output())
		}
	}
	// Those of a type, as many as the whole table has of it.
	patrol := e2e.Rollcall(t, on(url), "watch", "--type", "巡检")
	patrol.WaitFor("Changes from here on")
	m = summaryLine.FindStringSubmatch(patrol.Stdout())
	rows := dutyLine.FindAllStringSubmatch(patrol.Stdout(), -1)
	if m == nil || m[1] != strconv.Itoa(len(rows)) || len(rows) == 0 ||
		slices.ContainsFunc(rows, func(row []string) bool { return row[1] != "patrol" }) {
		t.Errorf("patrol: %v, %d rows:\n%s", m, len(rows), patrol.Stdout())
	}
	nobody := e2e.Rollcall(t, on(url), "watch", "--type", "VIP")
	if code := nobody.Wait(); code != 2 || !strings.Contains(nobody.Stderr(),
		`rollcall: --type is "VIP": want a name, or a type that an agent has: the stream has `) {
		t.Errorf("a type that nobody has: exit %d: %s", code, nobody.Output())
	}
	if code, took := p.Terminate(); code != 0 || p.Stderr() != "" || took > 3*time.Second {
		t.Errorf("SIGTERM: exit %d after %v: %s", code, took, p.Stderr())
	}

	// A stream that goes away.
	demo.Kill()
	other.WaitFor("LOST     no connection to NATS; trying again")
	other.WaitFor("STALE")
	if code, took := other.Interrupt(); code != 0 || other.Stderr() != "" || took > 3*time.Second {
		t.Errorf("SIGINT: exit %d after %v: %s", code, took, other.Stderr())
	}
}

// Who reads the first lines only ends the watch, quietly; who stops reading does not keep it from
// ending.
func TestWatchPipe(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 3000}) // a table that is larger than a pipe
	env, url := e2e.Embedded(t)
	p := e2e.Rollcall(t, e2e.Settings(v.Env(), env))
	p.WaitFor("first complete sweep")
	for _, reads := range []bool{true, false} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd := exec.Command(e2e.Binary(t), "watch")
		cmd.Env = []string{"ROLLCALL_NATS_URL=" + url}
		cmd.Stdout, cmd.Stderr = w, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if _, err := r.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if reads {
			_ = r.Close()
			v.SetOnline(isdpsim.FirstID, !onDuty(v)) // something to write
		} else {
			time.AfterFunc(100*time.Millisecond, func() { _ = cmd.Process.Signal(os.Interrupt) })
		}
		err = cmd.Wait()
		_ = r.Close()
		if err != nil || stderr.String() != "" {
			t.Errorf("pipe closed %t: %v: %s", reads, err, stderr.String())
		}
	}
}

func onDuty(v *e2e.Vendor) bool {
	row, _ := v.Agent(isdpsim.FirstID)
	return bytes.Contains(row, []byte(`"onlineStatus":1`))
}

// What rollcall goes through shows, and what comes back.
func TestWatchTroubles(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 20})
	v.Edit(isdpsim.FirstID, isdpsim.Fields{"agentName": `"\u001b[2J王\n建国\u202e"`,
		"onlineStatus": "1"})
	env, url := e2e.Embedded(t)
	settings := e2e.Settings(v.Env(), env)
	p := e2e.Rollcall(t, settings)
	p.WaitFor("first complete sweep")
	// Where the embedded server is follows from its own setting.
	w := e2e.Rollcall(t, map[string]string{"ROLLCALL_NATS_LISTEN": env["ROLLCALL_NATS_LISTEN"]},
		"watch")
	w.WaitFor("Tenant 886 at " + url + "\n")
	w.WaitFor(`\x1b[2J王\n建国\u202e`)
	w.WaitFor("Changes from here on")

	v.SetFault(isdpsim.OnAgents(isdpsim.Status(500)))
	w.WaitFor("FAILING  unreachable")
	w.WaitFor("STALE    as of ")
	v.SetFault(nil)
	w.WaitFor("OK       ")
	w.WaitFor("FRESH    as of ")

	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	w.WaitFor("LOST     no connection to NATS; trying again")
	v.SetOnline(isdpsim.FirstID, false)
	e2e.Rollcall(t, settings).WaitFor("took over the stream")
	w.WaitFor("BACK     after ")
	wait.Eventually(t, "the change", func() bool {
		return regexp.MustCompile(`offline  17813 .*was online`).MatchString(w.Stdout())
	})
	if code, _ := w.Interrupt(); code != 0 || w.Stderr() != "" ||
		strings.Contains(w.Stdout(), "\x1b") {
		t.Errorf("exit %d: %s", code, w.Output())
	}
}

// A context of the nats command line says all that is needed to sign in, whatever the settings say.
func TestContext(t *testing.T) {
	t.Parallel()
	at, _ := natstest.StartOptions(t, &server.Options{Users: []*server.User{
		{Username: "desk", Password: "s3/cret", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"_DESK.>"}}}},
		{Username: "rollcall", Password: "other"}}})
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 3})
	daemon := e2e.Settings(v.Env(), on(strings.Replace(at, "://", "://rollcall:other@", 1)))
	e2e.Rollcall(t, daemon).WaitFor("first complete sweep")

	home := t.TempDir()
	contexts := filepath.Join(home, "nats", "context")
	if err := os.MkdirAll(contexts, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"desk": `{"url": "` + at + `", "user": "desk", "password": "s3/cret",
			"inbox_prefix": "_DESK"}`,
		"bare": `{"url": "` + strings.TrimPrefix(at, "nats://") + `", "user": "desk",
			"password": "s3/cret", "inbox_prefix": "_DESK"}`,
		"typo":   `{"url": "nats://desk:wr0ng/x@` + strings.TrimPrefix(at, "nats://") + `"}`,
		"away":   `{"url": "nats://127.0.0.1:1"}`,
		"locked": `{"url": "` + at + `", "user": "desk", "password": "wr0ng"}`,
		"socks":  `{"url": "` + at + `", "socks_proxy": "socks5://127.0.0.1:1"}`,
		"spoilt": `{"url"`,
		"sealed": `{"url": "` + at + `", "nkey": "/missing.nk"}`,
	} {
		file := filepath.Join(contexts, name+".json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := maps.Clone(daemon)
	maps.Copy(env, map[string]string{"XDG_CONFIG_HOME": home,
		"ROLLCALL_NATS_URL": "nats://127.0.0.1:1", "ROLLCALL_NATS_NKEY_FILE": "/missing"})
	for _, name := range []string{"desk", "bare", filepath.Join(contexts, "desk.json")} {
		w := e2e.Rollcall(t, env, "watch", "--context", name)
		w.WaitFor("Changes from here on")
		w.NoSecrets("s3/cret", "s3%2Fcret")
		w.Kill()
	}
	c := e2e.Rollcall(t, env, "check", "--context", "desk")
	c.Wait()
	if !strings.Contains(c.Stdout(), "ok    nats") {
		t.Error("check does not reach NATS")
	}
	c.NoSecrets("s3/cret", "s3%2Fcret")

	for name, want := range map[string]string{
		"desks":  `unknown context "desks"`,
		"spoilt": "unexpected end of JSON input",
		"socks":  "rollcall can't use socks_proxy",
		"sealed": "/missing.nk",
		"typo":   "its url is not one of NATS servers",
		"away":   "is the url in the context away right?",
		"locked": "Authorization Violation",
	} {
		p := e2e.Rollcall(t, env, "watch", "--context", name)
		code, said := p.Wait(), p.Stderr()
		failed := 2
		if name == "locked" || name == "away" {
			failed = 1
		}
		if code != failed || !strings.Contains(said, want) || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: exit %d: %s", name, code, said)
		}
		p.NoSecrets("wr0ng")
	}
}

func TestWatchBadInput(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	locked, _ := natstest.StartOptions(t, &server.Options{Username: "somebody", Password: "s3cret"})
	nobody := fmt.Sprintf("127.0.0.1:%d", e2e.FreePort(t))
	missing := t.TempDir() + "/missing"
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		want []string // lines
	}{
		{"no server", on("nats://u:s3cret@" + nobody), nil, 1,
			[]string{"no NATS server at nats://" + nobody +
				": is it running, and is ROLLCALL_NATS_URL right?"}},
		{"no embedded server", map[string]string{"ROLLCALL_NATS_LISTEN": nobody}, nil, 1,
			[]string{"no NATS server at nats://" + nobody +
				" (ROLLCALL_NATS_LISTEN): is rollcall, or rollcall demo, " +
				"running on this machine? " +
				"For a server of your own, set ROLLCALL_NATS_URL"}},
		{"any port", map[string]string{"ROLLCALL_NATS_LISTEN": "127.0.0.1:0"}, nil, 2,
			[]string{`ROLLCALL_NATS_LISTEN is "127.0.0.1:0": ` +
				`want the port that the embedded server listens on, or ROLLCALL_NATS_URL: ` +
				`any port will not do to find it`}},
		{"no stream", on(url), nil, 1,
			[]string{"there is no stream AGENT_EVENTS at " + url +
				": rollcall makes it when it has its first token from the vendor: start it, or " +
				"see its log and rollcall check, or set ROLLCALL_NATS_URL to where it publishes"}},
		{"wrong password", on(strings.Replace(locked, "nats://", "nats://somebody:wr0ng@", 1)),
			nil, 1,
			[]string{"connect to NATS at " + locked +
				": nats: Authorization Violation: check ROLLCALL_NATS_CREDS_FILE, " +
				"ROLLCALL_NATS_NKEY_FILE or the user in ROLLCALL_NATS_URL"}},
		{"flags", on(url), []string{"--tenant", "x"}, 2, []string{
			`--tenant is "x": want a whole number`}},
		{"unknown flag", on(url), []string{"--follow"}, 2,
			[]string{"rollcall watch has no flag --follow: see rollcall watch --help"}},
		{"an argument", on(url), []string{"886"}, 2,
			[]string{`rollcall watch takes no argument such as "886": see rollcall watch --help`}},
		{"settings", map[string]string{"ROLLCALL_NATS_URL": url,
			"ROLLCALL_NATS_CREDS_FILE": missing}, nil, 2,
			[]string{`ROLLCALL_NATS_CREDS_FILE is "` + missing +
				`": want the path of a readable .creds file (no such file or directory)`}},
	} {
		p := e2e.Rollcall(t, c.env, append([]string{"watch"}, c.args...)...)
		code := p.Wait()
		want := ""
		for _, l := range c.want {
			want += "rollcall: " + l + "\n"
		}
		if code != c.code || p.Stderr() != want || p.Stdout() != "" {
			t.Errorf("%s: exit %d, want %d:\n%swant\n%s%s", c.name, code, c.code, p.Stderr(), want,
				p.Stdout())
		}
		p.NoSecrets("s3cret", "wr0ng")
	}
}
