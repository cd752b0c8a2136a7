//go:build unix

package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/ops"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// fast makes a leader that says much in a short time.
var fast = map[string]string{"ROLLCALL_POLL_INTERVAL": "2ms", "ROLLCALL_PAGE_SIZE": "50",
	"ROLLCALL_RATE_LIMIT": "100000"}

// leaseHeld reports whether anybody holds the tenant's lease.
func leaseHeld(t *testing.T, server *NATSServer) bool {
	t.Helper()
	js, err := jetstream.New(Connect(t, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), "rollcall")
	if err != nil {
		t.Fatal(err)
	}
	_, err = kv.Get(t.Context(), "lease.886")
	return err == nil
}

// goesOn waits for sweeps that begin from now on.
func (w *watched) goesOn() {
	w.t.Helper()
	const complete = `rollcall_sweeps_total{result="complete",tenant="886"}`
	before := w.metrics()[complete]
	wait.Eventually(w.t, "more sweeps", func() bool { return w.metrics()[complete] >= before+3 })
}

func leading(r ops.Readiness) bool {
	return r.Ready && r.Role == ops.RoleLeader &&
		r.Watermark != nil
}

// heedHangups has processes that the test starts heed hangups. Where the tests themselves run under
// nohup, they would ignore them too, unless the tests handle them.
func heedHangups(t *testing.T) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangups) })
}

// A hangup is a reason to stop like any other: in order, and the lease is given up. Who started
// rollcall so that it outlives its terminal gets what they asked for.
func TestHangup(t *testing.T) {
	t.Parallel()
	heedHangups(t)
	server := NewNATSServer(t, "")
	server.Start()
	v := NewVendor(t, isdpsim.Config{Agents: 20})
	env := map[string]string{"ROLLCALL_NATS_URL": server.URL}

	w := watch(t, "hung-up", v.Env(), env)
	w.until("leading", leading)
	begun := time.Now()
	w.Signal(syscall.SIGHUP)
	w.Signal(syscall.SIGHUP) // a terminal that closes sends one, and so does its shell
	if code := w.Wait(); code != 0 || time.Since(begun) > 10*time.Second {
		t.Errorf("after SIGHUP: exit %d after %v", code, time.Since(begun))
	}
	if leaseHeld(t, server) {
		t.Error("the lease was kept")
	}
	if len(w.Logged("everything that was seen is published")) != 1 {
		t.Error("it did not say that all is published")
	}

	nohup := watchAs(t, "nohup", func(c *exec.Cmd) {
		c.Path, c.Args = "/bin/sh", []string{"sh", "-c", "trap '' HUP; exec " + c.Path}
	}, v.Env(), env)
	nohup.until("leading", leading)
	nohup.Signal(syscall.SIGHUP)
	nohup.goesOn()
	if code, _ := nohup.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// A second signal, of whichever kind, does not wait for what the first one began.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	heedHangups(t)
	for _, second := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(second.String(), func(t *testing.T) {
			t.Parallel()
			server := NewNATSServer(t, "")
			server.Start()
			v := NewVendor(t, isdpsim.Config{Agents: 20})
			w := watch(t, "twice", v.Env(), map[string]string{"ROLLCALL_NATS_URL": server.URL})
			w.until("leading", leading)
			server.Pause()
			defer server.Continue()
			for _, id := range v.IDs() {
				v.SetOnline(id, true)
			}
			wait.Eventually(t, "changes that can't be published", func() bool {
				return w.metrics()[`rollcall_pending_changes{tenant="886"}`] > 0
			})
			w.Signal(syscall.SIGTERM)
			w.WaitFor("stopping: publishing what was seen")
			w.Signal(second)
			if code := w.Wait(); code != 1 {
				t.Errorf("exit %d", code)
			}
			if len(w.Logged("published")) > 0 {
				t.Error("it has waited for the first one's end")
			}
		})
	}
}

// Whoever reads the log may stop reading: polling, publishing and the lease go on, and SIGTERM ends
// it.
func TestLogNobodyReads(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	server.Start()
	v := NewVendor(t, isdpsim.Config{Agents: 50, Churn: 5})
	env := map[string]string{"ROLLCALL_NATS_URL": server.URL,
		"ROLLCALL_INSTANCE": strings.Repeat("long-", 20)}
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w := watchAs(t, "unread", func(c *exec.Cmd) { c.Stderr = pipe }, v.Env(), env, fast)
	_ = pipe.Close()
	w.until("leading", leading)
	standby := watch(t, "standby", v.Env(), env)
	standby.until("standing by", func(r ops.Readiness) bool {
		return r.Role == ops.RoleStandby && r.Leader == "unread"
	})
	wait.Eventually(t, "lines that find no room", func() bool {
		return w.metrics()["rollcall_dropped_log_lines_total"] > 0
	})
	w.goesOn()
	w.until("leading", leading)

	if code, took := w.Terminate(); code != 0 || took > 10*time.Second {
		t.Errorf("exit %d after %v", code, took)
	}
	standby.until("leading", leading)
}

// A reader of the log that has gone away takes nothing with it.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	server.Start()
	v := NewVendor(t, isdpsim.Config{Agents: 20})
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := watchAs(t, "forsaken", func(c *exec.Cmd) {
		c.Stderr = pipe
	}, v.Env(), map[string]string{"ROLLCALL_NATS_URL": server.URL})
	_ = pipe.Close()
	w.until("leading", leading)
	_ = r.Close()
	wait.Eventually(t, "lines that nobody can read", func() bool {
		return w.metrics()["rollcall_dropped_log_lines_total"] > 0
	})
	w.goesOn()
	if code, _ := w.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if leaseHeld(t, server) {
		t.Error("the lease was kept")
	}
}

// The demo is made to be looked at: where its reader has gone, it ends in order.
func TestDemoReaderGone(t *testing.T) {
	t.Parallel()
	env := map[string]string{"ROLLCALL_HTTP_LISTEN": "off", "TMPDIR": t.TempDir()}
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	demo := newProcess(t, Binary(t), env, "demo")
	demo.p.Cmd.Stdout = pipe
	demo.start()
	_ = pipe.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.Contains(line, "rollcall demo") {
		t.Fatalf("the first line is %q (%v)", line, err)
	}
	_ = r.Close()
	if code := demo.Wait(); code != 0 || demo.Stderr() != "" {
		t.Errorf("exit %d, and on stderr: %s", code, demo.Stderr())
	}
	left, err := os.ReadDir(env["TMPDIR"])
	if err != nil || len(left) > 0 {
		t.Errorf("it left behind %v (%v)", left, err)
	}
}
