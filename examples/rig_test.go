//go:build unix

package examples

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

var (
	chaosFor = flag.Duration("chaos", 0,
		"how long the chaos tests go on, with fresh seeds; 0: a short run with a fixed one")
	chaosSeed = flag.Uint64("chaos.seed", 1, "the seed of a short run")
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait for their processes.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(e2e.Main(m))
}

// An engine is one of the routing examples.
type engine struct {
	program func(t testing.TB) (path string, args []string)
}

var goRouting = engine{func(t testing.TB) (string, []string) {
	return e2e.Built(t,
		"./examples/routing"), nil
}}

// A running engine, at an address and with a file of calls that outlive its process.
type router struct {
	*e2e.Process // the latest

	t           testing.TB
	engine      engine
	nats        string
	addr, calls string
}

func newRouter(t testing.TB, e engine, natsURL string) *router {
	t.Helper()
	r := &router{t: t, engine: e, nats: natsURL, addr: fmt.Sprintf("127.0.0.1:%d", e2e.FreePort(t)),
		calls: filepath.Join(t.TempDir(), "calls.json")}
	r.start()
	return r
}

// start starts the engine, also again after it has ended. It returns when it answers.
func (r *router) start() {
	r.t.Helper()
	path, args := r.engine.program(r.t)
	r.Process = e2e.Start(r.t, path, map[string]string{"NATS_URL": r.nats},
		append(args, "--listen", r.addr, "--calls", r.calls)...)
	wait.Eventually(r.t, "the engine to answer", func() bool {
		if !r.Running() {
			r.t.Fatalf("the engine has ended: exit %d", r.Wait())
		}
		res, err := http.Get("http://" + r.addr + "/agents")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return true
	})
}

// A view is what an engine answers to GET /agents.
type view struct {
	Error  string
	AsOf   time.Time
	Health string
	Agents []onDuty
}

type onDuty struct {
	AgentID  string
	Name     string
	Revision uint64
	Capacity int64
	Calls    int64
}

func (r *router) do(method, path string, into any) (status int) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.addr+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	if len(b) > 0 {
		if err := json.Unmarshal(b, into); err != nil {
			r.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
	return res.StatusCode
}

func (r *router) agents() (v view) {
	r.t.Helper()
	if status := r.do(http.MethodGet, "/agents", &v); status != http.StatusOK {
		r.t.Fatalf("GET /agents: %d %s", status, v.Error)
	}
	return v
}

// call asks for an agent for a call.
func (r *router) call(id string) (status int, agentID, problem string) {
	r.t.Helper()
	var a struct{ AgentID, Error string }
	status = r.do(http.MethodPut, "/calls/"+id, &a)
	return status, a.AgentID, a.Error
}

func (r *router) hangUp(id string) {
	r.t.Helper()
	if status := r.do(http.MethodDelete, "/calls/"+id, nil); status != http.StatusNoContent {
		r.t.Errorf("DELETE /calls/%s: %d", id, status)
	}
}

// dutyOf is what an engine should answer by these states, with these calls: agentId by call.
func dutyOf(t testing.TB, states map[int64]e2e.Msg, calls map[string]string) []onDuty {
	t.Helper()
	var ids []int64
	for id := range states {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	duty := []onDuty{}
	for _, id := range ids {
		// Decoded on its own, not by package schemas.
		var e struct {
			Data struct {
				Revision uint64
				Online   bool
				Agent    struct {
					AgentName, Type string
					Capacity        *int64
				}
			}
		}
		if err := json.Unmarshal([]byte(states[id].Body), &e); err != nil {
			t.Fatalf("the state of agent %d: %v", id, err)
		}
		if !e.Data.Online || e.Data.Agent.Type != "10" {
			continue
		}
		a := onDuty{AgentID: strconv.FormatInt(id, 10), Name: e.Data.Agent.AgentName,
			Revision: e.Data.Revision, Capacity: 1}
		if e.Data.Agent.Capacity != nil {
			a.Capacity = *e.Data.Agent.Capacity
		}
		for _, who := range calls {
			if who == a.AgentID {
				a.Calls++
			}
		}
		duty = append(duty, a)
	}
	return duty
}

// compact is JSON without white space.
func compact(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(s)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const tenant = 886

// large is beyond what a float64 can tell from its neighbours.
const large = 1<<53 + 1
