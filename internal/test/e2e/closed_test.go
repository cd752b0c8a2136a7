//go:build unix

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// A connection that the client gives up for good ends the process, so that the next one connects
// anew: here since the server was told, while it ran, to take smaller messages, which no client
// gets to know. The next start goes by the new limit.
func TestConnectionClosed(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 60})
	large, other := v.IDs()[0], v.IDs()[1]
	v.Edit(large, isdpsim.Fields{"note": `"` + strings.Repeat("n", 100<<10) + `"`})
	server := NewNATSServer(t, "max_payload: 1MB")
	server.Start()
	where := map[string]string{"ROLLCALL_NATS_URL": server.URL}
	w := watch(t, "closed", v.Env(), where)
	w.until("healthy", is("ok", ""))

	server.Configure("max_payload: 64KB")
	nc := Connect(t, server.URL)
	wait.Eventually(t, "the server to take smaller messages", func() bool {
		probe := Connect(t, server.URL)
		defer probe.Close()
		return probe.IsConnected() && probe.MaxPayload() == 64<<10
	})
	v.Atomically(func() {
		for _, id := range []int64{large, other} {
			v.SetOnline(id, !isOnline(v, id))
		}
	})
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), Stream)
	if err != nil {
		t.Fatal(err)
	}
	published := func() bool {
		m, err := stream.GetLastMsgForSubject(t.Context(), fmt.Sprintf("agent.state.886.%d", other))
		want := fmt.Sprintf(`"online":%t`, isOnline(v, other))
		return err == nil && strings.Contains(string(m.Data), want)
	}
	// The server says why and hangs up. Its word can be lost on the way, since it hangs up on bytes
	// that it has not read: then the client only knows that the connection is gone, and either
	// connects anew or gives up without a reason.
	wait.Eventually(t, "the connection's end", func() bool { return !w.Running() || published() })
	if !w.Running() {
		if code := w.Wait(); code != 1 || !strings.Contains(w.Stderr(), "closed for good") {
			t.Fatalf("exit %d", code)
		}
		w = watch(t, "closed", v.Env(), where)
		w.until("healthy", is("ok", ""))
	}
	wait.Eventually(t, "the other agent's change", published)
	if code, took := w.Terminate(); code != 0 || took > 10*time.Second {
		t.Errorf("exit %d after %v", code, took)
	}
}
