//go:build unix

package e2e

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/ops"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// serveOn serves the tenant on a listener of the test's own.
func serveOn(t *testing.T, ln net.Listener, v *Vendor) {
	t.Helper()
	srv := &http.Server{Handler: http.HandlerFunc(v.serve)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln) // ends with Close
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
}

var (
	demoURL      = regexp.MustCompile(`(?m)^  NATS +(nats://127\.0\.0\.1:\d+) `)
	demoPages    = regexp.MustCompile(`(?m)^  board +http://(127\.0\.0\.1:\d+)/ `)
	demoStore    = regexp.MustCompile(`its store in (\S+)`)
	demoBaseline = regexp.MustCompile(`(?m)^\d+ of 3[34]\d agents on duty, as of `)
	demoEvent    = regexp.MustCompile(
		`(?m)^\d\d:\d\d:\d\d  (online |offline|updated)  \d+  \S+ +\S`)
)

// demo starts the demo, waits until it has told an event, and returns where its NATS is.
func demo(t *testing.T) (p *Process, url, tmp string) {
	t.Helper()
	tmp = t.TempDir()
	p = Rollcall(t, map[string]string{"TMPDIR": tmp}, "demo")
	wait.Eventually(t, "the demo to say where NATS is", func() bool {
		if !p.Running() {
			t.Fatalf("the demo has ended: exit %d", p.Wait())
		}
		m := demoURL.FindStringSubmatch(p.Stdout())
		if m != nil {
			url = m[1]
		}
		return m != nil
	})
	return p, url, tmp
}

func TestDemoTwice(t *testing.T) {
	t.Parallel()
	first, firstURL, firstTmp := demo(t)
	second, secondURL, secondTmp := demo(t)
	if firstURL == secondURL {
		t.Errorf("both on %s", firstURL)
	}
	var listens []string
	for _, d := range []struct {
		p        *Process
		url, tmp string
	}{{first, firstURL, firstTmp}, {second, secondURL, secondTmp}} {
		wait.Eventually(t, "the baseline and an event", func() bool {
			return demoBaseline.MatchString(d.p.Stdout()) && demoEvent.MatchString(d.p.Stdout())
		})
		out := d.p.Stdout()
		for _, want := range []string{
			"Ctrl-C",
			"go run github.com/nats-io/natscli/nats@v0.5.1 -s " + d.url + " sub 'agent.online.>'",
			"-s " + d.url + " stream get AGENT_EVENTS --last-for agent.state.886.17813",
			"-s " + d.url + " stream info AGENT_EVENTS",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the demo does not say %q", want)
			}
		}
		if strings.Index(out, "on duty, as of") < strings.Index(out, "natscli") {
			t.Error("the baseline is told before the welcome")
		}
		if m := demoPages.FindStringSubmatch(out); m == nil || slices.Contains(listens, m[1]) {
			t.Errorf("the board is at %v, the other's at %v", m, listens)
		} else if r, err := ops.Ready(t.Context(), "http://"+m[1]); err != nil || !r.Ready {
			t.Errorf("/readyz says %+v, %v", r, err)
		} else if board, err := http.Get("http://" + m[1]); err != nil ||
			board.StatusCode != http.StatusOK || board.Body.Close() != nil {
			t.Errorf("the board answers %+v, %v", board, err)
		} else {
			listens = append(listens, m[1])
		}
		nc := Connect(t, d.url)
		if n := len(Roster(t, nc, 886)); n < 335 { // the first sweep of 340 that come and go
			t.Errorf("%d states at %s", n, d.url)
		}
		if m := demoStore.FindStringSubmatch(out); m == nil || !strings.HasPrefix(m[1], d.tmp) {
			t.Errorf("the store is %q, want it below %s", m, d.tmp)
		}
		if code, took := d.p.Interrupt(); code != 0 || took > 10*time.Second {
			t.Errorf("SIGINT: exit %d after %v", code, took)
		}
		if !strings.HasSuffix(strings.TrimSpace(d.p.Stdout()),
			"Stopped. Everything that was seen is published.") {
			t.Error("the demo does not say how it ended")
		}
		if left, err := filepath.Glob(filepath.Join(d.tmp, "rollcall-demo-*")); err != nil ||
			len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		if err := d.p.Stderr(); err != "" {
			t.Errorf("on standard error: %s", err)
		}
	}
}

// printedSettings are those that the simulated tenant prints.
func printedSettings(sim *Process) map[string]string {
	vendor := map[string]string{}
	for line := range strings.Lines(sim.Stdout()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok &&
			strings.HasPrefix(name, "ROLLCALL_") {
			vendor[name] = value
		}
	}
	return vendor
}

// The simulated tenant alone is one that the daemon can be pointed at, with the very lines that it
// prints.
func TestDemoSimOnly(t *testing.T) {
	t.Parallel()
	sim := Rollcall(t, nil, "demo", "--sim-only", "--agents", "120", "--churn", "0", "--seed", "7")
	sim.WaitFor("A simulated ISDP+ tenant of 120 agents, no changes, seed 7.\n")
	sim.WaitFor("Ctrl-C")
	vendor := printedSettings(sim)
	if len(vendor) != 5 {
		t.Fatalf("settings printed: %v", vendor)
	}
	env, url := Embedded(t)
	p := Rollcall(t, Settings(vendor, env))
	healthOf(t, url, "ok", "")
	if n := len(Roster(t, Connect(t, url), 886)); n != 120 {
		t.Errorf("%d states of 120 agents", n)
	}
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if code, took := sim.Interrupt(); code != 0 || took > 5*time.Second {
		t.Errorf("SIGINT: exit %d after %v", code, took)
	}
	if _, err := os.Stat("data"); err == nil {
		t.Error("something was written where the test runs")
	}
}

// A scenario of the simulated tenant alone begins when the daemon has read the listing, and passes
// as fast as asked for.
func TestDemoSimOnlyScript(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "script.yaml")
	text := "agents: 60\nsteps:\n  - at: 0s\n    vanish: [17813, 17814]\n  - at: 1h\n    add: 1\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sim := Rollcall(t, nil, "demo", "--sim-only", "--script", script, "--speed", "3600", "--seed",
		"7", "--agents", "120")
	sim.WaitFor("tenant of 120 agents, a scenario of 1h0m0s, " + script +
		", at 3600 times its speed, seed 7.\n")
	sim.WaitFor("Ctrl-C")
	vendor := printedSettings(sim)
	if strings.Contains(sim.Stdout(), "SCRIPT") {
		t.Error("something happens before anybody has read the listing")
	}
	env, url := Embedded(t)
	Rollcall(t, Settings(vendor, env))
	sim.WaitFor("SCRIPT   at 0s: 2 agents: gone from the listing\n")
	sim.WaitFor("SCRIPT   at 1h0m0s: 1 new agent: listed\n")
	sim.WaitFor("SCRIPT   the scenario is over\n")
	healthOf(t, url, "ok", "")
	nc := Connect(t, url)
	wait.Eventually(t, "all of it in the stream", func() bool {
		states := Roster(t, nc, 886)
		return len(states) == 121 && strings.Contains(states[17813].Body, `"reason":"removed"`)
	})
	if code, _ := sim.Interrupt(); code != 0 {
		t.Errorf("SIGINT: exit %d", code)
	}
}
