package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).Shutdown"))
}

// output is what has been written, from whichever goroutine. While it is held, writing waits.
type output struct {
	hold sync.Mutex
	mu   sync.Mutex
	buf  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.hold.Lock()
	defer o.hold.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// A log is a stream to write to as rollcall does, as far as readers can tell.
type log struct {
	t  *testing.T
	js jetstream.JetStream
}

func newLog(t *testing.T, nc *nats.Conn) *log {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: schemas.Stream,
		Subjects: []string{"agent.>"}, AllowRollup: true, AllowDirect: true})
	if err != nil {
		t.Fatal(err)
	}
	return &log{t, js}
}

func (l *log) put(subject, body string, rollup bool) uint64 {
	l.t.Helper()
	m := &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{}}
	if rollup {
		m.Header.Set("Nats-Rollup", "sub")
	}
	var seq uint64
	wait.Eventually(l.t, "the stream to take "+subject, func() bool { // it may have to start
		ctx, cancel := context.WithTimeout(l.t.Context(), time.Second)
		defer cancel()
		ack, err := l.js.PublishMsg(ctx, m)
		if err == nil {
			seq = ack.Sequence
		}
		return err == nil
	})
	return seq
}

// commit writes an event, its state, and a watermark.
func (l *log) commit(e *schemas.Event) {
	l.t.Helper()
	body, a := string(e.AppendJSON(nil)), &e.Data.Agent
	l.put(e.Subject(), body, false)
	l.put(schemas.StateSubject(a.TenantID, a.AgentID), body, true)
	l.mark(a.TenantID, 7)
}

func (l *log) mark(tenant int64, sweep uint64) {
	l.t.Helper()
	w := mark(sweep, time.Now().UTC())
	w.TenantID, w.Commit = tenant, schemas.Commit{ID: "x", Messages: 3}
	l.put(schemas.WatermarkSubject(tenant), string(w.AppendJSON(nil)), true)
}

// flip is an agent's next event: it signs in or out.
func flip(e *schemas.Event) *schemas.Event {
	n := *e
	n.Data.Revision++
	n.Data.Reason, n.Data.Online = schemas.Status, !e.Data.Online
	n.Type, n.Data.Agent.OnlineStatus = schemas.Online, 1
	if !n.Data.Online {
		n.Type, n.Data.Agent.OnlineStatus = schemas.Offline, 0
	}
	n.Time = e.Time.Add(time.Second)
	n.Data.PreviousSince, n.Data.Since = e.Data.Since, n.Time
	n.Data.Changes = schemas.Changes(&e.Data.Agent, &n.Data.Agent)
	return &n
}

// watching runs a watch until the test ends; stop ends it before and checks that it ends well.
func watching(t *testing.T, nc *nats.Conn, cfg Config) (out *output, stop func()) {
	t.Helper()
	out = new(output)
	cfg.Out, cfg.Server = out, "nats://127.0.0.1:4222"
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, nc, cfg) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(wait.Patience):
			t.Error("it does not end")
		}
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return out, stop
}

func (o *output) waitFor(t *testing.T, text string) {
	t.Helper()
	wait.Eventually(t, fmt.Sprintf("%q", text), func() bool {
		return strings.Contains(o.String(), text)
	})
}

func TestFollow(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	l := newLog(t, nc)
	a, b := agent(17813, "王建国", "a", "10", time.Hour), agent(17814, "李娜", "b", "2", time.Hour,
		offDuty)
	l.commit(a)
	l.commit(b)
	duty, stop := watching(t, nc, Config{Tenant: 886})
	duty.waitFor(t, "Changes from here on")
	b2 := flip(b)
	l.commit(b2)
	duty.waitFor(t, "online   17814  李娜          was offline for")
	if strings.Contains(duty.String(), "\n17814") {
		t.Errorf("who is off duty is shown:\n%s", duty.String())
	}
	// What is no message of rollcall's is told, and spoils nothing.
	l.put("agent.state.886.17815", "{", true)
	duty.waitFor(t, "BAD")
	l.commit(flip(b2))
	duty.waitFor(t, "offline  17814")
	if strings.Contains(duty.String(), "\x1b") {
		t.Error("an escape sequence reached the output")
	}
	stop()
}

// A lost connection is shown, and what happened meanwhile when it is back: once.
func TestLostAndBack(t *testing.T) {
	dir := t.TempDir()
	url, stop := natstest.Start(t, dir)
	nc := natstest.Connect(t, url)
	l := newLog(t, nc)
	a, b := agent(17813, "王建国", "a", "10", time.Hour), agent(17814, "李娜", "b", "2", time.Hour)
	l.commit(a)
	l.commit(b)
	duty, _ := watching(t, nc, Config{})
	duty.waitFor(t, "Changes from")
	a2 := flip(a)
	l.commit(a2)
	duty.waitFor(t, "offline  17813")
	stop()
	duty.waitFor(t, "LOST     no connection to NATS; trying again")
	stop = natstest.StartAt(t, dir, url)
	a3 := flip(a2)
	l.commit(a3)
	duty.waitFor(t, "BACK     after")
	duty.waitFor(t, "online   17813  王建国        was offline for")
	l.commit(flip(a3))
	wait.Eventually(t, "the second sign-out", func() bool {
		return strings.Count(duty.String(), "offline  17813") == 2
	})
	for what, c := range map[string]struct {
		text string
		n    int
	}{
		"the table":                {"AGENT", 1},
		"changes":                  {" 17813  ", 3},
		"no changes":               {" 17814  ", 0},
		"losses of the connection": {"LOST ", 1},
	} {
		if got := strings.Count(duty.String(), c.text); got != c.n {
			t.Errorf("%s: %d, want %d:\n%s", what, got, c.n, duty.String())
		}
	}
	stop()
}

