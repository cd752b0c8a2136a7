//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/ops"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/metrictest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// A watched replica is one that is seen through its pages.
type watched struct {
	*Process
	t          *testing.T
	pages, ops string           // where it listens: http://127.0.0.1:…
	everything *strings.Builder // that its pages have said
	instance   string
}

// watch starts a replica with pages.
func watch(t *testing.T, instance string, env ...map[string]string) *watched {
	t.Helper()
	return watchAs(t, instance, func(*exec.Cmd) {}, env...)
}

// watchAs is watch of a replica whose command was changed before it was started.
func watchAs(t *testing.T, instance string, change func(*exec.Cmd),
	env ...map[string]string) *watched {
	t.Helper()
	w := &watched{t: t, instance: instance, everything: &strings.Builder{}}
	pages, probes := fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	w.pages, w.ops = "http://"+pages, "http://"+probes
	own := map[string]string{"ROLLCALL_INSTANCE": instance, "ROLLCALL_HTTP_LISTEN": pages,
		"ROLLCALL_OPS_LISTEN": probes}
	w.Process = newProcess(t, Binary(t), Settings(append(env, own)...))
	change(w.p.Cmd)
	w.start()
	wait.Eventually(t, instance+" to live", func() bool {
		code, body := w.get(w.ops+"/healthz", "")
		return code == 200 && body == "ok\n"
	})
	return w
}

// get asks for a page, as the given host; 0: nobody answers.
func (w *watched) get(url, host string) (code int, body string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Host = host
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	w.everything.Write(b)
	return resp.StatusCode, string(b)
}

// until waits for what /readyz says.
func (w *watched) until(what string, ok func(ops.Readiness) bool) ops.Readiness {
	w.t.Helper()
	var r ops.Readiness
	wait.Eventually(w.t, w.instance+": "+what, func() bool {
		r = ops.Readiness{}
		code, body := w.get(w.pages+"/readyz", "")
		if code == 0 || json.Unmarshal([]byte(body), &r) != nil || r.Ready != (code == 200) {
			return false
		}
		return ok(r)
	})
	return r
}

func (w *watched) metrics() metrictest.Series {
	w.t.Helper()
	code, text := w.get(w.ops+"/metrics", "")
	if code != 200 {
		w.t.Fatalf("%s: /metrics answers HTTP %d", w.instance, code)
	}
	return metrictest.Parse(w.t, text)
}

func is(state, reason string) func(ops.Readiness) bool {
	return func(r ops.Readiness) bool {
		return r.Ready && r.Health != nil && r.Health.State == state && r.Health.Reason == reason
	}
}

