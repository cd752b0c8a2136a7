//go:build unix

package vendor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// of is a fault of the listing of a type.
func of(typ int, f Fault) Hook {
	return func(q Request) Fault { return when(q.Endpoint == AgentsEndpoint && q.Type == typ, f) }
}

// extra shows a row at the end of a listing.
func extra(typ int, row json.RawMessage) Hook {
	return of(typ, All(TotalCountOff(1), func(p *Plan) {
		Rows(func(own []Row) []Row {
			if len(own) < p.Request.PageSize {
				own = append(own, Row{JSON: row})
			}
			return own
		})(p)
	}))
}

func patched(t *testing.T, row json.RawMessage, f Fields) json.RawMessage {
	t.Helper()
	row, err := Patch(row, f)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// events are all events of an agent so far.
func (r *rig) events(id int64) (out []schemas.Event) {
	for _, m := range r.live.Messages() {
		var e schemas.Event
		if strings.HasPrefix(m.Subject, "agent.state.") && e.UnmarshalJSON(m.Body) == nil &&
			e.Data.Agent.AgentID == id {
			out = append(out, e)
		}
	}
	return out
}

// typesOf moves every third agent to another type, so that there are some of two.
func typesOf(r *rig, types ...int) {
	for i, id := range r.sim.IDs() {
		r.sim.Edit(id, Fields{"type": fmt.Sprintf(`"%d"`, types[i%len(types)])})
	}
}

// One of two listings that is empty of a sudden takes nobody off duty.
func TestOneListingIsEmpty(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{seed: 51, agents: 36, churn: -1, types: []int{0, 10}})
	r.stopChurn()
	typesOf(r, 10, 10, 10, 0)
	r.sweeps(4)
	on := r.now()
	r.inject(of(0, EmptyListing()))
	r.waitHealth(schemas.HealthHolding, schemas.MissingMany)
	if w := r.sweeps(5); w.Missing != 9 || !slices.Equal(w.Polled, []string{"0", "10"}) {
		t.Errorf("%d agents missing of the types %q, want 9", w.Missing, w.Polled)
	}
	nobodyRemoved(r, on)
	r.quiesce()
	r.finish(checker.Options{Outages: []checker.Interval{{From: on, To: r.now()}}})
}

// A listing that was cut off while nobody looked, with the rows behind it still there, is not
// complete.
func TestListingIsCutOffMeanwhile(t *testing.T) {
	t.Parallel()
	for _, types := range [][]int{nil, {0, 10}} {
		t.Run(fmt.Sprint(types), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{seed: 56, agents: 40, churn: -1, types: types})
			r.stopChurn()
			typesOf(r, 0, 10)
			r.sweeps(3)
			begin := r.now()
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			r.inject(OnAgents(TotalCount(15)))
			r.start()
			r.stopChurn()
			r.waitHealth(schemas.HealthFailing, schemas.Inconsistent)
			if h := r.lastHealth(); !strings.Contains(h.Detail, "is cut off") {
				t.Errorf("health says %q", h.Detail)
			}
			nobodyRemoved(r, begin)
			r.quiesce()
			r.finish(checker.Options{Outages: []checker.Interval{{From: begin, To: r.now()}}})
		})
	}
}

// In a tenant of three agents one that leaves is off duty after two sweeps. One that is all there
// is stays, since nobody can tell that from an empty answer.
func TestOneOfAFewLeaves(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{seed: 52, agents: 3, churn: -1})
	r.stopChurn()
	ids := r.sim.IDs()
	r.sim.Remove(ids[0])
	wait.Eventually(r.t, "the removal", func() bool { return r.removed(ids[0]) })
	r.sim.Remove(ids[1])
	wait.Eventually(r.t, "the next removal", func() bool { return r.removed(ids[1]) })
	r.sim.Remove(ids[2])
	r.waitHealth(schemas.HealthHolding, schemas.MissingMany)
	r.sweeps(4)
	if r.removed(ids[2]) {
		t.Error("the last agent was removed")
	}
	on := r.now()
	r.sim.Restore(ids[2])
	r.quiesce()
	r.finish(checker.Options{RemovalBound: -1,
		Outages: []checker.Interval{{From: on, To: r.now()}}})
}

