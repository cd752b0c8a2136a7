package isdp

import (
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/listing"
)

// A page that is, byte for byte, what it was is not decoded again, and shows the same.
func TestUnchangedPages(t *testing.T) {
	sim := isdpsim.New(isdpsim.Config{Agents: 120})
	p := served(t, sim, func(c *settings) { c.RateLimit = 1000 })
	ids := sim.IDs()
	for _, id := range ids[:3] {
		sim.Edit(id, isdpsim.Fields{"areaName": "{}"})
	}
	sim.Edit(ids[10], isdpsim.Fields{"onlineStatus": `"?"`})
	sweep := func() map[int]*listing.Page {
		v, pages := sweeptest.Once(t, p)
		if !v.Complete || v.Agents != 119 || v.Rejected != 1 || v.Dropped != 3 || v.Pages != 3 {
			t.Fatalf("%+v", v)
		}
		byNumber := make(map[int]*listing.Page)
		for _, page := range pages {
			byNumber[page.Number] = page
		}
		return byNumber
	}
	first, again := sweep(), sweep()
	sim.Edit(ids[0], isdpsim.Fields{"agentName": `"somebody else"`})
	changed := sweep()
	for number, page := range again {
		was := first[number]
		if d := cmp.Diff(was, page, cmpopts.IgnoreFields(listing.Page{}, "Sent", "Read")); d != "" {
			t.Errorf("page %d shows something else: %s", number, d)
		}
		if &page.Agents[0] != &was.Agents[0] {
			t.Errorf("page %d was decoded again", number)
		}
		if same := &page.Agents[0] == &changed[number].Agents[0]; same != (number != 0) {
			t.Errorf("page %d, after page 0 changed: taken for the same: %t", number, same)
		}
	}
	if name := *new(changed[0].Agents[0].Unpack()).AgentName; name != "somebody else" {
		t.Errorf("the changed page shows %q", name)
	}
}

// How long a row may be follows the limit as it is now, also on a page that is the same as before.
func TestRowLimitMoves(t *testing.T) {
	sim := isdpsim.New(isdpsim.Config{Agents: 60})
	sim.Edit(sim.IDs()[3], isdpsim.Fields{"note": `"` + strings.Repeat("x", 10<<10) + `"`})
	limit := 8 << 10
	p := served(
		t,
		sim,
		func(c *settings) { c.RateLimit, c.MaxRowBytes = 1000, func() int { return limit } },
	)
	for _, c := range []struct{ limit, rejected int }{{8 << 10, 1}, {16 << 10, 0}, {16 << 10, 0},
		{8 << 10, 1}} {
		limit = c.limit
		v, _ := sweeptest.Once(t, p)
		if !v.Complete || v.Rejected != c.rejected || v.Agents != 60-c.rejected {
			t.Errorf("with a limit of %d: %+v", c.limit, v)
		}
	}
}

func encoded(p packed.Agent) string { return string(new(p.Unpack()).AppendJSON(nil)) }
