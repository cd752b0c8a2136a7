//go:build ci && unix

package readertools

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// jsPackage is the package for JavaScript and TypeScript.
const jsPackage = "../../../schemas/js"

var update = flag.Bool("update", false, "write what the tests would compare with")

// modules installs the scripts, what package-lock.json says, and jsPackage as it is packed, once,
// in a directory of their own: nothing of it belongs among the sources.
var modules = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp(toolDir, "npm-"); err != nil {
		return "", err
	}
	for _, pattern := range []string{"*.mjs", "*.ts", "package*.json", ".npmrc"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			return "", fmt.Errorf("no %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
				return "", err
			}
		}
	}
	pack, err := filepath.Abs(jsPackage)
	if err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"ci"}, {"pack", pack}, {"install", "--no-save", "./rollcall-schemas-1.0.0.tgz"},
	} {
		cmd := exec.Command("npm", append(args, "--loglevel=error")...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("npm %s (it takes Node 20 or later, npm and its registry): "+
				"%w\n%s", args, err, out)
		}
	}
	return dir, nil
})

// natsCLI builds the nats command line that the README names.
var natsCLI = sync.OnceValues(func() (path string, err error) {
	readme, err := readmeText()
	if err != nil {
		return "", err
	}
	pkg := regexp.MustCompile(`github\.com/nats-io/natscli/nats@v[0-9.]+`).FindString(readme)
	if pkg == "" {
		return "", fmt.Errorf("the README names no version of the nats command line")
	}
	dir, err := os.MkdirTemp(toolDir, "natscli-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "install", pkg)
	cmd.Dir = dir // outside the module, whose versions are not its
	cmd.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s (it takes the Go module proxy): %w\n%s", pkg, err, out)
	}
	return filepath.Join(dir, "nats"), nil
})

func readmeText() (string, error) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "README.md"))
	return string(b), err
}

func tool(t *testing.T, get func() (string, error)) string {
	t.Helper()
	path, err := get()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// node runs one of the scripts to its end and returns what it has printed.
func node(t *testing.T, stdin []byte, script string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{script}, args...)...)
	cmd.Dir = tool(t, modules)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node %s: %v\n%s", script, err, stderr.String())
	}
	return string(out)
}

// printed writes what `rollcall schema` prints to a file.
func printed(t *testing.T, name string) string {
	t.Helper()
	p := e2e.Rollcall(t, nil, "schema", name)
	if code := p.Wait(); code != 0 || p.Stderr() != "" {
		t.Fatalf("rollcall schema %s: exit %d, %s", name, code, p.Stderr())
	}
	path := filepath.Join(t.TempDir(), name+".json")
	if err := os.WriteFile(path, []byte(p.Stdout()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The package's types are those of the schemas, and a consumer can be written with them.
func TestTypeScript(t *testing.T) {
	t.Parallel()
	run := func(name string, args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), "./node_modules/.bin/"+name, args...)
		cmd.Dir = tool(t, modules)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return out
	}
	for _, kind := range documents {
		file := filepath.Join(jsPackage, kind+".d.ts")
		want := run("json2ts", "-i", printed(t, kind))
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("the types of the schema (-) and in %s (+); -update writes them:\n%s", file, d)
		}
	}
	run("tsc", "--noEmit", "--strict", "--noUnusedLocals", "--skipLibCheck", "--target", "es2022",
		"--module", "nodenext", "use.ts")
}

