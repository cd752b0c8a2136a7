//go:build unix

package soak

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// pause lets a time pass that the seed says, from least to most.
func (w *world) pause(least, most time.Duration) {
	time.Sleep(least + time.Duration(w.rand.Int64N(int64(most-least)+1)))
}

// aim waits, half of the time, for the first message that comes after a moment when there was none,
// and then up to three milliseconds: so the next fault strikes while a commit is on its way. It
// never waits long.
func (w *world) aim() {
	take, then := w.rand.IntN(2) == 0, time.Duration(w.rand.Int64N(int64(3*time.Millisecond)))
	if !take {
		return
	}
	select {
	case <-w.news: // an old one
	default:
	}
	select {
	case <-w.news:
	case <-time.After(500 * time.Millisecond):
	}
	time.Sleep(then)
}

// A fault is something that is done to the world. It leaves everything running again.
type fault struct {
	name   string
	weight int
	do     func(w *world)
}

func (w *world) someTenant() *tenant { return w.tenants[w.rand.IntN(len(w.tenants))] }

func (w *world) someReplica() *replica {
	t := w.someTenant()
	return t.replicas[w.rand.IntN(len(t.replicas))]
}

func killRollcall(w *world) {
	r := w.someReplica()
	w.aim()
	w.kill(r)
	w.pause(0, 700*time.Millisecond)
	w.start(r)
}

// killTwice kills a process that has hardly begun.
func killTwice(w *world) {
	r := w.someReplica()
	w.aim()
	w.kill(r)
	w.start(r)
	w.pause(20*time.Millisecond, 400*time.Millisecond)
	w.kill(r)
	w.start(r)
}

func termRollcall(w *world) {
	r := w.someReplica()
	w.aim()
	w.term(r, true)
	w.pause(0, 700*time.Millisecond)
	w.start(r)
}

func burst(w *world) {
	t := w.someTenant()
	n := 50 + w.rand.IntN(400)
	w.note("%d changes at once", n)
	w.count("bursts")
	t.vendor.Churn(n)
	if w.rand.IntN(2) == 0 {
		killRollcall(w)
	}
}

// stopRollcall stops a replica past its lease and continues it.
func stopRollcall(w *world) {
	r := w.someReplica()
	w.aim()
	w.alive(r)
	w.note("SIGSTOP %s", r.name)
	w.count("SIGSTOP rollcall")
	r.proc.Pause()
	w.pause(leaseTTL/2, 2*leaseTTL)
	w.note("SIGCONT %s", r.name)
	r.proc.Continue()
}

// together kills all replicas of a tenant and starts them at the same instant.
func together(w *world) {
	t := w.someTenant()
	w.aim()
	w.kill(t.replicas...)
	w.start(t.replicas...)
}

func killServer(w *world) {
	n := w.nodes[0]
	w.aim()
	w.killNode(n)
	w.pause(0, 2*time.Second)
	w.startNode(n)
}

// stopServer stops the nats-server, for longer than an acknowledgement is waited for at times.
func stopServer(w *world) {
	n := w.nodes[0]
	w.aim()
	w.note("SIGSTOP nats-server")
	w.count("SIGSTOP nats-server")
	n.Pause()
	w.pause(0, 7*time.Second)
	w.note("SIGCONT nats-server")
	n.Continue()
}

// termHung ends a rollcall whose broker does not answer: that takes its time, and no more.
func termHung(w *world) {
	n, r := w.nodes[0], w.someReplica()
	w.aim()
	w.note("SIGSTOP nats-server")
	w.count("SIGSTOP nats-server")
	n.Pause()
	w.pause(0, time.Second)
	w.term(r, true)
	w.note("SIGCONT nats-server")
	n.Continue()
	w.start(r)
}

