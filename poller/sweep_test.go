package poller_test

import (
	"bytes"
	"fmt"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/listing"
)

// What goes wrong for a while is mended within the sweep.
func TestMended(t *testing.T) {
	once := func(h isdpsim.Hook) isdpsim.Hook { return isdpsim.Times(1, h) }
	ids := isdpsim.New(isdpsim.Config{}).IDs()
	for name, tc := range map[string]struct {
		hook     isdpsim.Hook
		requests int // for pages, seven without the fault; 0: any
	}{
		"5xx":       {isdpsim.Times(3, isdpsim.OnPage(0, isdpsim.Status(502))), 10},
		"HTML":      {once(isdpsim.OnPage(3, isdpsim.HTML())), 8},
		"truncated": {once(isdpsim.OnPage(3, isdpsim.Truncated(1000))), 8},
		"no JSON": {once(isdpsim.OnPage(3,
			isdpsim.Body(func(b []byte) []byte { return b[1:] }))), 8},
		"empty body": {once(isdpsim.OnPage(3, isdpsim.Empty())), 8},
		"stateCode":  {once(isdpsim.OnPage(3, isdpsim.StateCode("500", "系统繁忙"))), 8},
		"slow":       {once(isdpsim.OnPage(3, isdpsim.Delay(time.Minute))), 8},
		"short page": {once(isdpsim.OnPage(3, isdpsim.DropRows(0, 3))), 8},
		"long page": {once(isdpsim.OnPage(3,
			isdpsim.DuplicateRow(1, isdpsim.Fields{"agentId": "9"}))), 8},
		"a row twice": {once(isdpsim.OnPage(3, isdpsim.DuplicateRow(1, nil))), 7},
		"no rows": {once(isdpsim.OnPage(3,
			isdpsim.Rows(func([]isdpsim.Row) []isdpsim.Row { return nil }))), 0},
		"wrong pos":          {once(isdpsim.OnPage(3, isdpsim.Pos(2))), 8},
		"same page":          {isdpsim.Times(3, isdpsim.OnAgents(isdpsim.SamePage(0))), 0},
		"low total":          {once(isdpsim.OnPage(3, isdpsim.TotalCount(1))), 0},
		"high total":         {once(isdpsim.OnPage(3, isdpsim.TotalCount(100_000))), 0},
		"high total, page 0": {once(isdpsim.OnPage(0, isdpsim.TotalCount(199_999))), 0},
		"absurd total":       {once(isdpsim.OnPage(3, isdpsim.TotalCount(1e12))), 8},
		"empty listing":      {once(isdpsim.OnPage(3, isdpsim.EmptyListing())), 0},
		"somebody comes": {once(isdpsim.OnPage(5,
			isdpsim.Meanwhile(func(t *isdpsim.Tenant) { t.AddAgent() }))), 0},
		"a page's worth comes": {once(isdpsim.OnPage(5, isdpsim.Meanwhile(func(t *isdpsim.Tenant) {
			for range sweeptest.SmallPage {
				t.AddAgent()
			}
		}))), 0},
		"somebody leaves": {once(isdpsim.OnPage(5,
			isdpsim.Meanwhile(func(t *isdpsim.Tenant) { t.Remove(ids[0]) }))), 0},
		"pages shift": {once(isdpsim.OnPage(5, isdpsim.Meanwhile(func(t *isdpsim.Tenant) {
			t.Remove(ids[0])
			t.AddAgent()
		}))), 0},
		"pages shift the other way": {isdpsim.Hooks(
			once(isdpsim.OnPage(0, isdpsim.Meanwhile(func(t *isdpsim.Tenant) {
				t.Remove(ids[0])
			}))),
			once(isdpsim.OnPage(3, isdpsim.Meanwhile(func(t *isdpsim.Tenant) {
				t.Remove(ids[33])
				t.Restore(ids[0])
			}))),
		), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
				sim.SetFault(tc.hook)
				v, pages := sweeptest.Once(t, direct(t, sim, nil))
				if !v.Complete {
					t.Fatal(v.Err)
				}
				if want := len(sim.IDs()); v.Agents != want && name != "pages shift" {
					t.Errorf("%d agents, %d are listed", v.Agents, want)
				}
				if len(pages) < 7 || v.Pages < 7 {
					t.Errorf("%d pages emitted, %d in the verdict", len(pages), v.Pages)
				}
				n := sim.Stats().PageRequests
				if tc.requests != 0 && n != tc.requests || n > 40 {
					t.Errorf("%d pages were asked for, want %d", n, tc.requests)
				}
			})
		})
	}
}

