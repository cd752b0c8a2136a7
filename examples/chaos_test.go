//go:build unix

package examples

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// Whatever is killed and when: once all of it runs again, the engine's roster is the stream's, and
// its calls are those that it has confirmed.
func TestChaos(t *testing.T) { testChaos(t, goRouting) }

func testChaos(t *testing.T, e engine) {
	t.Parallel()
	for name, external := range map[string]bool{"embedded": false, "external": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed, end := *chaosSeed, time.Now().Add(*chaosFor)
			if *chaosFor > 0 {
				seed = uint64(time.Now().UnixNano())
			}
			t.Logf("seed %d: go test ./examples -run '%s' -chaos.seed %[1]d", seed, t.Name())
			w := newWorld(t, e, external, seed)
			for round := 1; ; round++ {
				for _, i := range w.rand.Perm(len(blows)) {
					// In a short run each blow strikes one of the two worlds.
					if b := blows[i]; b.external == external || external && *chaosFor > 0 {
						w.strike(b)
					}
				}
				if !time.Now().Before(end) {
					t.Logf("%d rounds, %d calls", round, w.called)
					return
				}
			}
		})
	}
}

// A world is rollcall demo, NATS, an engine, and what is known of its calls.
type world struct {
	t    *testing.T
	rand *rand.Rand
	env  map[string]string
	dir  string // the embedded server's store
	logs int    // how many logs there have been
	demo *e2e.Process
	nats *e2e.NATSServer // nil: embedded
	url  string
	nc   *nats.Conn
	*router

	known  map[string]string // the calls that the engine has confirmed: agentId by call
	called int
}

func newWorld(t *testing.T, e engine, external bool, seed uint64) *world {
	t.Helper()
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 0)), known: map[string]string{},
		dir: t.TempDir()}
	if external {
		w.nats = e2e.NewNATSServer(t, "")
		w.nats.Start()
		w.url = w.nats.URL
		w.env = e2e.Settings(map[string]string{"ROLLCALL_NATS_URL": w.url})
	} else {
		var embedded map[string]string
		embedded, w.url = e2e.Embedded(t)
		w.env = e2e.Settings(embedded)
	}
	w.env["ROLLCALL_PAGE_SIZE"] = "50"
	w.startDemo()
	w.nc = e2e.Connect(t, w.url)
	w.router = newRouter(t, e, w.url)
	w.settle("the start")
	return w
}

func (w *world) startDemo() {
	w.t.Helper()
	if w.nats == nil {
		w.env["ROLLCALL_DATA_DIR"] = filepath.Join(w.dir, fmt.Sprint(w.logs))
	}
	w.demo = e2e.Rollcall(w.t, w.env, "demo")
}

// anewLog makes rollcall, which must not be running, begin with an empty log.
func (w *world) anewLog() {
	w.logs++
	if w.nats == nil {
		return // startDemo takes another directory
	}
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), wait.Patience)
	defer cancel()
	if err := js.DeleteStream(ctx, e2e.Stream); err != nil &&
		!errors.Is(err, jetstream.ErrStreamNotFound) {
		w.t.Fatalf("delete the stream: %v", err)
	}
}

// A blow is something that is done to the world. Everything runs again when it returns.
type blow struct {
	name     string
	external bool // possible with a nats-server that is a process of its own only
	do       func(w *world)
}