// What the pages of two replicas say is what happened: as the stream, the vendor and a plain
// subscriber have it.
func TestPages(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	server.Start()
	live := Record(t, server.URL)
	live.Ready(t)
	nc := Connect(t, server.URL)
	v := NewVendor(t, isdpsim.Config{Agents: 60})
	// one row that is rejected every time
	v.Edit(isdpsim.FirstID+10, isdpsim.Fields{"onlineStatus": "null"})
	v.Edit(isdpsim.FirstID+11, isdpsim.Fields{"type": `"99"`})
	v.Edit(isdpsim.FirstID+12, isdpsim.Fields{"capacity": "[]"})
	env := map[string]string{
		"ROLLCALL_NATS_URL": server.URL, "ROLLCALL_POLL_TIMEOUT": "2s",
		"ROLLCALL_REQUEST_TIMEOUT": "1s",
		// so that it is not given up for the vendor's silence below
		"ROLLCALL_LEASE_TTL": "1m",
	}

	a := watch(t, "replica-a", v.Env(), env)
	a.until("healthy", is("ok", ""))
	b := watch(t, "replica-b", v.Env(), env)
	standing := b.until("standing by", func(r ops.Readiness) bool {
		return r.Ready && r.Role == ops.RoleStandby && r.Watermark != nil
	})
	if standing.Leader != "replica-a" || standing.Health.State != "ok" ||
		standing.Tenant != tenant || standing.LastSweep != "" {
		t.Errorf("the standby says %+v", standing)
	}

	// Something of every kind. The test goes on when the stream shows all of it.
	on, off := v.IDs()[20], v.IDs()[21]
	v.Atomically(func() {
		v.SetOnline(on, true)
		v.SetOnline(off, false)
	})
	sweptOnce := func() {
		t.Helper()
		before := a.metrics()[`rollcall_sweeps_total{result="complete",tenant="886"}`]
		wait.Eventually(t, "two more sweeps", func() bool {
			return a.metrics()[`rollcall_sweeps_total{result="complete",tenant="886"}`] >= before+2
		})
	}
	sweptOnce()
	v.Atomically(func() {
		v.SetOnline(on, false)
		v.SetOnline(off, true)
		v.Edit(isdpsim.FirstID, isdpsim.Fields{"areaName": `"elsewhere"`})
		v.Delete(isdpsim.FirstID + 1)
		v.AddAgent()
	})
	sweptOnce()

	// The vendor falls silent: that is its trouble, not rollcall's. Nothing more is committed then.
	release := v.Hold()
	r := a.until("the vendor's trouble", is("failing", "unreachable"))
	wait.Eventually(t, "a sweep that failed", func() bool {
		return a.metrics()[`rollcall_sweeps_total{result="unreachable",tenant="886"}`] >= 1
	})
	if r = a.until("stale", func(r ops.Readiness) bool {
		return r.Watermark.Stale
	}); !r.Ready || r.Role != ops.RoleLeader || r.Leader != "replica-a" ||
		r.LastSweep != "unreachable" {
		t.Errorf("the leader says %+v", r)
	}
	b.until("the same of the stream", func(r ops.Readiness) bool {
		return is("failing", "unreachable")(r) && r.Role == ops.RoleStandby && r.Watermark.Stale
	})
	got := a.metrics()
	want := metrictest.Series{
		`rollcall_leader{tenant="886"}`: 1, "rollcall_nats_connected": 1,
		`rollcall_health{reason="unreachable",state="failing",tenant="886"}`: 1,
		`rollcall_token_refreshes_total{result="ok"}`:                        1,
		`rollcall_requests_total{call="token",result="ok"}`:                  1,
	}
	for _, m := range ReadStream(t, nc, 1, "agent.online.>", "agent.offline.>", "agent.updated.>") {
		var e struct{ Data struct{ Reason string } }
		if err := json.Unmarshal([]byte(m.Body), &e); err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprintf(`rollcall_events_total{reason=%q,tenant="886",type=%q}`, e.Data.Reason,
			m.Tokens()[1])]++
	}
	last, _ := Last(nc, "agent.watermark.886")
	for _, m := range live.Through(t, last.Seq) {
		if strings.HasPrefix(m.Subject, "agent.watermark.") {
			want[`rollcall_commits_total{result="committed",tenant="886"}`]++
		}
	}
	for _, m := range Roster(t, nc, tenant) {
		var e struct {
			Data struct {
				Online bool
				Reason string
				Agent  struct{ Type string }
			}
		}
		if err := json.Unmarshal([]byte(m.Body), &e); err != nil {
			t.Fatal(err)
		}
		if e.Data.Reason == "removed" {
			continue
		}
		kind := e.Data.Agent.Type
		if kind == "99" {
			kind = "other"
		}
		want[fmt.Sprintf(`rollcall_agents{state=%q,tenant="886",type=%q}`,
			map[bool]string{true: "online", false: "offline"}[e.Data.Online], kind)]++
	}
	var w struct{ StartedAt, StaleAfter, NextBy time.Time }
	if err := json.Unmarshal([]byte(last.Body), &w); err != nil {
		t.Fatal(err)
	}
	want[`rollcall_watermark_started_timestamp_seconds{tenant="886"}`] = float64(
		w.StartedAt.UnixMilli()) / 1000
	want[`rollcall_watermark_stale_after_timestamp_seconds{tenant="886"}`] = float64(
		w.StaleAfter.UnixMilli()) / 1000
	want[`rollcall_watermark_next_by_timestamp_seconds{tenant="886"}`] = float64(
		w.NextBy.UnixMilli()) / 1000
	pages := float64(v.Stats().PageRequests) // those that are held are not yet among them
	want[`rollcall_requests_total{call="page",result="ok"}`] = pages
	want["rollcall_pages_total"] = pages
	sweeps := got[`rollcall_sweeps_total{result="complete",tenant="886"}`]
	rejected := got[`rollcall_rejected_records_total{reason="onlineStatus"}`]
	if rejected < sweeps || rejected > pages || got["rollcall_dropped_values_total"] < sweeps {
		t.Errorf("%v sweeps, %v pages, but %v records rejected and %v values dropped", sweeps,
			pages, rejected, got["rollcall_dropped_values_total"])
	}
	compared := got.Of("rollcall_leader", "rollcall_nats", "rollcall_health", "rollcall_token",
		"rollcall_events", "rollcall_commits",
		"rollcall_agents", "rollcall_watermark", "rollcall_pages", "rollcall_dropped_changes",
		"rollcall_folded", "rollcall_pending").Some()
	for series, n := range got.Of(`rollcall_requests_total{call="token"`,
		`rollcall_requests_total{call="page",result="ok"`).Some() {
		compared[series] = n
	}
	if d := cmp.Diff(want, compared); d != "" {
		t.Errorf("-what happened, +what the metrics say:\n%s", d)
	}
	for series, n := range b.metrics().Of("rollcall_leader", "rollcall_agents", "rollcall_health",
		"rollcall_watermark", "rollcall_events", "rollcall_sweeps") {
		if n != 0 {
			t.Errorf("the standby says %s %v", series, n)
		}
	}
	release()
	a.until("healthy again", is("ok", ""))

	// Who may see what.
	for _, c := range []struct {
		url, host string
		code      int
	}{
		{a.pages + "/", "", 200}, {a.pages + "/metrics", "localhost", 200},
		{a.pages + "/readyz", "evil.example", 403},
		{a.pages + "/debug/pprof/", "", 200}, // the tests run at level debug
		{a.ops + "/readyz", "10.1.2.3:9090", 200}, {a.ops + "/metrics", "rollcall.example", 200},
		{a.ops + "/", "", 404}, {a.ops + "/debug/pprof/", "", 404},
	} {
		if code, body := a.get(c.url, c.host); code != c.code {
			t.Errorf("%s as %q: HTTP %d, want %d: %.200s", c.url, c.host, code, c.code, body)
		}
	}

	// Somebody alters the stream.
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	stream, err := js.Stream(ctx, Stream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxAge = time.Hour
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*watched{a, b} {
		w.until("a stream that does not fit", func(r ops.Readiness) bool {
			return !r.Ready && r.NATS.OK && strings.Contains(r.Stream.Problem, "max age is 1h")
		})
	}
	cfg.MaxAge = 0
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	a.until("ready again", func(r ops.Readiness) bool { return r.Ready })

	// The broker goes.
	server.Kill()
	for _, w := range []*watched{a, b} {
		w.until("no broker", func(r ops.Readiness) bool {
			return !r.Ready && strings.Contains(r.NATS.Problem, "not connected")
		})
		if n := w.metrics()["rollcall_nats_connected"]; n != 0 {
			t.Errorf("%s is connected to nobody", w.instance)
		}
	}
	if r := a.until("what the loop knows", func(r ops.Readiness) bool {
		return r.Watermark != nil
	}); r.Role != ops.RoleLeader {
		t.Errorf("without a broker the leader is %s", r.Role)
	}
	server.Start()
	a.until("ready again", func(r ops.Readiness) bool { return r.Ready && !r.Watermark.Stale })
	if s := a.metrics(); s["rollcall_nats_connected"] != 1 ||
		s["rollcall_nats_reconnects_total"] < 1 {
		t.Errorf("connected %v, reconnects %v", s["rollcall_nats_connected"],
			s["rollcall_nats_reconnects_total"])
	}
	b.until("ready again", func(r ops.Readiness) bool { return r.Ready })

	// The leader stops.
	if code, took := a.Terminate(); code != 0 || took > 10*time.Second {
		t.Errorf("exit %d after %v", code, took)
	}
	b.until("leading", func(r ops.Readiness) bool {
		return r.Ready && r.Role == ops.RoleLeader && r.Leader == "replica-b" &&
			r.LastSweep == "complete"
	})
	if n := b.metrics()[`rollcall_leader{tenant="886"}`]; n != 1 {
		t.Errorf("the new leader says %v", n)
	}
	if code, _ := b.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}

	said := a.everything.String() + b.everything.String()
	for _, secret := range v.Secrets() {
		if strings.Contains(said, secret) {
			t.Error("a page shows a secret")
		}
	}
	for _, row := range v.Listing() {
		var agent struct{ AgentName, AgentAccount string }
		if err := json.Unmarshal(row.JSON, &agent); err != nil {
			t.Fatal(err)
		}
		for _, person := range []string{agent.AgentName, agent.AgentAccount} {
			if person != "" && strings.Contains(said, person) {
				t.Errorf("a page shows a person: %s", person)
			}
		}
	}
}

