//go:build unix

package e2e

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/rollcall-events/rollcall/internal/ops"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

const givesUp = "giving up the lease, in case"

// A gateway stands before the vendor, and can be shut: it answers then, but nothing of use.
type gateway struct {
	url  string
	shut atomic.Bool
}

func newGateway(t *testing.T, v *Vendor) *gateway {
	t.Helper()
	g := &gateway{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.shut.Load() {
			http.Error(w, "<html>no such route</html>", http.StatusNotFound)
			return
		}
		v.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	g.url = srv.URL
	return g
}

// A leader whom the vendor does not answer makes room for one whom it does. With the vendor away
// for all, each gives the lease up once and the last one keeps it, until somebody is answered.
func TestGivesUpTheLease(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	server.Start()
	v := NewVendor(t, isdpsim.Config{Agents: 20})
	ways := []*gateway{newGateway(t, v), newGateway(t, v)}
	replica := func(name string, way *gateway) *watched {
		return watch(t, name, v.Env(), map[string]string{
			"ROLLCALL_NATS_URL": server.URL, "ROLLCALL_ISDP_URL": way.url,
			"ROLLCALL_TENANT_ID": "886", "ROLLCALL_REQUEST_TIMEOUT": "1s",
		})
	}
	ways[0].shut.Store(true) // a wrong URL
	a := replica("astray", ways[0])
	a.WaitFor("took over the stream")
	b := replica("answered", ways[1])
	b.until("leading", leading)
	b.goesOn()
	standby := func(r ops.Readiness) bool {
		return r.Ready && r.Role == ops.RoleStandby && r.Leader != ""
	}
	a.until("standing by", standby)

	// Nobody is answered any more.
	ways[1].shut.Store(true)
	wait.Eventually(t, "both to have given up", func() bool {
		return len(a.Logged(givesUp)) > 0 && len(b.Logged(givesUp)) > 0
	})
	before := len(a.Logged(givesUp)) + len(b.Logged(givesUp))
	both := func(series string) float64 { return a.metrics()[series] + b.metrics()[series] }
	const failed = `rollcall_sweeps_total{result="unusable",tenant="886"}`
	begun := both(failed)
	wait.Eventually(t, "sweeps that fail", func() bool { return both(failed) >= begun+6 })
	after := len(a.Logged(givesUp)) + len(b.Logged(givesUp))
	if after > before+1 { // one of them may have been about to
		t.Errorf("they pass the lease to and fro: given up %d times, then %d", before, after)
	}

	// Whoever has it is answered again.
	ways[0].shut.Store(false)
	ways[1].shut.Store(false)
	wait.Eventually(t, "a leader who is answered", func() bool {
		return both(`rollcall_leader{tenant="886"}`) == 1
	})
	begun = both(`rollcall_sweeps_total{result="complete",tenant="886"}`)
	wait.Eventually(t, "complete sweeps", func() bool {
		return both(`rollcall_sweeps_total{result="complete",tenant="886"}`) > begun+2
	})
	for _, w := range []*watched{a, b} {
		if code, _ := w.Terminate(); code != 0 {
			t.Errorf("%s: exit %d", w.instance, code)
		}
	}
}