// What stays wrong makes an incomplete sweep, with the right reason, without many requests, and
// what can be read is read.
func TestIncomplete(t *testing.T) {
	for name, tc := range map[string]struct {
		hook     isdpsim.Hook
		class    listing.Class
		words    string
		pages    int // that must have been emitted, at least
		requests int // for pages, at most
	}{
		"5xx": {isdpsim.OnPage(3, isdpsim.Status(500)), listing.Unreachable,
			"read page 3 from http://localhost/openapi/v1/openTask/findOnlineAgent: HTTP 500", 6,
			10},
		"5xx, page 0": {isdpsim.OnPage(0, isdpsim.Status(500)), listing.Unreachable,
			"page 0", 0, 4},
		"everything 5xx": {isdpsim.After(1, isdpsim.OnAgents(isdpsim.Status(500))),
			listing.Unreachable, "HTTP 500", 1, 25},
		"403": {isdpsim.OnPage(3, isdpsim.Status(403)), listing.Unusable,
			"HTTP 403", 6, 10},
		"HTML":            {isdpsim.OnPage(3, isdpsim.HTML()), listing.Unusable, "HTML", 6, 10},
		"HTML everywhere": {isdpsim.OnAgents(isdpsim.HTML()), listing.Unusable, "HTML", 0, 4},
		"truncated": {isdpsim.OnPage(3, isdpsim.Truncated(1000)), listing.Unusable,
			"cut short", 6, 10},
		"stateCode": {isdpsim.OnAgents(isdpsim.StateCode("500", "系统繁忙")),
			listing.Unusable, "系统繁忙", 0, 4},
		"short page": {isdpsim.OnPage(3, isdpsim.DropRows(0)), listing.Inconsistent,
			"page 3 has 4 rows", 7, 10},
		"short everywhere": {isdpsim.OnAgents(isdpsim.DropRows(0)), listing.Inconsistent, "rows",
			7, 29},
		"wrong pos": {isdpsim.OnPage(3, isdpsim.Pos(2)), listing.Inconsistent,
			"another page", 7, 10},
		"same page": {isdpsim.OnAgents(isdpsim.SamePage(0)), listing.Inconsistent, "", 2,
			30},
		"low total": {isdpsim.OnAgents(isdpsim.TotalCount(4)), listing.Inconsistent,
			"page 0 has 5 rows", 5, 5},
		"high total": {isdpsim.OnAgents(isdpsim.TotalCount(199_999)), listing.Inconsistent,
			"", 7, 40},
		"high total, same": {isdpsim.OnAgents(isdpsim.All(isdpsim.SamePage(1),
			isdpsim.TotalCount(199_999))), listing.Inconsistent, "", 2, 40},
		"absurd total": {isdpsim.OnAgents(isdpsim.TotalCount(1e12)), listing.Unusable,
			"total_count", 0, 4},
		"one more than there": {isdpsim.OnAgents(isdpsim.TotalCountOff(1)), listing.Inconsistent,
			"page 6 has 4 rows, total_count 35", 7, 10},
		"twice": {isdpsim.OnPage(3, isdpsim.Rows(func(r []isdpsim.Row) []isdpsim.Row {
			r[0] = r[1]
			return r
		})),
			listing.Inconsistent, "33 agents, 1 of them twice", 7, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
				sim.SetFault(tc.hook)
				v, pages := sweeptest.Once(t, direct(t, sim, nil))
				sweeptest.WantClass(t, v.Err, tc.class, tc.words)
				if len(pages) < tc.pages {
					t.Errorf("%d pages emitted, want %d", len(pages), tc.pages)
				}
				if n := sim.Stats().PageRequests; n > tc.requests {
					t.Errorf("%d pages were asked for, want up to %d", n, tc.requests)
				}
			})
		})
	}
}

