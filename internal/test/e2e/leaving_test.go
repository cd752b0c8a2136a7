//go:build unix

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/ops"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// silent are the URLs of n servers that take connections and never say a word, as one does that
// hangs.
func silent(t *testing.T, n int) string {
	t.Helper()
	var urls []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		urls = append(urls, "nats://"+ln.Addr().String())
	}
	return strings.Join(urls, ",")
}

// probes asks for /readyz for a while, as probes do, and fails the test where an answer takes
// longer than they wait for, or says that the replica is ready.
func (w *watched) probes() {
	w.t.Helper()
	tick := time.NewTicker(150 * time.Millisecond) // so that most of them have to look
	defer tick.Stop()
	for range 15 {
		begun := time.Now()
		code, body := w.get(w.ops+"/readyz", "")
		// a second, and a busy machine
		if took := time.Since(begun); code != 503 || took > 2*time.Second {
			w.t.Errorf("/readyz answered HTTP %d after %v: %s", code, took, body)
		}
		<-tick.C
	}
}

// Servers that say nothing hold nobody up: not the end, not a probe, and not the way to the one
// that lives.
func TestLeavingSilentServers(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 20})
	w := watch(t, "unconnected", v.Env(), map[string]string{"ROLLCALL_NATS_URL": silent(t, 5)})
	w.WaitFor("can't connect to NATS yet")
	w.probes()
	if code, took := w.Terminate(); code != 0 || took > 5*time.Second {
		t.Errorf("exit %d after %v", code, took)
	}
}

func TestLeavingDeadServerSilentOthers(t *testing.T) {
	t.Parallel()
	for _, pending := range []bool{false, true} {
		t.Run(fmt.Sprintf("pending=%t", pending), func(t *testing.T) {
			t.Parallel()
			server := NewNATSServer(t, "")
			server.Start()
			v := NewVendor(t, isdpsim.Config{Agents: 20})
			w := watch(t, "cut-off", v.Env(),
				map[string]string{"ROLLCALL_NATS_URL": silent(t, 4) + "," + server.URL})
			w.until("leading", leading)
			server.Kill()
			w.WaitFor("lost the connection to NATS")
			if pending {
				for _, id := range v.IDs() {
					v.SetOnline(id, true)
				}
				wait.Eventually(t, "changes that can't be published", func() bool {
					return w.metrics()[`rollcall_pending_changes{tenant="886"}`] > 0
				})
			}
			w.until("not ready", func(r ops.Readiness) bool { return !r.Ready && !r.NATS.OK })
			w.probes()
			code, took := w.Terminate()
			if want := map[bool]int{true: 1}[pending]; code != want || took > 10*time.Second {
				t.Errorf("exit %d after %v, want %d", code, took, want)
			}
			if pending && !strings.Contains(w.Stderr(),
				"changes that were seen are not known to be published") {
				t.Error("it did not say how many changes are not published")
			}
			if len(w.Logged("the end takes too long")) > 0 {
				t.Error("it had to be ended by force")
			}
		})
	}
}

// A server that comes back is found beside others that say nothing.
func TestReconnectBesideSilentServers(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	server.Start()
	v := NewVendor(t, isdpsim.Config{Agents: 20})
	w := watch(t, "patient", v.Env(),
		map[string]string{"ROLLCALL_NATS_URL": silent(t, 4) + "," + server.URL})
	w.until("leading", leading)
	for range 2 {
		server.Kill()
		w.WaitFor("lost the connection to NATS")
		server.Start()
		w.until("leading again", leading)
		w.goesOn()
	}
	if code, _ := w.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// The recovery of a large store can't be cut short, but it does not hold up the end; meanwhile
// /readyz says what is waited for.
func TestLeavingDuringRecovery(t *testing.T) {
	t.Parallel()
	env, _ := Embedded(t)
	stream := filepath.Join(env["ROLLCALL_DATA_DIR"], "jetstream", "ROLLCALL", "streams", Stream)
	if err := os.MkdirAll(stream, 0o700); err != nil {
		t.Fatal(err)
	}
	// Reading it takes until somebody writes to it.
	if err := syscall.Mkfifo(filepath.Join(stream, "meta.inf"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := NewVendor(t, isdpsim.Config{Agents: 20})
	w := watch(t, "recovering", v.Env(), env)
	w.until("recovering", func(r ops.Readiness) bool {
		return strings.Contains(r.WaitingFor, "recovering the store")
	})
	if code, took := w.Terminate(); code != 0 || took > 5*time.Second {
		t.Errorf("exit %d after %v", code, took)
	}
}
