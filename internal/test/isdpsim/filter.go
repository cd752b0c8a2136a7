package isdpsim

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// OnFilter is a fault of every answer about those who are online alone.
func OnFilter(f Fault) Hook {
	return func(r Request) Fault { return when(r.Endpoint == AgentsEndpoint && r.Online == 1, f) }
}

// IgnoreFilter answers with the whole listing instead of those who are online.
func IgnoreFilter() Fault {
	return func(p *Plan) {
		var found tenantsim.Found
		p.Meanwhile = append(p.Meanwhile, func(t *Tenant) {
			q := p.query()
			q.Online = -1
			found = t.Find(q)
		})
		p.Rows = append(p.Rows, func([]Row) []Row { return found.Rows })
		p.Total = append(p.Total, func(int) int { return found.Total })
	}
}

// FilterLags answers with those who were online d ago, as from an index that follows the records.
// Where the rows are fresh they are read from the records, and say what is true now.
func FilterLags(d time.Duration, fresh bool) Fault {
	return func(p *Plan) {
		var found tenantsim.Found
		p.Meanwhile = append(p.Meanwhile, func(t *Tenant) { found = t.foundBefore(p.query(), d) })
		if fresh {
			p.Meanwhile = append(p.Meanwhile, func(t *Tenant) {
				for i, r := range found.Rows {
					if row, listed := t.Agent(r.ID); listed {
						found.Rows[i].JSON = row
					}
				}
			})
		}
		p.Rows = append(p.Rows, func([]Row) []Row { return found.Rows })
		p.Total = append(p.Total, func(int) int { return found.Total })
	}
}

// query is what the plan's request asks for.
func (p *Plan) query() tenantsim.Query {
	return tenantsim.Query{Page: p.Page, Size: max(1, p.Request.PageSize), Type: p.Request.Type,
		Online: p.Request.Online}
}

// foundBefore is what a query would have found some time ago, in the order of the ids.
func (t *Tenant) foundBefore(q tenantsim.Query, d time.Duration) (f tenantsim.Found) {
	f.Time = t.now().Add(-d)
	rows := make(map[int64]json.RawMessage)
	for _, c := range t.History() {
		if c.Kind != tenantsim.Started && c.Time.After(f.Time) {
			break
		}
		rows[c.ID] = c.After
	}
	var all []Row
	for id, row := range rows {
		var a struct {
			OnlineStatus json.Number `json:"onlineStatus"`
			Type         string      `json:"type"`
		}
		if row == nil || json.Unmarshal(row, &a) != nil ||
			q.Online >= 0 && string(a.OnlineStatus) != strconv.Itoa(q.Online) ||
			q.Type >= 0 && a.Type != strconv.Itoa(q.Type) {
			continue
		}
		all = append(all, Row{ID: id, JSON: row})
	}
	slices.SortFunc(all, func(a, b Row) int { return cmp.Compare(a.ID, b.ID) })
	f.Total = len(all)
	f.Rows = all[min(q.Page*q.Size, len(all)):min((q.Page+1)*q.Size, len(all))]
	return f
}