func killBoth(w *world) {
	n, r := w.nodes[0], w.someReplica()
	serverFirst, early := w.rand.IntN(2) == 0, w.rand.IntN(2) == 0
	w.aim()
	if serverFirst {
		w.killNode(n)
		w.kill(r)
	} else {
		w.kill(r)
		w.killNode(n)
	}
	w.pause(0, time.Second)
	if early {
		w.start(r)
		w.pause(0, time.Second)
	}
	w.startNode(n)
	if !early {
		w.start(r)
	}
}

// killLeader kills the node that leads the stream, or at times any other. The next fault waits
// until the cluster is whole: it stands the loss of one node.
func killLeader(w *world) {
	w.current()
	n := w.nodes[w.rand.IntN(len(w.nodes))]
	if w.rand.IntN(4) > 0 {
		wait.Eventually(w.t, "a leader of the stream", func() bool {
			l := w.leader()
			n = l
			return l != nil
		})
	}
	w.aim()
	w.killNode(n)
	w.pause(0, 3*time.Second)
	if w.rand.IntN(3) == 0 {
		killRollcall(w)
	}
	w.startNode(n)
}

// misbehave has a share of the vendor's answers go wrong from now on, or all those about one page,
// while the next faults strike.
func misbehave(w *world) {
	t := w.someTenant()
	share, seed := 0.05+0.3*w.rand.Float64(), w.rand.Uint64()
	hook, what := trouble(seed, share), fmt.Sprintf("%.0f%% of its answers", 100*share)
	if page := w.rand.IntN(9); page < 3 { // no sweep is complete
		hook, what = isdpsim.OnPage(page, isdpsim.Status(http.StatusInternalServerError)),
			fmt.Sprintf("page %d is never shown", page)
	}
	w.note("tenant %d misbehaves: %s", t.id, what)
	w.count("vendor trouble")
	t.vendor.SetFault(hook)
	t.trouble = 1 + w.rand.IntN(4)
}

// soothe ends the vendors' trouble in its time.
func (w *world) soothe() {
	for _, t := range w.tenants {
		if t.trouble--; t.trouble == 0 {
			w.note("tenant %d behaves again", t.id)
			t.vendor.SetFault(nil)
		}
	}
}

// trouble is a share of answers that go wrong, each in its own way.
func trouble(seed uint64, share float64) isdpsim.Hook {
	return isdpsim.Sometimes(seed, share, func(r isdpsim.Request) isdpsim.Fault {
		rnd := rand.New(rand.NewPCG(seed+1, uint64(r.Number)))
		if r.Endpoint == isdpsim.TokenEndpoint {
			return []isdpsim.Fault{isdpsim.Status(http.StatusBadGateway), isdpsim.Reset(0),
				isdpsim.HTML()}[rnd.IntN(3)]
		}
		kinds := []isdpsim.Fault{
			isdpsim.Status(http.StatusInternalServerError),
			isdpsim.Status(http.StatusServiceUnavailable),
			isdpsim.RetryAfter(http.StatusServiceUnavailable, time.Second),
			isdpsim.Reset(0),
			isdpsim.Reset(rnd.IntN(4000)),
			isdpsim.Cut(rnd.IntN(4000)),
			isdpsim.Truncated(rnd.IntN(4000)),
			isdpsim.Corrupt(),
			isdpsim.HTML(),
			isdpsim.Empty(),
			isdpsim.StateCode("500", "系统繁忙"),
			isdpsim.TotalCountOff(rnd.IntN(7) - 3),
			isdpsim.DropRows(rnd.IntN(25), rnd.IntN(25)),
			isdpsim.SamePage(0),
			isdpsim.Pos(rnd.IntN(9)),
			isdpsim.RevokeTokens(),
			isdpsim.Delay(time.Duration(rnd.IntN(300)) * time.Millisecond),
			isdpsim.Late(time.Duration(rnd.IntN(300)) * time.Millisecond),
			isdpsim.Drip(500, 2*time.Millisecond),
		}
		return kinds[rnd.IntN(len(kinds))]
	})
}

