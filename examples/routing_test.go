//go:build unix

package examples

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestRouting(t *testing.T) { testRouting(t, goRouting) }

// A log is written by rollcall's publisher, as the test says.
type writer struct {
	t     *testing.T
	p     *publisher.Publisher
	sweep uint64
}

func newWriter(t *testing.T, url string) *writer {
	t.Helper()
	p, err := publisher.Open(t.Context(), natstest.Connect(t, url), publisher.Config{
		Tenant: tenant, Instance: "test", Replicas: 1, Manage: true, EventsMaxAge: time.Hour,
		MaxBytes: 64 << 20, LeaseTTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return &writer{t: t, p: p}
}

// commit writes events, and a watermark that says for how long they can be trusted; 0: there has
// been no complete sweep.
func (w *writer) commit(valid time.Duration, events ...schemas.Event) {
	w.t.Helper()
	w.batch(valid, publisher.Batch{Events: events})
}

// overdue writes a watermark that says when the next one had to come, which has passed.
func (w *writer) overdue() {
	w.t.Helper()
	mark := w.mark(time.Hour)
	mark.NextBy = mark.StartedAt.Add(-time.Millisecond)
	w.put(publisher.Batch{Watermark: mark})
}

// mark is the watermark of a complete sweep.
func (w *writer) mark(valid time.Duration) schemas.Watermark {
	w.sweep++
	now := time.Now().UTC().Truncate(time.Millisecond)
	return schemas.Watermark{Sweep: w.sweep, StartedAt: now, CompletedAt: now,
		StaleAfter: now.Add(valid), NextBy: now.Add(time.Hour)}
}

func (w *writer) batch(valid time.Duration, b publisher.Batch) {
	w.t.Helper()
	b.Watermark = w.mark(valid)
	if valid == 0 {
		b.Watermark = schemas.Watermark{InProgress: &schemas.InProgress{Sweep: w.sweep}}
	}
	w.put(b)
}

func (w *writer) put(b publisher.Batch) {
	w.t.Helper()
	err := w.p.Commit(w.t.Context(), b)
	// the commit is in the stream, and so is what the test wrote by other ways
	if errors.Is(err, publisher.ErrTampered) {
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// agent is an event about an agent: typ and capacity may be left out with "" and -1.
func agent(id int64, revision uint64, online bool, typ string, capacity int64) schemas.Event {
	name, kind := fmt.Sprintf("王 <%d>", id), schemas.Updated
	// what the vendor last said, which decides nothing
	a := schemas.Agent{AgentID: id, TenantID: tenant, AgentName: &name, OnlineStatus: 1}
	if typ != "" {
		a.Type = &typ
	}
	if capacity >= 0 {
		a.Capacity = &capacity
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	return schemas.Event{Type: kind, Time: now, Data: schemas.EventData{Revision: revision,
		Reason: schemas.Fields, Online: online, Since: now, Agent: a}}
}

func duty(id int64, revision uint64, capacity, calls int64) onDuty {
	return onDuty{AgentID: fmt.Sprint(id), Name: fmt.Sprintf("王 <%d>", id), Revision: revision,
		Capacity: capacity, Calls: calls}
}

// on waits until the engine shows exactly these agents.
func (r *router) on(problem string, want ...onDuty) {
	r.t.Helper()
	if want == nil {
		want = []onDuty{}
	}
	var got view
	var d string
	deadline := time.Now().Add(wait.Patience)
	for {
		got = r.agents()
		if d = cmp.Diff(want, got.Agents); d == "" && strings.Contains(got.Error, problem) &&
			(got.Error == "") == (problem == "") {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the engine says %q, want %q; its agents (-want +got):\n%s", got.Error,
				problem, d)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// expectCall asks for an agent for a call, and returns whom it got.
func (r *router) expectCall(id string, status int, problem string) string {
	r.t.Helper()
	got, who, why := r.call(id)
	if got != status || !strings.Contains(why, problem) || (why == "") != (problem == "") ||
		(who == "") == (status < 300) {
		r.t.Fatalf("PUT /calls/%s: %d %q %q, want %d %q", id, got, who, why, status, problem)
	}
	return who
}

func testRouting(t *testing.T, e engine) {
	t.Parallel()
	url := fmt.Sprintf("nats://127.0.0.1:%d", e2e.FreePort(t))
	r := newRouter(t, e, url)
	r.on("have not been read")
	r.expectCall("early", 503, "have not been read")

	dir := t.TempDir()
	stop := natstest.StartAt(t, dir, url)
	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, url)
	first := agent(1, 1, true, "10", 2)
	w.commit(0, first)
	r.on("not read the whole listing", duty(1, 1, 2, 0))
	r.expectCall("early", 503, "not read the whole listing")

	odd := agent(large, 7, true, "10", 3)
	odd.Data.Reason = "promoted"
	w.commit(time.Hour, agent(2, 1, true, "10", -1), agent(3, 1, false, "10", 5),
		agent(4, 1, true, "0", 5), agent(5, 1, true, "", 5),
		agent(6, 1, true, "10", 0), odd)
	r.on("", duty(1, 1, 2, 0), duty(2, 1, 1, 0), duty(6, 1, 0, 0), duty(large, 7, 3, 0))

	// Everybody gets what they can take and no more, the least loaded first.
	has, load, capacity := map[string]string{}, map[string]int64{},
		map[string]int64{"1": 2, "2": 1, fmt.Sprint(large): 3}
	for i := range 6 {
		id := fmt.Sprint("room ", i)
		who := r.expectCall(strings.ReplaceAll(id, " ", "%20"), 201, "")
		for other, c := range capacity {
			if load[who]*c > load[other]*capacity[who] {
				t.Errorf("call %d went to agent %s with %v calls", i, who, load)
			}
		}
		has[id] = who
		load[who]++
	}
	r.on("", duty(1, 1, 2, 2), duty(2, 1, 1, 1), duty(6, 1, 0, 0), duty(large, 7, 3, 3))
	r.expectCall("seventh", 409, "nobody is free")
	for id, who := range has {
		if again := r.expectCall(strings.ReplaceAll(id, " ", "%20"), 200, ""); again != who {
			t.Errorf("%s has agent %s, and when asked again %s", id, who, again)
		}
	}
	r.hangUp("room%200")
	r.hangUp("room%200")
	if who := r.expectCall("seventh", 201, ""); who != has["room 0"] {
		t.Errorf("agent %s is free, and %s gets the call", has["room 0"], who)
	}

	// Calls outlive the process, killed or not.
	r.Kill()
	r.start()
	r.on("", duty(1, 1, 2, 2), duty(2, 1, 1, 1), duty(6, 1, 0, 0), duty(large, 7, 3, 3))
	if code, took := r.Terminate(); code != 0 || took > 5*time.Second {
		t.Errorf("SIGTERM: exit %d after %v", code, took)
	}
	r.start()
	r.on("", duty(1, 1, 2, 2), duty(2, 1, 1, 1), duty(6, 1, 0, 0), duty(large, 7, 3, 3))
	r.expectCall("eighth", 409, "nobody is free")

	// Changes, also of the type; somebody who left gets no call.
	w.commit(time.Hour, agent(1, 2, false, "10", 2), agent(4, 2, true, "10", 1),
		agent(6, 2, true, "2", 9))
	r.on("", duty(2, 1, 1, 1), duty(4, 2, 1, 0), duty(large, 7, 3, 3))
	if who := r.expectCall("eighth", 201, ""); who != "4" {
		t.Errorf("agent 4 alone is free, and %s gets the call", who)
	}

	// Health is passed on, and is no reason to stop.
	w.batch(time.Hour, publisher.Batch{Health: &schemas.Health{State: "dreaming",
		Since: time.Now().UTC(), Detail: "of sheep"}})
	wait.Eventually(t, "the health", func() bool { return r.agents().Health == "dreaming" })

	// What can't be used costs its own agent only; fields that nobody knows cost nothing.
	raw := func(subject, body string) {
		if _, err := js.Publish(t.Context(), "rollcall.log."+subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	more := agent(2, 2, true, "10", 1)
	raw("state.886.2", strings.NewReplacer(`"specversion"`, `"mood":{"a":1},"specversion"`,
		`"revision"`, `"shards":[1],"revision"`).Replace(string(more.AppendJSON(nil))))
	v2 := agent(4, 3, true, "10", 9)
	raw("state.886.4", strings.Replace(string(v2.AppendJSON(nil)), "agent-event:v1",
		"agent-event:v2", 1))
	elsewhere := agent(8, 1, true, "10", 9)
	raw("state.886.7", string(elsewhere.AppendJSON(nil)))
	spoilt := agent(9, 1, true, "10", 9)
	raw("state.886.9", string(spoilt.AppendJSON(nil)))
	raw("state.886.9", "{")
	raw("health.886", "")
	r.on("", duty(2, 2, 1, 1), duty(large, 7, 3, 3))

	// Stale: nobody gets a new call. Fresh: they do.
	w.commit(-time.Millisecond)
	r.on("the picture is stale", duty(2, 2, 1, 1), duty(large, 7, 3, 3))
	r.expectCall("ninth", 503, "the picture is stale")
	r.expectCall("eighth", 200, "")
	w.commit(time.Hour)
	r.on("", duty(2, 2, 1, 1), duty(large, 7, 3, 3))
	w.overdue() // the sweep is not, the next watermark is
	r.on("the picture is stale", duty(2, 2, 1, 1), duty(large, 7, 3, 3))
	w.commit(time.Hour, agent(10, 1, true, "10", 1))
	r.on("", duty(2, 2, 1, 1), duty(10, 1, 1, 0), duty(large, 7, 3, 3))

	// The consumer is lost.
	s, err := js.Stream(t.Context(), schemas.Stream)
	if err != nil {
		t.Fatal(err)
	}
	for name := range s.ConsumerNames(t.Context()).Name() {
		if err := s.DeleteConsumer(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	w.commit(time.Hour, agent(10, 2, true, "10", 2))
	r.on("", duty(2, 2, 1, 1), duty(10, 2, 2, 0), duty(large, 7, 3, 3))

	// The server is restarted; then it comes back with a new stream, and lower sequences.
	stop()
	stop = natstest.StartAt(t, dir, url)
	w.commit(time.Hour, agent(10, 3, true, "10", 3))
	r.on("", duty(2, 2, 1, 1), duty(10, 3, 3, 0), duty(large, 7, 3, 3))
	stop()
	natstest.StartAt(t, t.TempDir(), url)
	newWriter(t, url).commit(time.Hour, agent(10, 1, true, "10", 4))
	r.on("", duty(10, 1, 4, 0))

	r.Signal(syscall.SIGINT)
	if code := r.Wait(); code != 0 {
		t.Errorf("SIGINT: exit %d", code)
	}
}

// A file of calls that can't be read is not overwritten.
func testRoutingCallsUnreadable(t *testing.T, e engine) {
	t.Parallel()
	path, args := e.program(t)
	p := e2e.Start(t, path, nil, append(args, "--listen", "127.0.0.1:0", "--calls", t.TempDir())...)
	if code := p.Wait(); code == 0 {
		t.Error("exit 0")
	}
	if !strings.Contains(p.Stderr(), "read the calls from") {
		t.Errorf("wrote %q", p.Stderr())
	}
}

func TestRoutingCallsUnreadable(t *testing.T) { testRoutingCallsUnreadable(t, goRouting) }