// A vendor that goes away in the middle of a large listing is not asked for every page of it.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: 5000})
		sim.SetFault(isdpsim.After(20, isdpsim.OnAgents(isdpsim.Status(503))))
		v, pages := sweeptest.Once(t, direct(t, sim, nil))
		sweeptest.WantClass(t, v.Err, listing.Unreachable, "HTTP 503")
		if n := sim.Stats().PageRequests; len(pages) != 20 || n > 20+(25+4)*4 {
			t.Errorf("%d pages, %d requests", len(pages), n)
		}
	})
}

func TestRejectedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		sim := isdpsim.New(isdpsim.Config{})
		ids := sim.IDs()
		sim.Edit(ids[0], isdpsim.Fields{"onlineStatus": `"perhaps"`})
		sim.Edit(ids[51], isdpsim.Fields{"tenantId": `1`})
		sim.Edit(ids[339], isdpsim.Fields{"agentId": ``})
		sim.Edit(ids[338], isdpsim.Fields{"capacity": `{}`})
		sim.Add([]byte(`"no object"`))
		p := direct(t, sim, func(c *settings) { logTo(&log)(c); c.PageSize = 50 })
		v, _ := sweeptest.Once(t, p)
		if !v.Complete || v.Agents != 337 || v.Rejected != 4 || v.Unidentified != 2 ||
			v.Dropped != 1 {
			t.Errorf("%+v", v)
		}
		for _, want := range []string{
			fmt.Sprintf("page=0 index=0 reason=onlineStatus agentId=%d\n", ids[0]),
			fmt.Sprintf("page=1 index=1 reason=tenant agentId=%d\n", ids[51]),
			"page=6 index=39 reason=agentId\n",
			"page=6 index=40 reason=syntax detail=",
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log has no %q: %s", want, &log)
			}
		}
		for _, id := range ids[100:200] {
			sim.Edit(id, isdpsim.Fields{"onlineStatus": `null`})
		}
		log.Reset()
		v, _ = sweeptest.Once(t, p)
		if !v.Complete || v.Rejected != 104 {
			t.Errorf("%+v", v)
		}
		if n := strings.Count(log.String(), "\n"); n != 10+1 ||
			!strings.Contains(log.String(), "count=90") {
			t.Errorf("%d lines: %s", n, &log) // the other four have been told
		}
		log.Reset()
		if v, _ = sweeptest.Once(t, p); !v.Complete || v.Rejected != 104 || log.Len() > 0 {
			t.Errorf("the same records once more: %+v, %s", v, &log)
		}
	})
}

// Everything at once, from a seed: no sweep that claims to be complete misses or makes up an agent.
func TestMixedFaults(t *testing.T) {
	agents := func(f isdpsim.Fault) isdpsim.Hook { return isdpsim.OnAgents(f) }
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant, Seed: seed})
				var hooks []isdpsim.Hook
				for i, h := range []isdpsim.Hook{
					agents(isdpsim.Status(500)), agents(isdpsim.RetryAfter(429, time.Second)),
					agents(isdpsim.HTML()),
					agents(isdpsim.Truncated(500)), agents(isdpsim.StateCode("7", "")),
					agents(isdpsim.Delay(20 * time.Second)),
					agents(isdpsim.DropRows(3)), agents(isdpsim.TotalCountOff(-6)),
					agents(isdpsim.SamePage(2)),
					agents(isdpsim.RevokeTokens()), agents(isdpsim.Pos(1)),
					isdpsim.OnToken(isdpsim.Status(500)),
				} {
					hooks = append(hooks, isdpsim.Sometimes(seed*100+uint64(i), 0.02, h))
				}
				sim.SetFault(isdpsim.Hooks(hooks...))
				p := direct(t, sim, nil)
				complete := 0
				for range 20 {
					v, pages := sweeptest.Once(t, p)
					if v.Complete {
						complete++
						sweeptest.WantAll(t, sim, v, pages)
					}
					time.Sleep(5 * time.Second)
				}
				if complete < 10 {
					t.Errorf("%d of 20 sweeps were complete", complete)
				}
				if s := sim.Stats(); s.MaxInFlight > 4 {
					t.Errorf("%d requests in flight", s.MaxInFlight)
				}
				sim.SetFault(nil)
				time.Sleep(time.Minute)
				v, pages := sweeptest.Once(t, p)
				sweeptest.WantAll(t, sim, v, pages)
			})
		})
	}
}

