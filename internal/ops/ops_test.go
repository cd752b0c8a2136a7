package ops

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/test/metrictest"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type broker struct {
	away bool
	err  error
}

func (b *broker) IsConnected() bool { return !b.away }
func (b *broker) LastError() error  { return b.err }

// A tenant is a log and a loop as they say they are.
type tenant struct {
	leading bool
	log     publisher.Status
	loop    engine.Status
	looks   atomic.Int32
	since   time.Time // commits fail
	why     error
}

func (t *tenant) Leading() bool               { return t.leading }
func (t *tenant) Failing() (time.Time, error) { return t.since, t.why }
func (t *tenant) Status(context.Context) publisher.Status {
	t.looks.Add(1)
	return t.log
}

type loop struct{ *tenant }

func (l loop) Status() engine.Status { return l.loop }

var now = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

func watermark(sweep uint64, age time.Duration) schemas.Watermark {
	return schemas.Watermark{Sweep: sweep, StartedAt: now.Add(-age), CompletedAt: now.Add(-age),
		StaleAfter: now.Add(15*time.Second - age)}
}

func TestReadiness(t *testing.T) {
	w := watermark(41, 20*time.Second)
	yes := Check{OK: true}
	tests := []struct {
		name string
		tell func(*Process)
		want Readiness
	}{
		{"just begun", func(*Process) {}, Readiness{
			Role: RoleStarting, WaitingFor: "the connection to NATS",
			NATS: wrong("not connected yet"), Stream: wrong("not known without NATS"),
			Lease: wrong("not known without NATS")}},
		{"no NATS", func(p *Process) {
			p.Waiting("the connection to NATS",
				errors.New("no servers: is it running?"))
		}, Readiness{
			Role: RoleStarting, WaitingFor: "the connection to NATS: no servers: is it running?",
			NATS: wrong("not connected yet"), Stream: wrong("not known without NATS"),
			Lease: wrong("not known without NATS")}},
		{"the vendor's troubles", func(p *Process) { // nobody knows whose agents these are
			p.Connected(&broker{}, (&tenant{}).Status)
			p.Waiting("the vendor's first token", errors.New("no answer"))
		}, Readiness{Ready: true, Role: RoleStarting,
			WaitingFor: "the vendor's first token: no answer", NATS: yes, Stream: yes, Lease: yes}},
		{"another's stream", func(p *Process) {
			p.Connected(&broker{},
				(&tenant{log: publisher.Status{Stream: errors.New("max age is 1h")}}).Status)
			p.Waiting("the log", nil)
		}, Readiness{Role: RoleStarting, WaitingFor: "the log", NATS: yes,
			Stream: wrong("max age is 1h"), Lease: yes}},
		{"leading", func(p *Process) {
			x := &tenant{leading: true, log: publisher.Status{Leader: "r-0"}, loop: engine.Status{
				Watermark: watermark(42, 2500*time.Millisecond), State: schemas.HealthHolding,
				Reason: schemas.MissingMany, LastSweep: "complete"}}
			p.Connected(&broker{}, x.Status)
			p.Running(886, x, loop{x})
		}, Readiness{Ready: true, Role: RoleLeader, Commits: &yes, Tenant: 886, NATS: yes,
			Stream: yes, Lease: yes, Leader: "r-1", LastSweep: "complete",
			Watermark: &Watermark{Sweep: 42, StartedAt: now.Add(-2500 * time.Millisecond),
				AgeSeconds: 2.5, StaleAfter: now.Add(12500 * time.Millisecond)},
			Health: &Health{"holding", "missing"}}},
		{"leading, and the vendor fails", func(p *Process) {
			x := &tenant{leading: true, loop: engine.Status{Watermark: w,
				State: schemas.HealthFailing, Reason: schemas.Credentials,
				LastSweep: "credentials"}}
			p.Connected(&broker{}, x.Status)
			p.Running(886, x, loop{x})
		}, Readiness{Ready: true, Role: RoleLeader, Commits: &yes, Tenant: 886, NATS: yes,
			Stream: yes, Lease: yes, Leader: "r-1", LastSweep: "credentials",
			Watermark: &Watermark{Sweep: 41, StartedAt: w.StartedAt, AgeSeconds: 20,
				StaleAfter: w.StaleAfter, Stale: true},
			Health: &Health{"failing", "credentials"}}},
		{"leading, and a commit had to be tried again", func(p *Process) {
			x := &tenant{leading: true, since: time.Now().Add(-5 * time.Second),
				why: errors.New("no answer")}
			p.Connected(&broker{}, x.Status)
			p.Running(886, x, loop{x})
		}, Readiness{Ready: true, Role: RoleLeader, Commits: &yes, Tenant: 886, NATS: yes,
			Stream: yes, Lease: yes, Leader: "r-1"}},
		{"leading, and nothing can be committed", func(p *Process) {
			x := &tenant{leading: true,
				since: time.Now().Add(-95*time.Minute - 100*time.Millisecond),
				why:   errors.New("the stream is full")}
			p.Connected(&broker{}, x.Status)
			p.Running(886, x, loop{x})
		}, Readiness{Role: RoleLeader,
			Commits: &Check{Problem: "nothing could be committed for 1h35m0s, so readers " +
				"see what was true then; what is seen meanwhile is kept: the stream is full"},
			Tenant: 886, NATS: yes, Stream: yes, Lease: yes, Leader: "r-1"}},
		{"standing by, and had trouble when it led", func(p *Process) {
			x := &tenant{since: time.Now().Add(-time.Hour), why: errors.New("no answer")}
			p.Connected(&broker{}, x.Status)
			p.Running(886, x, loop{x})
		}, Readiness{Ready: true, Role: RoleStandby, Tenant: 886, NATS: yes, Stream: yes,
			Lease: yes}},
		{"standing by", func(p *Process) {
			x := &tenant{log: publisher.Status{Leader: "r-0", Watermark: &w,
				Health: &schemas.Health{State: schemas.HealthOK}}}
			p.Connected(&broker{}, x.Status)
			p.Running(886, x, loop{x})
		}, Readiness{Ready: true, Role: RoleStandby, Tenant: 886, NATS: yes, Stream: yes,
			Lease: yes, Leader: "r-0",
			Watermark: &Watermark{Sweep: 41, StartedAt: w.StartedAt, AgeSeconds: 20,
				StaleAfter: w.StaleAfter, Stale: true},
			Health: &Health{State: "ok"}}},
		{"leading without NATS", func(p *Process) {
			x := &tenant{leading: true, loop: engine.Status{Watermark: w, State: schemas.HealthOK,
				LastSweep: "complete"}}
			p.Connected(&broker{away: true, err: nats.ErrStaleConnection}, x.Status)
			p.Running(886, x, loop{x})
		}, Readiness{Role: RoleLeader, Commits: &yes, Tenant: 886, Leader: "r-1",
			LastSweep: "complete",
			NATS: wrong("not connected, trying again; what is seen meanwhile is kept: nats: " +
				"stale connection"),
			Stream: wrong("not known without NATS"), Lease: wrong("not known without NATS"),
			Watermark: &Watermark{Sweep: 41, StartedAt: w.StartedAt, AgeSeconds: 20,
				StaleAfter: w.StaleAfter, Stale: true}, Health: &Health{State: "ok"}}},
		{"leading, and no watermark came in time", func(p *Process) {
			w := watermark(42, 200*time.Second)
			w.StaleAfter, w.NextBy = now.Add(400*time.Second), now.Add(-time.Millisecond)
			w.GlancedAt = now.Add(-20 * time.Second)
			x := &tenant{leading: true, loop: engine.Status{Watermark: w, State: schemas.HealthOK}}
			p.Connected(&broker{}, x.Status)
			p.Running(886, x, loop{x})
		}, Readiness{Ready: true, Role: RoleLeader, Commits: &yes, Tenant: 886, NATS: yes,
			Stream: yes, Lease: yes, Leader: "r-1",
			Watermark: &Watermark{Sweep: 42, StartedAt: now.Add(-200 * time.Second),
				AgeSeconds: 200, StaleAfter: now.Add(400 * time.Second),
				NextBy: now.Add(-time.Millisecond), GlancedAt: now.Add(-20 * time.Second),
				Stale: true},
			Health: &Health{State: "ok"}}},
		{"no lease to be had", func(p *Process) {
			x := &tenant{log: publisher.Status{Lease: errors.New("bucket rollcall does not exist")}}
			p.Connected(&broker{}, x.Status)
			p.Running(886, x, loop{x})
		}, Readiness{Role: RoleStandby, Tenant: 886, NATS: yes, Stream: yes,
			Lease: wrong("bucket rollcall does not exist")}},
		{"stopping", func(p *Process) {
			x := &tenant{leading: true}
			p.Connected(&broker{}, x.Status)
			p.Running(886, x, loop{x})
			p.Stopping()
		}, Readiness{Role: RoleStopping, Commits: &yes, Tenant: 886, NATS: yes, Stream: yes,
			Lease: yes, Leader: "r-1"}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			p := NewProcess("r-1", func() time.Time { return now })
			c.tell(p)
			c.want.Instance = "r-1"
			if d := cmp.Diff(c.want, p.Readiness(t.Context())); d != "" {
				t.Errorf("-want, +got:\n%s", d)
			}

			srv := httptest.NewServer(Handler(Options{Process: p,
				Metrics: prometheus.NewRegistry()}))
			defer srv.Close()
			got, err := Ready(t.Context(), srv.URL)
			if d := cmp.Diff(c.want, got); err != nil || d != "" {
				t.Errorf("over HTTP: %v, -want, +got:\n%s", err, d)
			}
			resp := get(t, Handler(Options{Process: p, Metrics: prometheus.NewRegistry()}),
				http.MethodGet, PathReady, "")
			if want := map[bool]int{true: 200, false: 503}[c.want.Ready]; resp.Code != want {
				t.Errorf("HTTP %d, want %d", resp.Code, want)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	w := &Watermark{AgeSeconds: 20.04, Stale: true}
	yes := Check{OK: true}
	for want, r := range map[string]Readiness{
		"not ready, starting; NATS: not connected yet; waits for the connection to NATS": {
			Role: RoleStarting, WaitingFor: "the connection to NATS",
			NATS: wrong("not connected yet"), Stream: wrong("?"), Lease: wrong("?")},
		"not ready, standby; the stream: max age is 1h; the lease: no bucket; r-0 leads": {
			Role: RoleStandby, Leader: "r-0", NATS: yes, Stream: wrong("max age is 1h"),
			Lease: wrong("no bucket")},
		"ready, leader; health failing: credentials; the watermark is 20s old and stale": {
			Ready: true, Role: RoleLeader, Leader: "r-1", NATS: yes, Stream: yes, Lease: yes,
			Watermark: w, Health: &Health{"failing", "credentials"}},
		"not ready, leader; commits: the stream is full": {
			Role: RoleLeader, NATS: yes, Stream: yes, Lease: yes,
			Commits: &Check{Problem: "the stream is full"}},
		"ready, standby; health ok": {Ready: true, Role: RoleStandby, NATS: yes, Stream: yes,
			Lease: yes, Health: &Health{State: "ok"}},
	} {
		if got := r.Summary(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// However many ask, the broker is asked once a second.
func TestLooksAreShared(t *testing.T) {
	p, x := NewProcess("r-1", nil), &tenant{}
	p.Connected(&broker{}, x.Status)
	begun := time.Now()
	for range 100 {
		p.Readiness(t.Context())
	}
	if n := x.looks.Load(); n < 1 || float64(n) > 1+time.Since(begun).Seconds() {
		t.Errorf("%d looks", n)
	}
	y := &tenant{}
	p.Running(886, y, loop{y})
	if p.Readiness(t.Context()); y.looks.Load() != 1 {
		t.Error("what was seen before the tenant was known is told of it")
	}
}

// A look ends in less than the second that probes wait.
func TestLookTakesTooLong(t *testing.T) {
	p := NewProcess("r-1", nil)
	p.Connected(&broker{}, func(ctx context.Context) publisher.Status {
		<-ctx.Done()
		return publisher.Status{Stream: ctx.Err(), Lease: ctx.Err()}
	})
	begun := time.Now()
	r := p.Readiness(t.Context())
	if took := time.Since(begun); r.Ready || took > time.Second {
		t.Errorf("%+v after %v", r, took)
	}
}

func get(t *testing.T, h http.Handler, method, path, host string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	if host != "" {
		r.Host = host
	}
	r.RemoteAddr = "127.0.0.1:50000"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHandler(t *testing.T) {
	reg := prometheus.NewRegistry()
	Register(reg, "1.2.3", "abcdef", func() *nats.Conn { return nil })
	starting := Starting(NewProcess("r-1", nil))
	pages := Handler(Options{Process: NewProcess("r-1", nil), Metrics: reg, Board: starting,
		LocalOnly: true})
	profiling := Handler(Options{Process: NewProcess("r-1", nil), Metrics: reg,
		Board: http.NotFoundHandler(), LocalOnly: true, Profiles: true})
	probes := Handler(Options{Process: NewProcess("r-1", nil), Metrics: reg})
	careless := Handler(Options{Process: NewProcess("r-1", nil), Metrics: reg, Profiles: true})
	tests := []struct {
		name               string
		h                  http.Handler
		method, path, host string
		code               int
		text               string // in the body
	}{
		{"alive", pages, "GET", "/healthz", "localhost:8080", 200, "ok\n"},
		{"ready", pages, "GET", "/readyz", "127.0.0.1:8080", 503, `"ready": false`},
		{"metrics", pages, "GET", "/metrics", "[::1]:8080", 200, "rollcall_nats_connected 0"},
		{"the board, before there is one", pages, "GET", "/", "LOCALHOST", 503, "starting"},
		{"two slashes", pages, "GET", "//", "localhost", 503, "starting"},
		{"two slashes, alive", pages, "GET", "//healthz", "localhost", 200, "ok\n"},
		{"two slashes, another site", pages, "GET", "//", "evil.example", 403, "Host localhost"},
		{"nothing else", pages, "GET", "/index.html", "localhost", 404, ""},
		{"HEAD", pages, "HEAD", "/healthz", "localhost", 200, ""},
		{"POST", pages, "POST", "/healthz", "localhost", 405, ""},
		{"DELETE", pages, "DELETE", "/", "localhost", 405, ""},
		{"OPTIONS", pages, "OPTIONS", "/metrics", "localhost", 405, ""},
		{"POST to nothing", probes, "POST", "/nothing", "localhost", 405, ""},
		{"rebound", pages, "GET", "/metrics", "evil.example:8080", 403, "HTTPListen"},
		{"rebound, POST", pages, "POST", "/metrics", "evil.example:8080", 403, ""},
		{"rebound, readyz", pages, "GET", "/readyz", "localhost.evil.example", 403, ""},
		{"rebound, board", pages, "GET", "/", "127.0.0.1.evil.example", 403, ""},
		{"an address elsewhere", pages, "GET", "/", "192.0.2.1:8080", 403, ""},
		{"no host", pages, "GET", "/", " ", 403, ""},
		{"no profiles", pages, "GET", "/debug/pprof/", "localhost", 404, ""},
		{"no command line", pages, "GET", "/debug/pprof/cmdline", "localhost", 404, ""},
		{"profiles", profiling, "GET", "/debug/pprof/goroutine?debug=1", "localhost", 200,
			"goroutine profile"},
		{"profiles for others", profiling, "GET", "/debug/pprof/", "evil.example", 403, ""},
		{"profiles beyond loopback", careless, "GET", "/debug/pprof/", "localhost", 404, ""},
		{"probes: alive", probes, "GET", "/healthz", "10.1.2.3:9090", 200, "ok\n"},
		{"probes: ready", probes, "GET", "/readyz", "rollcall-0.rollcall", 503, `"waitingFor"`},
		{"probes: metrics", probes, "GET", "/metrics", "anything", 200,
			`rollcall_build_info{commit="abcdef",goversion="go`},
		{"probes: no board", probes, "GET", "/", "localhost", 404, ""},
		{"probes: no profiles", probes, "GET", "/debug/pprof/", "localhost", 404, ""},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			w := get(t, c.h, c.method, c.path, c.host)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.text) {
				t.Errorf("HTTP %d, want %d: %s", w.Code, c.code, w.Body)
			}
			if allow := w.Header().Get("Allow"); (w.Code == 405) != (allow == "GET, HEAD") {
				t.Errorf("HTTP %d allows %q", w.Code, allow)
			}
		})
	}
}

// What comes through a proxy, or from another machine, gets no profile.
func TestProfilesForLoopbackOnly(t *testing.T) {
	h := Handler(Options{Process: NewProcess("r-1", nil), Metrics: prometheus.NewRegistry(),
		LocalOnly: true, Profiles: true})
	for name, change := range map[string]func(*http.Request){
		"another machine":  func(r *http.Request) { r.RemoteAddr = "192.0.2.1:50000" },
		"a proxy":          func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") },
		"another proxy":    func(r *http.Request) { r.Header.Set("Forwarded", "for=192.0.2.1") },
		"yet another":      func(r *http.Request) { r.Header.Set("Via", "1.1 gate") },
		"nobody knows who": func(r *http.Request) { r.RemoteAddr = "" },
	} {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/debug/pprof/cmdline", nil)
		r.RemoteAddr = "127.0.0.1:50000"
		change(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusNotFound {
			t.Errorf("%s: HTTP %d", name, w.Code)
		}
	}
}

func TestLocalHost(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:1": true, "LocalHost:8080": true, "127.0.0.1": true,
		"127.0.0.1:8080": true, "127.8.9.1:80": true,
		"[::1]": true, "[::1]:8080": true, "::1": true, "[::ffff:127.0.0.1]:80": true,
		"": false, ":8080": false, "localhost.": false, "localhost.example": false,
		"example": false, "10.0.0.1": false, "0.0.0.0": false,
		"[::]": false, "[localhost": false, "127.1": false, "0x7f.0.0.1": false, "[::1": false,
		"user@localhost": false, "localhoſt": false, "localhost\x00": false,
	} {
		if got := localHost(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func TestServe(t *testing.T) {
	ln, err := Listen("ROLLCALL_HTTP_LISTEN", "127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	if !OnLoopback(ln) {
		t.Errorf("%s is not on loopback", ln.Addr())
	}
	begun, release := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(begun)
			<-release
		}
		_, _ = io.WriteString(w, "done")
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, h, slog.New(slog.DiscardHandler)) }()
	url := "http://" + ln.Addr().String()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answer := make(chan string, 1)
	go func() {
		resp, err := client.Get(url + "/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- string(body)
	}()
	<-begun
	cancel() // an answer that is under way is still given
	for {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break // it listens no more
		}
		_ = c.Close()
	}
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("the answer under way: %s", got)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// Whoever does not let go is cut off.
func TestServeEnds(t *testing.T) {
	ln, err := Listen("X", "127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		served <- Serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done()
		}), slog.New(slog.DiscardHandler))
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	cancel()
	stopped := time.Now()
	if err := <-served; err != nil || time.Since(stopped) > 2*shutdownTimeout {
		t.Errorf("%v after %v", err, time.Since(stopped))
	}
}

func TestListen(t *testing.T) {
	ln, err := Listen("ROLLCALL_HTTP_LISTEN", "127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().String()
	_, err = Listen("ROLLCALL_HTTP_LISTEN", taken, ", or to off")
	if want := "ROLLCALL_HTTP_LISTEN: can't listen on " + taken +
		": the address is in use: stop what uses it, or set ROLLCALL_HTTP_LISTEN to a free " +
		"address, or to off"; err == nil || err.Error() != want || !errors.Is(err, ErrInUse) {
		t.Errorf("%v, want %s", err, want)
	}
	for addr, words := range map[string]string{
		"192.0.2.1:8080":       "an address of this machine",
		"nowhere.invalid:8080": "can't be resolved",
		"[2001:db8::1]:8080":   "an address of this machine",
	} {
		_, err := Listen("ROLLCALL_OPS_LISTEN", addr, "")
		var unusable *setting.Error
		if addr == "[2001:db8::1]:8080" && err != nil && !errors.As(err, &unusable) {
			continue // a machine without IPv6
		}
		if !errors.As(err, &unusable) || unusable.Field != "ROLLCALL_OPS_LISTEN" ||
			unusable.Value != addr || !strings.Contains(unusable.Want, words) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	all, err := Listen("X", ":0", "")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if OnLoopback(all) {
		t.Errorf("%s is taken for loopback", all.Addr())
	}
}

func TestReadyClient(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"HTML": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<html>")
		},
		"other JSON": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"UP"}`)
		},
		"not found": func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"contradiction": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"ready":false,"role":"leader"}`)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/healthz", http.StatusFound)
		},
	} {
		srv := httptest.NewServer(h)
		if r, err := Ready(t.Context(), srv.URL); err == nil ||
			!strings.Contains(err.Error(), "no rollcall") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		srv.Close()
	}
	srv := httptest.NewServer(nil)
	srv.Close()
	if _, err := Ready(t.Context(), srv.URL); err == nil ||
		!strings.Contains(err.Error(), "does it run") {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := Ready(t.Context(), "http://127.0.0.1:1/ x"); err == nil {
		t.Error("a URL that is none")
	}
}

// The connection's metrics go with it.
func TestNATSMetrics(t *testing.T) {
	dir := t.TempDir()
	url, stop := natstest.Start(t, dir)
	nc := natstest.Connect(t, url)
	reg := prometheus.NewRegistry()
	var conn atomic.Pointer[nats.Conn]
	Register(reg, "v", "c", conn.Load)
	is := func(connected, reconnects float64) bool {
		s := metrictest.Gather(t, reg)
		return s["rollcall_nats_connected"] == connected &&
			s["rollcall_nats_reconnects_total"] == reconnects
	}
	if !is(0, 0) {
		t.Error("before there is a connection")
	}
	conn.Store(nc)
	if !is(1, 0) {
		t.Error("with a connection")
	}
	stop()
	wait.Eventually(t, "the loss of the connection", func() bool { return is(0, 0) })
	stop = natstest.StartAt(t, dir, url)
	wait.Eventually(t, "the new connection", func() bool { return is(1, 1) })
	nc.Close()
	stop()
}

// The body is JSON that says what it means also where nothing is known.
func TestReadinessEncoding(t *testing.T) {
	b, err := json.Marshal(NewProcess("r-1", nil).Readiness(t.Context()))
	want := `{"ready":false,"instance":"r-1","role":"starting",` +
		`"waitingFor":"the connection to NATS",` +
		`"nats":{"ok":false,"problem":"not connected yet"},` +
		`"stream":{"ok":false,"problem":"not known without NATS"},` +
		`"lease":{"ok":false,"problem":"not known without NATS"},"watermark":null,"health":null}`
	if err != nil || string(b) != want {
		t.Errorf("%v\n%s, want\n%s", err, b, want)
	}
}
