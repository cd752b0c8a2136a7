package diff

import (
	"fmt"
	"math"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// What a watermark counts by type, in every commit and after a start. The property test counts
// whatever else can happen.
func TestTypeCounts(t *testing.T) {
	now, sweep := start, uint64(0)
	r := NewRoster(Rules{RemoveAfter: 1, MaxMissing: 1})
	log := map[int64]*State{}
	agent := func(id int64, kind *string, status int64, capacity *int64) packed.Agent {
		return packed.Pack(&schemas.Agent{AgentID: id, TenantID: tenant, Type: kind,
			OnlineStatus: status, Capacity: capacity})
	}
	steps := []struct {
		name   string
		agents []packed.Agent
		want   map[string]schemas.TypeCounts
	}{
		{"nobody", nil, nil},
		{"all kinds", []packed.Agent{
			agent(1, new("10"), 1, new(int64(3))), agent(2, new("10"), 1, nil),
			agent(3, new("10"), 0, new(int64(7))), agent(4, new("0"), 0, new(int64(7))),
			agent(5, nil, 1, new(int64(1))), agent(6, new("a.b"), 1, new(int64(2))),
			agent(7, new(""), 2, new(int64(4))),
			agent(8, new("2"), 1, new(int64(math.MaxInt32))),
			agent(9, new("2"), 1, new(int64(math.MaxInt32))),
		}, map[string]schemas.TypeCounts{"10": {Agents: 3, Online: 2, Capacity: 3},
			"0": {Agents: 1}, "_": {Agents: 3, Online: 2, Capacity: 3},
			"2": {Agents: 2, Online: 2, Capacity: 2 * math.MaxInt32}}},
		{"other capacity, other type, signed out, gone", []packed.Agent{
			agent(1, new("10"), 1, new(int64(5))), agent(2, new("0"), 1, new(int64(4))),
			agent(3, new("10"), 0, nil), agent(4, new("0"), 1, new(int64(7))),
			agent(5, nil, 0, new(int64(1)))},
			map[string]schemas.TypeCounts{"10": {Agents: 2, Online: 1, Capacity: 5},
				"0": {Agents: 2, Online: 2, Capacity: 11}, "_": {Agents: 1}}},
	}
	for _, step := range steps {
		sweep++
		s := toldSweep{Number: sweep, StartedAt: now, EndedAt: now.Add(time.Second)}
		observe(r, toldPage{Sweep: sweep, Sent: now, Read: now.Add(time.Second),
			Agents: step.agents})
		complete(r, s)
		c := commit(r, all)
		for i := range c.Events {
			log[c.Events[i].Data.Agent.AgentID] = packed.StateOf(&c.Events[i])
		}
		if d := gocmp.Diff(step.want, c.Watermark.Types, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, d)
		}
		again := TakeOver(log, &c.Watermark, false, nil, sweep+1, now, now).Watermark
		if d := gocmp.Diff(c.Watermark.Types, again.Types); d != "" {
			t.Errorf("%s, after a start (-before +after):\n%s", step.name, d)
		}
		now = now.Add(time.Minute)
	}
}

// A vendor with a type of its own for everybody does not make watermarks too large to publish.
func TestTooManyTypes(t *testing.T) {
	r := NewRoster(Rules{RemoveAfter: 1, MaxMissing: 1})
	for _, n := range []int{mostTypes, mostTypes + 1} {
		var agents []packed.Agent
		for i := range n {
			agents = append(agents, packed.Pack(&schemas.Agent{AgentID: int64(i + 1),
				TenantID: tenant, Type: new(fmt.Sprintf("%032d", i)), OnlineStatus: 1,
				Capacity: new(int64(math.MaxInt32))}))
		}
		observe(r, toldPage{Sweep: uint64(n), Sent: start, Read: start, Agents: agents})
		w := commit(r, all).Watermark
		if counted := len(w.Types) > 0; counted != (n == mostTypes) || w.Online != n {
			t.Errorf("of %d types %d are counted, and %d agents", n, len(w.Types), w.Online)
		}
		if size := len(w.AppendJSON(nil)); size > 24<<10 {
			t.Errorf("%d types: the watermark has %d bytes", n, size)
		}
	}
}
