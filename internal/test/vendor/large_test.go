//go:build unix

package vendor

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rollcall-events/rollcall/internal/packed"
	. "github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// state is the agent's state in the stream.
func (r *rig) state(id int64) (e schemas.Event) {
	r.t.Helper()
	m, err := r.nc.Request("$JS.API.DIRECT.GET."+schemas.Stream+"."+schemas.StateSubject(tenant,
		id), nil, wait.Patience)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := e.UnmarshalJSON(m.Data); err != nil {
		r.t.Fatal(err)
	}
	return e
}

// many are n undocumented fields.
func many(n, value int) Fields {
	f := Fields{}
	for i := range n {
		f[fmt.Sprintf("u%d", i)] = fmt.Sprint(value)
	}
	return f
}

// A change that fits into a message only without the undocumented fields in it goes without them,
// and says so.
func TestChangesTooManyToList(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{seed: 41, agents: 12, churn: -1, maxPayload: 64 << 10, maxRow: 32 << 10})
	r.stopChurn()
	id := r.sim.IDs()[3]
	agent, _ := r.sim.Agent(id)
	was, _, err := packed.Decode(agent, tenant)
	if err != nil {
		t.Fatal(err)
	}
	f := many(2000, 0)
	f["areaName"] = `"elsewhere"`
	r.sim.Edit(id, f)
	r.sweeps(2)
	before := r.state(id)

	status := fmt.Sprint(1 - was.Unpack().OnlineStatus)
	f = many(2000, 7)
	f["onlineStatus"] = status
	r.sim.Edit(id, f)
	w := r.sweeps(2)
	e := r.state(id)
	if d := e.Data; d.Reason != schemas.Status || d.Revision != before.Data.Revision+1 ||
		!d.ChangesTruncated ||
		len(d.Changes) != 1 || d.Changes[0].Field != "onlineStatus" || len(d.Agent.Other) < 2000 ||
		string(d.Agent.Other[9].Value) != "7" {
		t.Errorf("the event has reason %s, revision %d after %d, %d changes, truncated %t, %d "+
			"undocumented fields", d.Reason, d.Revision,
			before.Data.Revision, len(d.Changes), d.ChangesTruncated, len(d.Agent.Other))
	}
	if w.Rejected != 0 {
		t.Errorf("%d records rejected", w.Rejected)
	}
	r.quiesce()
	r.finish(checker.Options{})
}

// A change that does not fit even so is a rejected record: counted in every sweep that shows it,
// told once, and over when the agent can be published again.
func TestChangeTooLargeToPublish(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{seed: 42, agents: 12, churn: -1, maxPayload: 48 << 10, maxRow: 32 << 10})
	r.stopChurn()
	id, other := r.sim.IDs()[3], r.sim.IDs()[4]
	name := func(c string, n int) Fields {
		text, _ := json.Marshal(strings.Repeat(c, n))
		return Fields{"agentName": string(text)}
	}
	r.sim.Edit(id, name("a", 20<<10))
	r.sweeps(2)
	before, begin := r.state(id), r.now()

	r.sim.Edit(id, name("b", 20<<10))
	r.sim.SetOnline(other, !r.state(other).Data.Online)
	for range 4 {
		if w := r.sweeps(1); w.StartedAt.After(begin) && w.Rejected != 1 {
			t.Errorf("sweep %d rejected %d records, want 1", w.Sweep, w.Rejected)
		}
	}
	if e := r.state(id); e.Data.Revision != before.Data.Revision || e.Data.ChangesTruncated {
		t.Errorf("published at revision %d after %d", e.Data.Revision, before.Data.Revision)
	}
	if n := strings.Count(r.logged.String(), "too large to publish"); n != 1 {
		t.Errorf("told %d times, want once", n)
	}
	r.sim.Edit(id, name("c", 9))
	if w := r.sweeps(2); w.Rejected != 0 {
		t.Errorf("%d records rejected afterwards", w.Rejected)
	}
	e := r.state(id)
	if e.Data.Revision != before.Data.Revision+1 ||
		*e.Data.Agent.AgentName != strings.Repeat("c", 9) {
		t.Errorf("published at revision %d after %d", e.Data.Revision, before.Data.Revision)
	}
	r.quiesce()
	r.finish(checker.Options{Outages: []checker.Interval{{From: begin, To: e.Time}}})
}