// A watch that is begun before the daemon waits for it.
func TestEmptyLog(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	l := newLog(t, nc)
	out, _ := watching(t, nc, Config{Live: true, Width: func() int { return 80 }})
	out.waitFor(t, "WAITING  for rollcall to begin")
	l.put("agent.watermark.886", string(mark(0, time.Time{}).AppendJSON(nil)), true)
	out.waitFor(t, "WAITING  for the first complete sweep")
	l.commit(agent(17813, "王建国", "a", "10", time.Hour))
	out.waitFor(t, "52 of 340 agents on duty")
	if strings.Contains(out.String(), "LOST") {
		t.Error(out.String())
	}
}

func TestTenants(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	l := newLog(t, nc)
	l.mark(887, 1)
	l.mark(886, 1)
	for _, c := range []struct {
		tenant int64
		want   string
	}{
		{0, "--tenant: want one of 886, 887, since the stream has several tenants"},
		{888, `--tenant is "888": want a tenant of the stream, which has 886, 887`},
	} {
		err := Run(t.Context(), nc, Config{Tenant: c.tenant, Out: io.Discard})
		if _, ok := errors.AsType[*setting.Error](err); !ok || err.Error() != c.want {
			t.Errorf("tenant %d: %v", c.tenant, err)
		}
	}
	out, _ := watching(t, nc, Config{Tenant: 887})
	out.waitFor(t, "Tenant 887 at ")
	out.waitFor(t, "52 of 340 agents on duty")
}

// importing starts a server with a log in one account, and a reader in another that imports the API
// under a prefix.
func importing(t *testing.T) (url string) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "nats.conf")
	err := os.WriteFile(conf, []byte(`
		accounts {
			LOG {
				jetstream: enabled
				users: [
					{user: log, password: x}
					{user: unprivileged, password: x, permissions: {publish: nothing}}
				]
				exports: [{service: "$JS.API.>", response_type: stream}]
			}
			READER {
				users: [
					{user: reader, password: x, permissions: {
						publish: "$JS.rollcall.API.CONSUMER.>"
					}}
				]
				imports: [{service: {account: LOG, subject: "$JS.API.>"}, to: "$JS.rollcall.API.>"}]
			}
			POOR { users: [{user: poor, password: x}] }
		}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	url, _ = natstest.StartOptions(t, opts)
	return url
}

func as(user, url string) string { return strings.Replace(url, "nats://", "nats://"+user+":x@", 1) }

// The log is found where its API is imported under a prefix, and where it can't be read one line
// says why.
func TestOpen(t *testing.T) {
	url := importing(t)
	nc := natstest.Connect(t, as("log", url))
	notYet := Run(t.Context(), nc, Config{Out: io.Discard, Server: "nats://here"})
	want := "there is no stream AGENT_EVENTS at nats://here: rollcall makes it when it has " +
		"its first token from the vendor: start it, or see its log and rollcall check, " +
		"or set URLs to where it publishes"
	if fmt.Sprint(notYet) != want {
		t.Errorf("no stream: %v", notYet)
	}
	noStream := Run(t.Context(), natstest.Connect(t, as("reader", url)),
		Config{Out: io.Discard, Server: "nats://here"})
	if !strings.Contains(fmt.Sprint(noStream), "there is no stream AGENT_EVENTS at nats://here") {
		t.Errorf("no stream, under a prefix: %v", noStream)
	}
	l := newLog(t, nc)
	e := agent(17813, "王建国", "a", "10", time.Hour)
	l.commit(e)
	out, _ := watching(t, natstest.Connect(t, as("reader", url)), Config{})
	out.waitFor(t, "52 of 340 agents on duty")
	l.commit(flip(e))
	out.waitFor(t, "offline  17813")

	for _, c := range []struct {
		user string
		want []string
	}{
		{"unprivileged", []string{"no permission to read the stream AGENT_EVENTS at nats://here: " +
			"sign in as", `Publish to "$JS.API.CONSUMER.CREATE.AGENT_EVENTS.`}},
		{"poor", []string{"there is no JetStream at nats://here for this user: "}},
	} {
		began := time.Now()
		err := Run(t.Context(), natstest.Connect(t, as(c.user, url)),
			Config{Out: io.Discard, Server: "nats://here"})
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", c.user, err)
			}
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: told after %v only", c.user, took)
		}
	}
}

func TestNoJetStream(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT,
		NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	err = Run(t.Context(), natstest.Connect(t, s.ClientURL()),
		Config{Out: io.Discard, Server: "nats://here"})
	if !strings.Contains(fmt.Sprint(err), "there is no JetStream at nats://here for this user: ") {
		t.Error(err)
	}
}