// A scenario is a layout and what may happen in it.
type scenario struct {
	name   string
	layout layout
	faults []fault
}

var scenarios = []scenario{
	{"embedded", layout{}, []fault{
		{"kill", 6, killRollcall}, {"kill twice", 2, killTwice}, {"term", 1, termRollcall},
		{"burst", 3, burst},
		{"stop", 1, stopRollcall}, {"vendor", 2, misbehave},
	}},
	{"external", layout{nodes: 1}, []fault{
		{"kill", 4, killRollcall}, {"kill twice", 1, killTwice}, {"term", 1, termRollcall},
		{"burst", 2, burst},
		{"kill server", 3, killServer}, {"kill both", 3, killBoth}, {"stop server", 1, stopServer},
		{"stop", 1, stopRollcall}, {"vendor", 2, misbehave},
		{"term hung", 1, termHung},
	}},
	{"replicas", layout{nodes: 1, replicas: 2}, []fault{
		{"kill", 4, killRollcall}, {"kill twice", 1, killTwice}, {"term", 2, termRollcall},
		{"burst", 2, burst},
		{"stop", 4, stopRollcall}, {"together", 2, together},
		{"kill server", 2, killServer}, {"kill both", 1, killBoth}, {"stop server", 1, stopServer},
		{"vendor", 1, misbehave},
	}},
	{"tenants", layout{nodes: 1, tenants: 3}, []fault{
		{"kill", 6, killRollcall}, {"term", 1, termRollcall}, {"burst", 3, burst},
		{"stop", 1, stopRollcall},
		{"kill server", 1, killServer}, {"kill both", 1, killBoth}, {"vendor", 2, misbehave},
	}},
	{"cluster", layout{nodes: 3, replicas: 2}, []fault{
		{"kill leader", 5, killLeader}, {"kill", 3, killRollcall}, {"stop", 1, stopRollcall},
		{"burst", 2, burst}, {"vendor", 1, misbehave},
	}},
	{"glances", layout{nodes: 1, replicas: 2, glances: true}, []fault{
		{"kill", 4, killRollcall}, {"term", 2, termRollcall}, {"stop", 2, stopRollcall},
		{"kill server", 2, killServer}, {"stop server", 1, stopServer}, {"vendor", 2, misbehave},
	}},
}

// spell lets time pass between two faults: most often until the tenants are being polled again, for
// a while at times, so that there are states that last; or next to none, so that what is recovering
// is struck again.
func (w *world) spell() {
	kind, least := w.rand.IntN(6), time.Duration(0)
	switch kind {
	case 0, 1:
		w.pause(0, time.Second)
		return
	case 2:
		least = 5 * time.Second
	}
	after := time.Now()
	giveUp := after.Add(8 * time.Second) // as with a vendor in trouble
	for _, t := range w.tenants {
		for !time.Now().After(giveUp) {
			if m, _, ok := w.mark(t.id); ok && m.StartedAt.After(after) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	w.pause(least, least+time.Second)
}

// cycle is one run of a scenario: a fresh stream, so many faults, rest, the checker.
func (s scenario) cycle(t *testing.T, seed uint64, faults int, again string) *world {
	w := newWorld(t, s.layout, seed, again)
	if len(w.nodes) > 0 {
		w.record()
	}
	w.churn()
	w.start(w.replicas()...)
	if len(w.nodes) == 0 {
		w.record()
	}
	for _, tenant := range w.tenants {
		w.swept(tenant.id, time.Now(), "")
	}
	all := 0
	for _, f := range s.faults {
		all += f.weight
	}
	for range faults {
		n := w.rand.IntN(all)
		for _, f := range s.faults {
			if n -= f.weight; n < 0 {
				f.do(w)
				break
			}
		}
		w.soothe()
		w.spell()
	}
	w.finish(nil)
	return w
}

func TestSoak(t *testing.T) {
	if *soakFor > 0 || *soakSeed != 0 {
		long(t)
		return
	}
	t.Parallel()
	// between them they have most kinds of faults
	for name, seed := range map[string]uint64{"embedded": 5, "external": 8, "glances": 4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := scenarios[slices.IndexFunc(scenarios, func(s scenario) bool {
				return s.name == name
			})]
			w := s.cycle(t, seed, 5, "go test ./internal/test/soak -run TestSoak/"+name)
			t.Log(summary(w.stats), tally(w.counts))
		})
	}
}