// Where total_count has fallen, the page behind the last one is asked for: a listing that is cut
// off is not complete, one that has shrunk is, however the vendor answers for a page that is not
// there.
func TestPageBehindTheLast(t *testing.T) {
	behind := func(page int, f isdpsim.Fault) isdpsim.Hook { // total_count is 20, of 5 a page
		return isdpsim.OnPage(page, f)
	}
	gone := isdpsim.Rows(func([]isdpsim.Row) []isdpsim.Row { return nil })
	cut := isdpsim.OnAgents(isdpsim.TotalCount(20))
	for name, tc := range map[string]struct {
		hook     isdpsim.Hook
		class    listing.Class // empty: complete
		requests int           // 0: any
	}{
		"cut off": {cut, listing.Inconsistent, 0},
		"shrunk":  {isdpsim.Hooks(cut, behind(4, gone)), "", 5},
		"refused": {isdpsim.Hooks(cut,
			behind(4, isdpsim.StateCode("500", "no such page"))), "", 5},
		"refused with 404":     {isdpsim.Hooks(cut, behind(4, isdpsim.Status(404))), "", 5},
		"the first page again": {isdpsim.Hooks(cut, behind(4, isdpsim.SamePage(0))), "", 5},
		"the last page again": {isdpsim.Hooks(cut,
			behind(4, isdpsim.All(isdpsim.SamePage(3), isdpsim.Pos(3)))), "", 5},
		"empty, with total_count 0": {isdpsim.Hooks(cut,
			behind(4, isdpsim.All(gone, isdpsim.TotalCount(0)))), "", 5},
		"fails over it": {isdpsim.Hooks(cut, behind(4, isdpsim.Status(500))), "", 7},
		"HTML": {isdpsim.Hooks(cut, behind(4, isdpsim.HTML())),
			listing.Unusable, 0},
		"cut short": {isdpsim.Hooks(cut, behind(4, isdpsim.Truncated(60))),
			listing.Unusable, 0},
		"cannot be read": {isdpsim.Hooks(cut, behind(4, isdpsim.Status(502))),
			listing.Unreachable, 0},
		"read late": {isdpsim.Hooks(cut,
			isdpsim.Times(1, behind(4, isdpsim.Status(502))), behind(4, gone)), "", 0},
		"cut off by one": {isdpsim.OnAgents(isdpsim.All(isdpsim.TotalCount(30),
			func(p *isdpsim.Plan) {
				if p.Request.Page == 6 { // the row that is left
					p.Rows = append(p.Rows, func(rows []isdpsim.Row) []isdpsim.Row {
						return rows[:1]
					})
				}
			})), listing.Inconsistent, 0},
	} {
		for _, typed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, typed %t", name, typed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
					for _, id := range sim.IDs() {
						sim.Edit(id, isdpsim.Fields{"type": `"10"`})
					}
					p := direct(t, sim, func(c *settings) {
						if typed {
							c.Types = []int{10}
						}
					})
					if v, _ := sweeptest.Once(t, p); !v.Complete {
						t.Fatal(v.Err)
					}
					before := sim.Stats().PageRequests
					if before != 7 {
						t.Errorf("%d requests in the first sweep, want 7", before)
					}
					sim.SetFault(tc.hook)
					v, pages := sweeptest.Once(t, p)
					if v.Complete != (tc.class == "") {
						t.Fatalf("complete %t: %v", v.Complete, v.Err)
					}
					if n := sim.Stats().PageRequests - before; tc.requests != 0 &&
						n != tc.requests {
						t.Errorf("%d requests, want %d", n, tc.requests)
					}
					if tc.class == listing.Inconsistent {
						sweeptest.WantClass(t, v.Err, tc.class, "behind the last one, still has")
						if strings.Contains(v.Err.Error(), "of type 10") != typed {
							t.Errorf("the error does not name its listing as it should: %v", v.Err)
						}
						if n := len(pages); pages[n-1].Agents == nil {
							t.Error("what is behind the last page was not handed over")
						}
						return
					}
					if tc.class != "" {
						sweeptest.WantClass(t, v.Err, tc.class)
						return
					}
					before = sim.Stats().PageRequests
					if v, _ := sweeptest.Once(t, p); !v.Complete ||
						sim.Stats().PageRequests-before != 4 {
						t.Errorf(
							"the next sweep: %d requests, %v",
							sim.Stats().PageRequests-before,
							v.Err,
						)
					}
				})
			})
		}
	}
}