// The pages are there before anybody else is, and say what the start waits for.
func TestPagesFirst(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	nobody := map[string]string{
		"ROLLCALL_ISDP_URL": fmt.Sprintf("http://127.0.0.1:%d", FreePort(t)),
		"ROLLCALL_NATS_URL": strings.Replace(server.URL, "nats://", "nats://someone:s3cret-broker@",
			1),
	}
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	w := watch(t, "first", v.Env(), nobody)
	w.until("no NATS", func(r ops.Readiness) bool {
		return !r.Ready && r.Role == ops.RoleStarting && strings.Contains(r.WaitingFor,
			"the connection to NATS: ") && strings.Contains(r.WaitingFor, "ROLLCALL_NATS_URL")
	})
	if s := w.metrics(); s["rollcall_nats_connected"] != 0 ||
		len(s.Of("rollcall_build_info")) != 1 {
		t.Errorf("%v", s)
	}
	server.Start()
	r := w.until("no vendor, which never makes it unready", func(r ops.Readiness) bool {
		return r.Ready && strings.Contains(r.WaitingFor, "the vendor's first token")
	})
	if r.Role != ops.RoleStarting || r.Watermark != nil || r.Health != nil {
		t.Errorf("%+v", r)
	}
	if code, took := w.Terminate(); code != 0 || took > 5*time.Second {
		t.Errorf("exit %d after %v", code, took)
	}
	for _, secret := range append(v.Secrets(), "s3cret-broker") {
		if strings.Contains(w.everything.String(), secret) {
			t.Error("a page shows a secret")
		}
	}
}