var blows = []blow{
	{"rollcall killed", false, func(w *world) { w.demo.Kill(); w.pause(); w.startDemo() }},
	{"rollcall terminated", false, func(w *world) { w.terminate(w.demo); w.startDemo() }},
	{"the engine killed", false, func(w *world) { w.Kill(); w.pause(); w.start() }},
	{"the engine terminated while rollcall is killed", false, func(w *world) {
		w.terminate(w.Process)
		w.demo.Kill()
		w.start()
		w.pause()
		w.startDemo()
	}},
	{"all killed", false, func(w *world) {
		w.Kill()
		w.demo.Kill()
		w.startDemo()
		w.pause()
		w.start()
	}},
	{"rollcall killed, and another log", false,
		func(w *world) { w.demo.Kill(); w.anewLog(); w.pause(); w.startDemo() }},
	{"rollcall away until the picture is stale", false, func(w *world) {
		w.terminate(w.demo)
		wait.Eventually(w.t, "the engine to refuse", func() bool {
			status, _, _ := w.call("refused")
			w.hangUp("refused")
			return status == 503
		})
		if w.agents().Error == "" {
			w.t.Error("the engine refuses, and does not say why")
		}
		w.startDemo()
	}},
	{"NATS killed", true, func(w *world) { w.nats.Kill(); w.pause(); w.nats.Start() }},
	{"all and NATS killed", true, func(w *world) {
		w.nats.Kill()
		w.Kill()
		w.demo.Kill()
		w.nats.Start()
		w.start()
		w.pause()
		w.startDemo()
	}},
	{"NATS terminated",
		true, func(w *world) { w.terminate(w.nats.Process); w.pause(); w.nats.Start() }},
	{"rollcall and NATS killed, and another log", true, func(w *world) {
		w.nats.Kill()
		w.demo.Kill()
		w.nats.Start()
		wait.Eventually(w.t, "the connection", w.nc.IsConnected)
		w.anewLog()
		w.startDemo()
	}},
}

// pause lets up to half a second pass, as the seed says.
func (w *world) pause() { time.Sleep(time.Duration(w.rand.Int64N(int64(500 * time.Millisecond)))) }

func (w *world) terminate(p *e2e.Process) {
	w.t.Helper()
	if code, _ := p.Terminate(); code != 0 && code != -1 { // -1: before it could listen to signals
		w.t.Errorf("SIGTERM: exit %d", code)
	}
}

func (w *world) strike(b blow) {
	w.t.Helper()
	w.ring()
	w.pause()
	begun := time.Now()
	b.do(w)
	w.settle(b.name)
	w.t.Logf("%s: %v until all is well", b.name, time.Since(begun).Round(time.Millisecond))
}

// ring begins some calls and ends some.
func (w *world) ring() {
	w.t.Helper()
	for id := range w.known {
		if w.rand.IntN(3) == 0 {
			w.hangUp(id)
			delete(w.known, id)
		}
	}
	for range 1 + w.rand.IntN(4) {
		w.called++
		id := fmt.Sprint(w.called)
		switch status, who, problem := w.call(id); status {
		case 201:
			w.known[id] = who
		case 409, 503: // a picture can be stale for a moment on a busy machine
		default:
			w.t.Errorf("PUT /calls/%s: %d %s", id, status, problem)
		}
	}
}

// settle waits until the engine knows what rollcall has published after now, and its roster is the
// stream's.
func (w *world) settle(after string) {
	w.t.Helper()
	now := time.Now()
	wait.Eventually(w.t, "a complete sweep after "+after, func() bool {
		if !w.demo.Running() {
			w.t.Fatalf("after %s rollcall has ended: exit %d", after, w.demo.Wait())
		}
		m, ok := e2e.Last(w.nc, fmt.Sprintf("agent.watermark.%d", tenant))
		var mark struct{ StartedAt time.Time }
		return ok && json.Unmarshal([]byte(m.Body), &mark) == nil && mark.StartedAt.After(now)
	})
	var d string
	deadline := time.Now().Add(wait.Patience)
	for {
		states := e2e.Roster(w.t, w.nc, tenant)
		v := w.agents()
		want := dutyOf(w.t, states, w.known)
		if len(want) == 0 {
			w.t.Fatalf("after %s nobody of %d agents is on duty", after, len(states))
		}
		if d = cmp.Diff(want, v.Agents); d == "" && v.Error == "" && v.AsOf.After(now) {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("after %s: %q as of %v; "+
				"its agents differ from agent.state (-want +got):\n%s",
				after, v.Error, v.AsOf, d)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