// An agent in two polled listings, in different states: one of them is gone by.
func TestAgentInTwoListings(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{seed: 53, agents: 20, churn: -1, types: []int{0, 10}})
	r.stopChurn()
	typesOf(r, 0, 10)
	id := r.sim.IDs()[2] // of type 0
	r.sim.SetOnline(id, true)
	r.sweeps(3)
	before, begin := len(r.events(id)), r.now()
	row, _ := r.sim.Agent(id)
	for _, other := range []json.RawMessage{
		patched(t, row, Fields{"onlineStatus": "0"}),                 // names type 0
		patched(t, row, Fields{"onlineStatus": "0", "type": "null"}), // names none
		// names its own: the first one counts
		patched(t, row, Fields{"onlineStatus": "0", "type": `"10"`}),
		// differs in something else
		patched(t, row, Fields{"areaName": `"both"`, "type": `"10"`}),
		patched(t, row, Fields{"deleteFlag": "1", "onlineStatus": "0"}), // is deleted there
	} {
		r.inject(extra(10, other))
		if w := r.sweeps(6); w.Missing != 0 {
			t.Errorf("%d missing", w.Missing)
		}
		if e := r.state(id); !e.Data.Online || *e.Data.Agent.Type != "0" {
			t.Errorf("the agent is published with type %q, online %t", *e.Data.Agent.Type,
				e.Data.Online)
		}
	}
	if n := len(r.events(id)) - before; n > 2 {
		t.Errorf("%d events in 30 sweeps in which nothing changed, want none, or one and back", n)
	}
	if n := strings.Count(r.logged.String(), "listed under two of the polled types"); n != 1 {
		t.Errorf("told %d times, want once", n)
	}
	// Where its own listing shows it no more, the other one counts.
	r.sim.Remove(id)
	r.inject(extra(10, patched(t, row, Fields{"onlineStatus": "0"})))
	wait.Eventually(r.t, "what the other listing says", func() bool {
		return !r.state(id).Data.Online
	})
	r.sweeps(4)
	if e := r.state(id); e.Data.Reason == schemas.Removed {
		t.Error("the agent was removed, and a listing shows it")
	}
	r.quiesce()
	r.finish(checker.Options{Outages: []checker.Interval{{From: begin, To: r.now()}}})
}

// Agents without a type that left while nobody looked are removed by the next process.
func TestRowWithoutTypeLeavesMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{seed: 54, agents: 20, churn: -1, types: []int{0, 10}})
	r.stopChurn()
	typesOf(r, 0, 10)
	stray := r.sim.IDs()[0]
	begin := r.now()
	r.sim.Edit(stray, Fields{"type": "null", "onlineStatus": "1"})
	row, _ := r.sim.Agent(stray)
	r.inject(extra(0, row)) // the simulated tenant does not list it by type
	r.sweeps(3)
	if !r.state(stray).Data.Online {
		t.Fatal("the agent is not online")
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r.inject(nil)
	r.sim.Remove(stray)
	r.start()
	r.stopChurn()
	wait.Eventually(r.t, "the removal", func() bool { return r.removed(stray) })
	r.quiesce()
	r.finish(checker.Options{Outages: []checker.Interval{{From: begin, To: r.now()}}})
}

// What a process that polled other types had not looked at is not said to have been seen by it.
func TestNotBeforeOfTypesNotPolled(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{seed: 55, agents: 20, churn: -1, types: []int{0, 10}})
	r.stopChurn()
	typesOf(r, 0, 10)
	r.sweeps(3)
	ids := r.sim.IDs()
	old, polled, quiet := ids[0], ids[1], ids[3] // of the types 0, 10, 10
	was := map[int64]schemas.Event{}
	for _, id := range []int64{old, polled, quiet} {
		was[id] = r.state(id)
	}
	stop := func() {
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	start := func(types ...int) {
		r.setup.types = types
		r.start()
		r.stopChurn()
		r.swept(r.now())
	}
	begin := r.now()
	stop()
	start(10)
	r.sim.SetOnline(old, !was[old].Data.Online)
	r.sweeps(2)
	stop()
	mark := r.mark()
	r.sim.SetOnline(polled, !was[polled].Data.Online)
	r.sim.Edit(quiet, Fields{"areaName": `"elsewhere"`})
	start(0, 10)
	for id, want := range map[int64]time.Time{old: was[old].Time, polled: mark.StartedAt,
		quiet: was[quiet].Time} {
		if e := r.state(id); e.Data.Revision != was[id].Data.Revision+1 ||
			!e.Data.NotBefore.Equal(want) {
			t.Errorf("agent %d at revision %d after %d, not before %v, want %v", id,
				e.Data.Revision, was[id].Data.Revision, e.Data.NotBefore, want)
		}
	}
	if got := mark.Polled; !slices.Equal(got, []string{"10"}) {
		t.Errorf("the watermark says that %q were polled", got)
	}
	r.quiesce()
	r.finish(checker.Options{OtherTypes: true,
		Outages: []checker.Interval{{From: begin, To: r.now()}}})
}
