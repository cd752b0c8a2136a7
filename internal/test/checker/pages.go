package checker

import (
	"slices"
	"sort"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
)

// window is what the tenant showed in a stretch of time, to whoever looked.
func (c *check) window(from, to time.Time) *shown {
	from, to = from.Add(-c.opt.slack()), to.Add(c.opt.slack())
	first := sort.Search(len(c.pages), func(i int) bool { return !c.pages[i].at.Before(from) })
	last := sort.Search(len(c.pages), func(i int) bool { return c.pages[i].at.After(to) })
	return &shown{answers: c.pages[min(first, last):last]}
}

// An answer is one page that was shown.
type answer struct {
	at     time.Time
	list   int  // the filter by type
	glance bool // of those who are online: what it does not show means nothing
	page   int
	first  int // the index of its first row in the listing
	total  int
	rows   *pageRows
}

// pageRows are the rows of one or many answers.
type pageRows struct {
	usable   map[int64][]*row
	refused  map[int64]bool
	nameless bool
}

func (c *check) learnPages(pages []isdpsim.PageAnswer) {
	type key struct {
		first *isdpsim.Row
		n     int
	}
	known := map[key]*pageRows{}
	for _, p := range pages {
		if p.Broken && !c.opt.BrokenPages {
			continue
		}
		var k key
		if len(p.Rows) > 0 {
			k = key{&p.Rows[0], len(p.Rows)}
		}
		rows, ok := known[k]
		if !ok {
			rows = &pageRows{map[int64][]*row{}, map[int64]bool{}, false}
			for _, r := range p.Rows {
				s := c.learn(r.JSON)
				if s.row != nil {
					rows.usable[s.id] = append(rows.usable[s.id], s.row)
				}
				if s.verdict != usable && s.verdict != nameless {
					rows.refused[s.id] = true
				}
				rows.nameless = rows.nameless || s.verdict == nameless
			}
			known[k] = rows
		}
		c.pages = append(c.pages, answer{p.Time, p.Type, p.Online == 1, p.Page,
			p.Page * p.PageSize, p.Total, rows})
	}
	slices.SortStableFunc(c.pages, func(a, b answer) int { return a.at.Compare(b.at) })
}

// shown is a stretch of the recorded pages.
type shown struct {
	answers []answer
	choices map[[2]int][]*pageRows // what needed found
}

// saw reports whether at some moment such a row was shown.
func (w *shown) saw(id int64, like func(*row) bool) bool {
	for _, a := range slices.Backward(w.answers) {
		if slices.ContainsFunc(a.rows.usable[id], like) {
			return true
		}
	}
	return false
}

// needed are the answers that a complete sweep has chosen from, page by page. A page that lies
// beyond the least total_count of its listing may not have been needed.
func (w *shown) needed() map[[2]int][]*pageRows {
	if w.choices != nil {
		return w.choices
	}
	least := map[int]int{}
	for _, a := range w.answers {
		if a.glance {
			continue
		}
		if n, ok := least[a.list]; !ok || a.total < n {
			least[a.list] = a.total
		}
	}
	w.choices = map[[2]int][]*pageRows{}
	for _, a := range w.answers {
		if !a.glance && (a.first == 0 || a.first < least[a.list]) {
			k := [2]int{a.list, a.page}
			w.choices[k] = append(w.choices[k], a.rows)
		}
	}
	return w.choices
}

func (p *pageRows) has(id int64) bool { return p.refused[id] || len(p.usable[id]) > 0 }

// couldMiss reports whether a complete sweep can have missed the agent.
func (w *shown) couldMiss(id int64) bool {
	for _, answers := range w.needed() {
		if !slices.ContainsFunc(answers, func(p *pageRows) bool { return !p.has(id) }) {
			return false
		}
	}
	return len(w.answers) > 0
}

// mustMiss reports whether it can't have done otherwise.
func (w *shown) mustMiss(id int64) bool {
	return !slices.ContainsFunc(w.answers, func(a answer) bool { return a.rows.has(id) })
}

// glanced reports whether a glance showed the agent.
func (w *shown) glanced(id int64) bool {
	return slices.ContainsFunc(w.answers, func(a answer) bool { return a.glance && a.rows.has(id) })
}

// refused reports whether a row of the agent could not be used, or need not be.
func (w *shown) refused(id int64) bool {
	return slices.ContainsFunc(w.answers, func(a answer) bool { return a.rows.refused[id] })
}

// nameless reports whether there was a row of which nobody can tell whose it is.
func (w *shown) nameless() bool {
	return slices.ContainsFunc(w.answers, func(a answer) bool { return a.rows.nameless })
}

// mustSee yields the agents that every complete sweep has seen, with all rows shown of them.
func (w *shown) mustSee(yield func(id int64, rows []*row) bool) {
	for _, answers := range w.needed() {
		for id := range answers[0].usable {
			var rows []*row
			sure := true
			for _, p := range answers {
				rows = append(rows, p.usable[id]...)
				sure = sure && len(p.usable[id]) > 0 && !p.refused[id]
			}
			if sure && !yield(id, rows) {
				return
			}
		}
	}
}