func TestAsyncAPIParser(t *testing.T) {
	t.Parallel()
	good := printed(t, "asyncapi")
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, bytes.Replace(text,
		[]byte(`"address": "agent.watermark.{tenantId}"`),
		[]byte(`"address": "agent.watermark.{tenant}"`), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	type verdict struct {
		Diagnostics []struct {
			Code, Message, Path string
			Severity            int // 0 error, 1 warning, 2 information, 3 hint
		}
		Addresses []string
	}
	var verdicts []verdict
	for line := range strings.Lines(node(t, nil, "asyncapi.mjs", good, bad)) {
		var v verdict
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		verdicts = append(verdicts, v)
	}
	if len(verdicts) != 2 {
		t.Fatalf("%d verdicts", len(verdicts))
	}
	for _, d := range verdicts[0].Diagnostics {
		if d.Severity <= 1 {
			t.Errorf("%s at %s: %s", d.Code, d.Path, d.Message)
		}
	}
	want := []string{
		"agent.online.{tenantId}.{type}.{agentId}", "agent.offline.{tenantId}.{type}.{agentId}",
		"agent.updated.{tenantId}.{type}.{agentId}",
		"agent.state.{tenantId}.{agentId}", "agent.watermark.{tenantId}", "agent.health.{tenantId}",
		"agent.unobserved.{tenantId}", "agent.stale.{tenantId}",
		"rollcall.query.{tenantId}.roster", "rollcall.query.{tenantId}.agent",
		"rollcall.query.{tenantId}.counts",
	}
	if d := cmp.Diff(want, verdicts[0].Addresses); d != "" {
		t.Error(d)
	}
	if !slices.ContainsFunc(verdicts[1].Diagnostics, func(d struct {
		Code, Message, Path string
		Severity            int
	}) bool {
		return d.Severity == 0
	}) {
		t.Errorf("a parameter that is not defined passes: %v", verdicts[1].Diagnostics)
	}
}

// documents are the kinds of messages that have a schema.
var documents = []string{"event", "watermark", "health", "unobserved"}

// What Ajv says of a run's messages, and of some that are spoilt.
func ajv(t *testing.T, msgs []e2e.Msg) {
	t.Helper()
	var files []string
	for _, name := range documents {
		files = append(files, printed(t, name))
	}
	lines := func(spoil func(string) string) []byte {
		var in bytes.Buffer
		for _, m := range msgs {
			line, err := json.Marshal(map[string]any{
				"schema": max(0, slices.Index(documents, m.Tokens()[1])), "body": spoil(m.Body)})
			if err != nil {
				t.Fatal(err)
			}
			in.Write(append(line, '\n'))
		}
		return in.Bytes()
	}
	want := fmt.Sprintf("%d messages\n", len(msgs))
	if out := node(t, lines(func(s string) string {
		return s
	}), "validate.mjs", files...); out != want {
		t.Errorf("Ajv says: %s", out)
	}
	tenants := regexp.MustCompile(`"tenantId":\d+`)
	out := node(t, lines(func(s string) string {
		return tenants.ReplaceAllString(s, `"tenantId":"886"`)
	}), "validate.mjs", files...)
	if n := strings.Count(out, "tenantId must be integer"); n != len(msgs) {
		t.Errorf("of %d spoilt messages Ajv refuses %d", len(msgs), n)
	}
}

// A jsMsg is a message as a script prints it.
type jsMsg struct {
	Ready              bool
	Way, Subject, Body string
	Agent, ID          string // as JavaScript has them after JSON.parse
	Seq                uint64
	Headers            map[string][]string
}

func TestJavaScript(t *testing.T) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		env, url := e2e.Embedded(t)
		javaScript(t, newWorld(t, env, url))
	})
	t.Run("external", func(t *testing.T) {
		t.Parallel()
		server := e2e.NewNATSServer(t, "")
		server.Start()
		javaScript(t, newWorld(t, map[string]string{"ROLLCALL_NATS_URL": server.URL}, server.URL))
	})
}

