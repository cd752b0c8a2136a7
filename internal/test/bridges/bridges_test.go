//go:build unix

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// engine is the path of the built program, or of what BENTO names: Bento itself, where it is there.
var engine = os.Getenv("BENTO")

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "bridges-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if engine != "" {
			return e2e.Main(m)
		}
		engine = filepath.Join(dir, "bridges")
		if out, err := exec.Command("go", "build", "-o", engine, ".").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return e2e.Main(m)
	}())
}

// config is the path of one of the shipped files. Processes run elsewhere.
func config(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../../examples/bridges", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A desk is a tenant, rollcall with the embedded server, and the bridge's consumer there, which a
// reader has made.
type desk struct {
	*e2e.Vendor
	url string
	nc  *nats.Conn
}

func newDesk(t *testing.T, bridge string) *desk {
	t.Helper()
	d := &desk{Vendor: e2e.NewVendor(t, isdpsim.Config{Agents: 60})}
	where, url := e2e.Embedded(t)
	d.url = url
	e2e.Rollcall(t, e2e.Settings(d.Env(), where)).WaitFor("first complete sweep")
	b, err := os.ReadFile(config(t, bridge+"-consumer.json"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := json.Marshal(map[string]any{"stream_name": schemas.Stream,
		"config": json.RawMessage(b)})
	if err != nil {
		t.Fatal(err)
	}
	d.nc = e2e.Connect(t, url)
	m, err := d.nc.Request("$JS.API.CONSUMER.CREATE."+schemas.Stream+"."+bridge, req,
		wait.Patience)
	if err != nil {
		t.Fatal(err)
	}
	var answer server.JSApiConsumerCreateResponse
	if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Error != nil {
		t.Fatalf("%s, %v", m.Data, err)
	}
	return d
}

// bridge starts a bridge.
func (d *desk) bridge(t *testing.T, name string, env map[string]string) *e2e.Process {
	t.Helper()
	env["NATS_URL"] = d.url
	return e2e.Start(t, engine, env, "run", config(t, name+".yaml"))
}

// signIn and signOut let all of these agents sign in or out; who is already, does not.
func (d *desk) signIn(ids ...int64)  { d.set(true, ids) }
func (d *desk) signOut(ids ...int64) { d.set(false, ids) }

func (d *desk) set(online bool, ids []int64) {
	d.Atomically(func() {
		for _, id := range ids {
			d.SetOnline(id, online)
		}
	})
}

// allOnDuty waits until everybody is on duty, as the stream says.
func (d *desk) allOnDuty(t *testing.T) {
	t.Helper()
	wait.Eventually(t, "all to be on duty", func() bool {
		m, _ := e2e.Last(d.nc, "agent.watermark.886")
		var w schemas.Watermark
		return json.Unmarshal([]byte(m.Body), &w) == nil && w.Online == len(d.IDs())
	})
}

// events are the bodies in the stream on these subjects.
func (d *desk) events(t *testing.T, subjects ...string) (bodies []string) {
	t.Helper()
	for _, m := range e2e.ReadStream(t, d.nc, 1, subjects...) {
		bodies = append(bodies, m.Body)
	}
	return bodies
}

// A hook is a server that takes posts, and refuses the first ones.
type hook struct {
	*httptest.Server
	refuse int

	mu    sync.Mutex
	posts []string // that were answered with 200
	keys  []string
	wrong []string
}

func newHook(t *testing.T, refuse int) *hook {
	h := &hook{refuse: refuse}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != schemas.ContentTypeEvent {
		h.wrong = append(h.wrong, r.Method+" "+r.Header.Get("Content-Type"))
	}
	if h.refuse > 0 {
		h.refuse--
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	h.posts, h.keys = append(h.posts, string(b)), append(h.keys, r.Header.Get("Idempotency-Key"))
}

func (h *hook) got() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.posts)
}

// Each sign-out comes, as it stands in the stream and in its order: though the hook refuses at
// first for longer than the bridge tries by itself, and though the bridge is killed in between.
func TestWebhook(t *testing.T) {
	t.Parallel()
	d, h := newDesk(t, "webhook"), newHook(t, 6)
	ids := d.IDs()
	d.signIn(ids...)
	d.allOnDuty(t)
	before := len(d.events(t, "agent.offline.>"))
	where := map[string]string{"WEBHOOK_URL": h.URL}
	bridge := d.bridge(t, "webhook", where)
	d.signOut(ids[:30]...)
	wait.Eventually(t, "the first posts", func() bool { return len(h.got()) > 3 })
	bridge.Kill()
	d.signOut(ids...)
	bridge = d.bridge(t, "webhook", where)
	seen := func() []string { return slices.Compact(h.got()) } // one can come again after the kill
	wait.Eventually(t, "a post for each sign-out", func() bool { return len(seen()) >= len(ids) })
	if code, _ := bridge.Terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, bridge.Output())
	}
	if want := d.events(t, "agent.offline.>")[before:]; !slices.Equal(seen(), want) {
		t.Errorf("posted:\n%s\nwant:\n%s", strings.Join(seen(), "\n"), strings.Join(want, "\n"))
	}
	for i, body := range h.posts {
		var e schemas.Event
		if err := json.Unmarshal([]byte(body), &e); err != nil || e.ID() != h.keys[i] {
			t.Errorf("key %q for event %q, %v", h.keys[i], e.ID(), err)
		}
	}
	if len(h.wrong) > 0 {
		t.Errorf("posted as %q", h.wrong)
	}
}

// The files have a line for each event, as it stands in the stream and in its order, from before
// the consumer was made on and through a restart of the bridge.
func TestFile(t *testing.T) {
	t.Parallel()
	d, dir := newDesk(t, "file"), t.TempDir()
	all := []string{"agent.online.>", "agent.offline.>", "agent.updated.>"}
	lines := func() (lines []string) {
		files, err := filepath.Glob(filepath.Join(dir, "events-*.jsonl")) // by day
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(b)) {
				lines = append(lines, strings.TrimSuffix(line, "\n"))
			}
		}
		return slices.Compact(lines) // one can come again after the kill
	}
	where := map[string]string{"EVENTS_DIR": dir}
	bridge := d.bridge(t, "file", where)
	wait.Eventually(t, "the first lines", func() bool { return len(lines()) > 20 })
	bridge.Kill()
	d.signIn(d.IDs()...)
	d.allOnDuty(t)
	want := d.events(t, all...)
	bridge = d.bridge(t, "file", where)
	wait.Eventually(t, "a line for each event", func() bool { return len(lines()) >= len(want) })
	if code, _ := bridge.Terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, bridge.Output())
	}
	if got := lines(); !slices.Equal(got, want) {
		t.Errorf("written:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