// TestBrokerAway: a rollcall that is ended while the broker is away says what it could not publish,
// and the next one does.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	const changes = 7
	w := newWorld(t, layout{nodes: 1, agents: 60}, 1,
		"go test ./internal/test/soak -run TestBrokerAway")
	w.record()
	tn, r := w.tenants[0], w.replicas()[0]
	w.start(r)
	w.swept(tn.id, time.Now(), r.name)
	w.killNode(w.nodes[0])
	for _, id := range tn.vendor.IDs()[:changes] {
		tn.vendor.Edit(id, isdpsim.Fields{"capacity": "99"})
	}
	sweeps := func() int { return len(r.proc.Logged("sweep complete")) }
	seen := sweeps()
	// the first may have begun before
	wait.Eventually(t, "two more sweeps", func() bool { return sweeps() >= seen+3 })
	w.note("SIGTERM %s", r.name)
	code, took := r.proc.Terminate()
	if want := fmt.Sprintf("%d changes that were seen are not known to be published",
		changes); code != 1 || !strings.Contains(r.proc.Stderr(), want) {
		t.Errorf("ended with %d unpublished changes: exit %d after %v, without saying so", changes,
			code, took)
	}
	w.startNode(w.nodes[0])
	w.start(r)
	w.churn()
	w.swept(tn.id, time.Now(), r.name)
	w.finish(nil)
	t.Log(summary(w.stats))
}

// longFaults is how many faults a cycle of the long run has.
const longFaults = 20

// long goes through the scenarios until the time is over.
func long(t *testing.T) {
	until := time.Now().Add(*soakFor)
	var seeds []string
	counts, perScenario := map[string]int{}, map[string]int{}
	var stats checker.Stats
	broken, failed := 0, 0
	defer func() {
		t.Logf("summary: %d cycles (%s), %d of them failed\nfaults: %s\nchecked: %s\nviolations: "+
			"%d\nseeds: %s",
			len(seeds), tally(perScenario), failed, tally(counts), summary(stats), broken,
			strings.Join(seeds, " "))
	}()
	chosen := slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool {
		return *soakScenario != "" && s.name != *soakScenario
	})
	if len(chosen) == 0 {
		t.Fatalf("no scenario is named %q", *soakScenario)
	}
	for i := 0; ; i++ {
		s, seed := chosen[i%len(chosen)], *soakSeed
		if seed == 0 {
			seed = rand.Uint64()>>32 | 1
		}
		ok := t.Run(fmt.Sprintf("%s/%d", s.name, seed), func(t *testing.T) {
			again := fmt.Sprintf(
				"go test ./internal/test/soak -run Soak -soak.seed %d -soak.scenario %s -v", seed,
				s.name)
			begun := time.Now()
			w := s.cycle(t, seed, longFaults, again)
			for kind, n := range w.counts {
				counts[kind] += n
			}
			add(&stats, w.stats)
			broken += w.broken
			t.Logf("%v: %s; %s", time.Since(begun).Round(time.Second), tally(w.counts),
				summary(w.stats))
		})
		seeds = append(seeds, fmt.Sprintf("%s:%d", s.name, seed))
		perScenario[s.name]++
		if !ok {
			failed++
		}
		if *soakSeed != 0 && i+1 == len(chosen) || *soakSeed == 0 && time.Now().After(until) {
			return
		}
	}
}
