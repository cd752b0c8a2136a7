package checker

import (
	"cmp"
	"slices"
	"strconv"
)

// guarded checks that agents who went missing together, too many for the guard, were removed only
// after they had been missing for as long as it holds.
func (c *check) guarded() {
	if c.opt.MaxMissing == 0 || !c.live || c.opt.Rollback != NoRollback {
		return
	}
	for i, w := range c.complete {
		for _, group := range c.removedTogether(w) {
			k, n := len(group.gone), group.known
			if float64(k) <= c.opt.MaxMissing*float64(n) || k <= 3 && k < n {
				continue
			}
			for _, e := range group.gone {
				c.heldLongEnough(i, e, k, n)
			}
		}
	}
}

// A leaving is what a complete sweep removed of a listing.
type leaving struct {
	gone  []*event
	known int // agents before
}

// removedTogether are the removals of a sweep: of the whole, and of each polled type.
func (c *check) removedTogether(w *watermark) map[string]*leaving {
	groups := map[string]*leaving{}
	first := uint64(0)
	for _, events := range c.byAgent {
		for _, e := range events {
			if !e.absent() || e.sweep != w.sweep {
				continue
			}
			if first == 0 || e.msg.Seq < first {
				first = e.msg.Seq
			}
			for _, name := range c.groupsOf(w, e.agent) {
				if groups[name] == nil {
					groups[name] = &leaving{}
				}
				groups[name].gone = append(groups[name].gone, e)
			}
		}
	}
	for _, events := range c.byAgent {
		i, _ := slices.BinarySearchFunc(events, first, func(e *event, seq uint64) int {
			return cmp.Compare(e.msg.Seq, seq)
		})
		if i == 0 || events[i-1].gone() {
			continue
		}
		for _, name := range c.groupsOf(w, events[i-1].agent) {
			if groups[name] != nil {
				groups[name].known++
			}
		}
	}
	return groups
}

// groupsOf names what an agent is counted in: the whole, and the listing of its type.
func (c *check) groupsOf(w *watermark, r *row) []string {
	switch {
	case !polledAmong(w.polled, r):
		return nil
	case len(w.polled) == 0:
		return []string{"all"}
	}
	return []string{"all", r.fields["type"]}
}

func (c *check) heldLongEnough(last int, e *event, k, n int) {
	since := e.time.Add(-c.opt.MissingHold).Add(-c.opt.slack())
	for i := last; i >= 0; i-- {
		w := c.complete[i]
		switch {
		case w.instance != c.complete[last].instance:
			c.reportEvent(RuleGuard, e,
				"%d of %d agents are removed together, and %s has not been there for the %s that "+
					"they are to be held",
				k, n, c.complete[last].instance, c.opt.MissingHold)
			return
		case c.unstated(i) && !w.completedAt.After(since):
			return // a sweep behind this one may have been the first to miss the agent
		case !c.window(w.startedAt, w.completedAt).couldMiss(e.agent.id):
			c.reportEvent(RuleGuard, e,
				"%d of %d agents are removed together, and sweep %d, less than %s before, can't "+
					"have missed this one",
				k, n, w.sweep, c.opt.MissingHold)
			return
		case !w.completedAt.After(since):
			return
		}
	}
	c.reportEvent(RuleGuard, e,
		"%d of %d agents are removed together, after less than the %s that they are to be held", k,
		n, c.opt.MissingHold)
}

// goneBy checks an agent that several polled listings showed in a complete sweep: what is published
// is what the one to go by showed. That is the one whose type its row names, else the first.
func (c *check) goneBy(w *watermark, win *shown, e *event) {
	rank := func(list int, rows []*row) int {
		at := slices.Index(w.polled, strconv.Itoa(list))
		for _, r := range rows {
			typ := "s" + strconv.Itoa(list)
			if named := r.fields["type"] == typ; named != (rows[0].fields["type"] == typ) {
				return -1
			} else if !named && r == rows[len(rows)-1] {
				return len(w.polled) + at
			}
		}
		return at
	}
	lists := map[int][]*row{}
	for _, a := range win.answers {
		lists[a.list] = append(lists[a.list], a.rows.usable[e.agent.id]...)
	}
	best, bestRank := -1, -1
	showing := 0
	for list, rows := range lists {
		if len(rows) == 0 {
			continue
		}
		showing++
		r := rank(list, rows)
		if r < 0 {
			return // in one and the same sweep, either
		}
		if best < 0 || r < bestRank {
			best, bestRank = list, r
		}
	}
	if showing < 2 || !win.surelyLists(best, e.agent.id) {
		return
	}
	if !slices.ContainsFunc(lists[best], func(r *row) bool {
		return c.rules.alike(r, e.agent) || c.unfit(e.agent, r)
	}) {
		c.reportEvent(RuleListing, e,
			"sweep %d saw the agent in %d listings, and what is published is not what that of "+
				"type %d shows", w.sweep, showing, best)
	}
}

// surelyLists reports whether every choice of answers shows the agent in a listing.
func (w *shown) surelyLists(list int, id int64) bool {
	for k, answers := range w.needed() {
		if k[0] == list && !slices.ContainsFunc(answers, func(p *pageRows) bool {
			return len(p.usable[id]) == 0 || p.refused[id]
		}) {
			return true
		}
	}
	return false
}