// Without the level debug nobody gets a profile, and without listeners nobody gets anything.
func TestPagesOff(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	env, _ := Embedded(t)
	w := watch(t, "quiet", v.Env(), env, map[string]string{"ROLLCALL_LOG_LEVEL": "info"})
	for _, url := range []string{w.pages + "/debug/pprof/", w.pages + "/debug/pprof/cmdline",
		w.ops + "/debug/pprof/"} {
		if code, _ := w.get(url, ""); code != 404 {
			t.Errorf("%s: HTTP %d", url, code)
		}
	}
	w.Kill()
	if code, _ := w.get(w.pages+"/healthz", ""); code != 0 {
		t.Error("somebody else answers there")
	}
}

func TestPagesCannotListen(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().String()
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	for _, c := range []struct {
		name, addr string
		code       int
		words      []string
	}{
		{"ROLLCALL_HTTP_LISTEN", taken, 1, []string{"in use", "free address", "off"}},
		{"ROLLCALL_OPS_LISTEN", taken, 1, []string{"in use", "free address"}},
		{"ROLLCALL_HTTP_LISTEN", "192.0.2.1:8080", 2, []string{"an address of this machine"}},
		{"ROLLCALL_OPS_LISTEN", "192.0.2.1:8080", 2, []string{"an address of this machine"}},
	} {
		env, _ := Embedded(t)
		lines := refuses(t, c.code,
			Settings(v.Env(), env, map[string]string{c.name: c.addr, "ROLLCALL_LOG_LEVEL": "warn"}))
		named(t, lines, map[string][]string{c.name: append(c.words, c.addr)})
	}
	if n := v.Stats().Requests; n > 0 {
		t.Errorf("the vendor was asked %d times", n)
	}
}

// With the embedded server the heap grows by less before the collector looks, unless GOGC says by
// how much.
func TestCollector(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 3})
	server := NewNATSServer(t, "")
	server.Start()
	embedded, _ := Embedded(t)
	asked, _ := Embedded(t)
	asked["GOGC"] = "75"
	for _, c := range []struct {
		name    string
		where   map[string]string
		percent string
	}{
		{"embedded", embedded, "20"},
		{"asked", asked, "75"},
		{"remote", map[string]string{"ROLLCALL_NATS_URL": server.URL}, "50"},
	} {
		w := watch(t, c.name, v.Env(), c.where)
		w.until("healthy", is("ok", ""))
		if _, body := w.get(w.ops+"/metrics", ""); !strings.Contains(body,
			"\ngo_gc_gogc_percent "+c.percent+"\n") {
			t.Errorf("%s: the collector does not look at %s percent", c.name, c.percent)
		}
	}
}