func javaScript(t *testing.T, w *world) {
	t.Helper()
	dir := tool(t, modules)
	cmd := exec.CommandContext(t.Context(), "node", "read.mjs", w.url, strconv.Itoa(tenant))
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ways := make(map[string][]jsMsg)
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m jsMsg
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		if m.Ready {
			w.vendor.SetOnline(w.vendor.IDs()[1], true)
			continue
		}
		ways[m.Way] = append(ways[m.Way], m)
	}
	if err := cmd.Wait(); err != nil || lines.Err() != nil {
		t.Fatalf("node read.mjs: %v, %v\n%s", err, lines.Err(), stderr.String())
	}

	all := w.messages()
	ajv(t, all)
	known := bySequence(all)
	for way, msgs := range ways {
		for _, m := range msgs {
			k, ok := known[m.Seq]
			if !ok {
				t.Errorf("%s: sequence %d is unknown", way, m.Seq)
				continue
			}
			want := k.Header
			if way != "live" {
				want = stored(want)
			}
			if d := cmp.Diff(map[string][]string(want), m.Headers); m.Subject != k.Subject ||
				m.Body != k.Body || d != "" {
				t.Errorf("%s: sequence %d, %s is\n%s, want %s\n%s\nheaders (-want +got):\n%s", way,
					m.Seq, m.Subject, m.Body, k.Subject, k.Body, d)
			}
			tokens := k.Tokens()
			if kind := tokens[1]; kind != "watermark" && kind != "health" &&
				(m.Agent != tokens[len(tokens)-1] ||
					!strings.HasPrefix(m.ID, tokens[2]+"-"+m.Agent+"-")) {
				t.Errorf("%s: sequence %d, %s: subject %q, id %q", way, m.Seq, m.Subject, m.Agent,
					m.ID)
			}
		}
	}

	// Live: everything from the first to the last.
	live := ways["live"]
	for i := range live {
		if live[i].Seq != live[0].Seq+uint64(i) {
			t.Errorf("live: sequence %d after %d", live[i].Seq, live[i-1].Seq)
		}
	}
	// State and follow: each subject's last, and one of every agent.
	last := make(map[string]uint64)
	for _, m := range ways["latest"] {
		last[m.Subject] = m.Seq
	}
	for id, m := range e2e.Roster(t, w.nc, tenant) {
		if last[m.Subject] != m.Seq {
			t.Errorf("agent %d: state of sequence %d, want %d", id, last[m.Subject], m.Seq)
		}
	}
	for _, subject := range []string{schemas.WatermarkSubject(tenant),
		schemas.HealthSubject(tenant)} {
		if last[subject] == 0 {
			t.Errorf("no %s", subject)
		}
	}
	// Every event, once, in order.
	var want, got []uint64
	for _, m := range all {
		if m.IsEvent() {
			want = append(want, m.Seq)
		}
	}
	for _, m := range ways["events"] {
		got = append(got, m.Seq)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	t.Logf("live %d, latest %d, events %d messages; the stream had %d", len(live),
		len(ways["latest"]),
		len(got), len(all))
}

// stored leaves out the headers that only plain subscribers get.
func stored(h map[string][]string) map[string][]string {
	s := make(map[string][]string)
	for name, values := range h {
		switch name {
		case "Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp",
			"Nats-Last-Sequence":
		default:
			s[name] = values
		}
	}
	return s
}

var (
	cliCommand = regexp.MustCompile(
		`(?m)^    go run github\.com/nats-io/natscli/nats@\S+ -s (nats://\S+) (.*)$`)
	demoURL = regexp.MustCompile(`(?m)^  NATS +(nats://127\.0\.0\.1:\d+) `)
)

