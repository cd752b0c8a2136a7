//go:build unix

package soak

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// leads waits until a tenant's replica holds the lease and has put a watermark into the stream, and
// returns that one's sequence.
func (w *world) leads(t *tenant, r *replica) (seq uint64) {
	w.t.Helper()
	wait.Eventually(w.t, r.name+" to lead", func() bool {
		m, at, ok := w.mark(t.id)
		seq = at
		return ok && m.Instance == r.name && w.holder(t.id) == r.name
	})
	return seq
}

// someoneLeads waits until one of a tenant's two replicas leads, and returns that and the other
// one.
func (w *world) someoneLeads(t *tenant) (leader, standby *replica) {
	w.t.Helper()
	wait.Eventually(w.t, "one of the two to lead", func() bool {
		m, _, ok := w.mark(t.id)
		holder := w.holder(t.id)
		for i, r := range t.replicas {
			if ok && r.name == m.Instance && r.name == holder {
				leader, standby = r, t.replicas[1-i]
			}
		}
		return leader != nil
	})
	return leader, standby
}

// standsBy waits until the replica's process has said that it stands by, n times in all.
func (w *world) standsBy(r *replica, n int) {
	w.t.Helper()
	wait.Eventually(w.t, r.name+" to stand by", func() bool {
		w.alive(r)
		return len(r.proc.Logged("standing by")) >= n
	})
}

// onlyPolls checks that of the two only the leader asks for pages, while it sweeps three times
// more.
func (w *world) onlyPolls(t *tenant, leader, standby *replica) {
	w.t.Helper()
	before := standby.pages.Load()
	for range 3 {
		w.swept(t.id, time.Now(), leader.name)
	}
	if n := standby.pages.Load() - before; n > 0 {
		w.t.Errorf("%s stands by and has asked for %d pages", standby.name, n)
	}
}

// instances are those whose watermarks were recorded from a sequence on.
func (w *world) instances(tenant *tenant, from uint64) map[string]int {
	w.t.Helper()
	out := map[string]int{}
	for _, m := range w.live.Messages() {
		var wm mark
		if m.Seq >= from && m.Subject == fmt.Sprintf("agent.watermark.%d", tenant.id) {
			if err := json.Unmarshal(m.Body, &wm); err != nil {
				w.t.Fatal(err)
			}
			out[wm.Instance]++
		}
	}
	return out
}

func TestReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, layout{nodes: 1, replicas: 2}, 1,
		"go test ./internal/test/soak -run TestReplicas")
	w.record()
	w.churn()
	tn := w.tenants[0]
	log := func(what string, since time.Time) {
		t.Logf("%s: %v", what, time.Since(since).Round(time.Millisecond))
	}

	// Both at the same instant, with nobody's lease there; and again, as both have given theirs up.
	var leader, standby *replica
	for range 2 {
		at := time.Now()
		w.start(tn.replicas...)
		leader, standby = w.someoneLeads(tn)
		log("two started at the same instant: one leads after", at)
		w.standsBy(standby, 1)
		if n := standby.pages.Load(); n > 0 && len(standby.procs) == 1 {
			t.Errorf("%s never led and has asked for %d pages", standby.name, n)
		}
		w.onlyPolls(tn, leader, standby)
		if leader.proc == leader.procs[0] {
			w.term(standby, false)
			w.term(leader, false)
		}
	}

	w.kill(leader)
	at := time.Now()
	w.leads(tn, standby)
	log("take-over after SIGKILL, lease TTL "+leaseTTL.String(), at)
	w.start(leader)
	leader, standby = standby, leader
	w.standsBy(standby, 1)
	w.onlyPolls(tn, leader, standby)

	at = time.Now()
	w.term(leader, false)
	w.leads(tn, standby)
	log("take-over after SIGTERM, from the signal on", at)
	w.start(leader)
	leader, standby = standby, leader
	w.standsBy(standby, 1)

	// Stopped past its lease with changes on their way to it, and then continued: at once when the
	// other one leads, so soon after its own last commit that it has no reason to look at the
	// stream before the next one; or after a while.
	for round := range 4 {
		said := len(leader.proc.Logged("standing by"))
		wait.Eventually(t, "the lease to have been renewed some time ago", func() bool {
			age := time.Since(w.renewed(tn.id))
			return age > 250*time.Millisecond && age < 400*time.Millisecond
		})
		leader.gate.Lock()
		wait.Eventually(t, leader.name+" to ask for a page", func() bool {
			return leader.waiting.Load() > 0
		})
		tn.vendor.Churn(50)
		w.note("SIGSTOP %s", leader.name)
		leader.proc.Pause()
		leader.gate.Unlock() // answered, but not yet read
		at = time.Now()
		from := w.leads(tn, standby)
		log("take-over after SIGSTOP", at)
		if round == 3 {
			w.swept(tn.id, time.Now(), standby.name)
		}
		w.note("SIGCONT %s", leader.name)
		leader.proc.Continue()
		w.standsBy(leader, said+1)
		w.onlyPolls(tn, standby, leader)
		if got := w.instances(tn, from); len(got) != 1 || got[standby.name] == 0 {
			t.Errorf("%s led from #%d on, and the watermarks are by %v", standby.name, from, got)
		}
		leader, standby = standby, leader
	}
	w.finish(func(o *checker.Options) { o.LossyLive = false })
	t.Log(summary(w.stats))
}

// TestTenants: each with a rollcall of its own, on one stream.
func TestTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t, layout{nodes: 1, tenants: 3, agents: 60}, 1,
		"go test ./internal/test/soak -run TestTenants")
	w.record()
	w.churn()
	w.start(w.replicas()...)
	for _, tn := range w.tenants {
		w.swept(tn.id, time.Now(), tn.replicas[0].name)
	}
	dead, others := w.tenants[0], w.tenants[1:]
	w.kill(dead.replicas[0])
	for range 3 { // the others go on
		for _, tn := range others {
			tn.vendor.Churn(50)
			w.swept(tn.id, time.Now(), tn.replicas[0].name)
		}
	}
	w.start(dead.replicas[0])
	w.swept(dead.id, time.Now(), "")
	for _, tn := range others {
		for _, l := range tn.replicas[0].proc.Log() {
			// its listing changed while it was read
			incomplete := strings.HasPrefix(l.Message(), "sweep incomplete")
			if l.Message() == "standing by" || l.Level() == "WARN" && !incomplete {
				t.Errorf("%s was hindered: %v", tn.replicas[0].name, l)
			}
		}
	}
	w.finish(func(o *checker.Options) { o.LossyLive = false })
	t.Log(summary(w.stats))
}