// What docs/operations.md has outsiders check, run as it stands there against the demo: good as
// things are, and critical where they are not. What readers may not do is refused in words.
func TestNatsChecks(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	checks := regexp.MustCompile(`(?m)^    nats --nkey reader\.nk (server check .*)$`).
		FindAllStringSubmatch(string(text), -1)
	if len(checks) != 2 {
		t.Fatalf("%d checks in the document", len(checks))
	}
	cli := tool(t, natsCLI)
	p := e2e.Rollcall(t, map[string]string{"TMPDIR": t.TempDir()}, "demo")
	p.WaitFor("agents on duty, as of")
	m := demoURL.FindStringSubmatch(p.Stdout())
	if m == nil {
		t.Fatal("the demo does not say where NATS is")
	}
	run := func(command string, code int, says string) {
		t.Helper()
		sh := e2e.Start(t, "/bin/sh", nil, "-c", "exec "+cli+" -s "+m[1]+" "+command)
		if got := sh.Wait(); got != code || !strings.Contains(sh.Stdout()+sh.Stderr(), says) {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", command, got, code, says, sh.Stdout(),
				sh.Stderr())
		}
	}
	run(checks[0][1], 0, "OK")
	run(strings.Replace(checks[0][1], "--age-critical 15s", "--age-critical 1ns", 1), 2, "old")
	run(checks[1][1], 0, "OK")
	run(strings.Replace(checks[1][1], "ok|holding", "failing", 1), 2, "does not match")
	run("kv get rollcall lease.886", 1, "the bucket rollcall is rollcall's own")
	run("kv put rollcall lease.886 x", 1, "the bucket rollcall is rollcall's own")
	run("kv add mine", 1, "network clients may read the stream and nothing else")
	run("server check connection", 2, "CRITICAL")
}

// Each command that the README shows for the nats command line is run as it stands there against
// the demo.
func TestNatsCommandLine(t *testing.T) {
	t.Parallel()
	readme, err := readmeText()
	if err != nil {
		t.Fatal(err)
	}
	cli := tool(t, natsCLI)
	p := e2e.Rollcall(t, map[string]string{"TMPDIR": t.TempDir()}, "demo")
	p.WaitFor("agents on duty, as of")
	m := demoURL.FindStringSubmatch(p.Stdout())
	if m == nil {
		t.Fatal("the demo does not say where NATS is")
	}
	live, nc := e2e.Record(t, m[1]), e2e.Connect(t, m[1])
	live.Ready(t)
	before := e2e.Roster(t, nc, tenant)

	commands := cliCommand.FindAllStringSubmatch(readme, -1)
	if len(commands) < 3 {
		t.Fatalf("%d commands in the README", len(commands))
	}
	for _, c := range commands {
		t.Run(c[2], func(t *testing.T) {
			sh := e2e.Start(t, "/bin/sh", nil, "-c", "exec "+cli+" -s "+m[1]+" "+c[2])
			follows := strings.HasPrefix(c[2], "sub ")
			want := 1 // messages
			if strings.Contains(c[2], "--last-per-subject") {
				want = len(before)
			}
			if follows {
				wait.Eventually(t, fmt.Sprintf("%d messages", want), func() bool {
					if !sh.Running() {
						t.Fatalf("it has ended: exit %d", sh.Wait())
					}
					return len(bodies(sh.Stdout())) >= want
				})
				sh.Interrupt()
			} else if code := sh.Wait(); code != 0 {
				t.Fatalf("exit %d", code)
			}
			got := bodies(sh.Stdout())
			if len(got) < want {
				t.Fatalf("%d messages, want %d", len(got), want)
			}
			// What Go has read of the same log: the states before, and all that has come since.
			wm, ok := e2e.Last(nc, schemas.WatermarkSubject(tenant))
			if !ok {
				t.Fatal("no watermark")
			}
			known := make(map[string]bool)
			for _, m := range before {
				known[m.Body] = true
			}
			for _, m := range live.Through(t, wm.Seq) {
				known[m.Body] = true
			}
			agents := make(map[string]bool)
			for _, body := range got {
				if !known[body] {
					t.Errorf("nobody else has read %s", body)
				}
				var e schemas.Event
				if err := json.Unmarshal([]byte(body), &e); err != nil {
					t.Errorf("%v: %s", err, body)
				}
				agents[strconv.FormatInt(e.Data.Agent.AgentID, 10)] = true
			}
			if len(agents) < want {
				t.Errorf("messages of %d agents, want %d", len(agents), want)
			}
		})
	}
}

// bodies are the messages of the log in what the command line has printed; whole lines only.
func bodies(out string) []string {
	var found []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, `{"`) && strings.HasSuffix(line, "}\n") {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	return found
}
