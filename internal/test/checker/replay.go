package checker

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// replay goes through the stream from its beginning and checks every watermark at its place.
func (c *check) replay() {
	roster := map[int64]*event{}
	var last, complete *watermark // the last one, and the last of a complete sweep
	reported := map[*event]bool{}
	newest := uint64(0)
	for seq := range c.watermarks {
		newest = max(newest, seq)
	}
	for _, m := range c.line {
		if e := c.events[m.Seq]; e != nil {
			roster[e.agent.id] = e
			if complete != nil && e.sweep <= complete.sweep {
				c.reportEvent(RuleFresh, e,
					"sweep %d, which saw it, had been stated to be published, at #%d", e.sweep,
					complete.msg.Seq)
			}
		}
		if id := agentOf(m); c.opt.Expired && m.kind() == "state" && c.byAgent[id] == nil {
			if e, err := c.expired(m); err == nil { // final reports the others
				roster[id] = e
			}
		}
		w := c.watermarks[m.Seq]
		if w == nil {
			continue
		}
		known := !c.opt.Expired || c.live || m.Seq == newest // the whole roster
		if known {
			c.figures(w, roster)
		}
		c.sweeps(w, last, complete)
		c.times(w, last)
		last = w
		if complete == nil && w.sweep == 0 || complete != nil && w.sweep <= complete.sweep {
			continue // no news of a complete sweep
		}
		// otherwise its first watermark may be one of those that are not known
		if w.isInProgress && c.live {
			c.report(RuleWatermark, 0, m.Seq,
				"it is the first to state sweep %d, and already brings changes of sweep %d",
				w.sweep, w.inProgress)
		}
		c.polledTypes(w)
		complete = w
		c.complete = append(c.complete, w)
		c.out.Stats.CompleteSweeps++
		if known {
			c.fresh(w, c.upTo(roster, w.sweep), reported)
		}
	}
}

// upTo is the roster as a sweep left it: where only the last watermark of several is known, it may
// bring later changes.
func (c *check) upTo(roster map[int64]*event, sweep uint64) map[int64]*event {
	out := make(map[int64]*event, len(roster))
	for id, e := range roster {
		if e.sweep > sweep {
			events := c.byAgent[id]
			i := slices.Index(events, e)
			for i--; i >= 0 && events[i].sweep > sweep; i-- {
			}
			if i < 0 {
				continue
			}
			e = events[i]
		}
		out[id] = e
	}
	return out
}

// mostTypes is how many types a watermark counts. With more of them it says nothing by type.
const mostTypes = 200

// figures checks the counts of the published state.
func (c *check) figures(w *watermark, roster map[int64]*event) {
	var agents, online int64
	types := map[string]counts{}
	for _, e := range roster {
		n := types[e.agent.typeToken()]
		if !e.gone() {
			agents++
			n.agents++
		}
		if e.online {
			online++
			n.online++
			capacity, _ := number(e.agent.fields["capacity"])
			n.capacity += capacity
		}
		if n.agents > 0 {
			types[e.agent.typeToken()] = n
		}
	}
	if w.agents != agents || w.online != online {
		c.report(RuleWatermark, 0, w.msg.Seq,
			"it says %d agents, %d online; the stream up to it has %d, %d online", w.agents,
			w.online,
			agents, online)
	}
	leftOut := w.types == nil && len(types) > mostTypes
	if !leftOut && !maps.Equal(w.types, types) {
		c.report(RuleWatermark, 0, w.msg.Seq,
			"it counts by type (agents, online, capacity) %v; the stream up to it has %v", w.types,
			types)
	}
}

// sweeps checks a watermark against the last one and the last of a complete sweep; nil: none is
// known.
func (c *check) sweeps(w, last, complete *watermark) {
	fail := func(format string, args ...any) {
		c.report(RuleWatermark, 0, w.msg.Seq, format, args...)
	}
	switch {
	case last != nil && (w.sweep < last.sweep || w.latest() < last.latest()):
		fail("it knows of sweep %d, %d complete; the one before it of %d, %d complete", w.latest(),
			w.sweep, last.latest(), last.sweep)
	case complete != nil && w.sweep == complete.sweep && !w.repeats(complete):
		fail("it does not repeat the figures of sweep %d, as #%d has them", complete.sweep,
			complete.msg.Seq)
	case complete != nil && w.sweep > complete.sweep &&
		w.startedAt.Before(complete.completedAt.Add(-c.opt.slack())):
		fail("sweep %d began at %s, before sweep %d had ended, at %s", w.sweep, clock(w.startedAt),
			complete.sweep, clock(complete.completedAt))
	}
}

// brokerSlack is by how much the broker's clock may be off, and what it takes to form a commit.
const brokerSlack = 100 * time.Millisecond

// times checks nextBy and glancedAt of a watermark; last is the one before it, nil: none is known.
func (c *check) times(w, last *watermark) {
	fail := func(format string, args ...any) {
		c.report(RuleWatermark, 0, w.msg.Seq, format, args...)
	}
	now := w.msg.Time.Add(c.opt.slack() + brokerSlack)
	const least = 15 * time.Second // from when it was formed to nextBy
	formed := w.nextBy.Add(-max(least, 3*c.opt.Interval))
	switch {
	case formed.Before(w.completedAt.Add(-c.opt.slack() - time.Millisecond)):
		fail("by its nextBy, %s, it was formed before its sweep had ended, at %s", clock(w.nextBy),
			clock(w.completedAt))
	case c.opt.Interval > 0 && formed.After(now):
		fail("by its nextBy, %s, it was formed after it was stored, at %s", clock(w.nextBy),
			clock(w.msg.Time))
	}
	switch {
	case last != nil && w.glancedAt.Before(last.glancedAt.Add(-c.opt.slack())) &&
		c.opt.Rollback == NoRollback:
		fail("glancedAt goes back from %s to %s", clock(last.glancedAt), clock(w.glancedAt))
	case w.glancedAt.IsZero():
	case w.glancedAt.After(now):
		fail("glancedAt is %s, and it was stored at %s", clock(w.glancedAt), clock(w.msg.Time))
	case !slices.ContainsFunc(c.window(w.glancedAt, now).answers, func(a answer) bool {
		return a.glance && a.page == 0
	}):
		fail("no glance began at %s, as it says", clock(w.glancedAt))
	}
}

// fresh checks that after a complete sweep the published states are what the sweep read. Of an
// event that was wrong at an earlier sweep already (reported) nothing more is said.
func (c *check) fresh(w *watermark, roster map[int64]*event, reported map[*event]bool) {
	win := c.window(w.startedAt, w.completedAt)
	// A glance may show an agent in a sweep before that has asked for its first page.
	earlier := c.window(time.Time{}, w.startedAt)
	if n := len(c.complete); n > 1 {
		earlier = c.window(c.complete[n-2].completedAt, w.startedAt)
	}
	var sure, possible int64
	for _, id := range slices.Sorted(maps.Keys(roster)) {
		e := roster[id]
		if e.gone() || !polledAmong(w.polled, e.agent) {
			if !e.gone() && e.agent.typeToken() == "_" { // some listing may have shown it
				possible++
			}
			continue
		}
		if len(w.polled) > 1 {
			c.goneBy(w, win, e)
		}
		if win.saw(id, func(r *row) bool { return c.rules.alike(r, e.agent) }) {
			if win.couldMiss(id) {
				possible++
			}
			continue
		}
		switch {
		case win.couldMiss(id):
			possible++
			if win.mustMiss(id) && !earlier.glanced(id) {
				sure++
			}
		case !win.refused(id) && !reported[e] && !win.saw(id, func(r *row) bool {
			return c.unfit(e.agent, r)
		}):
			reported[e] = true
			c.report(RuleFresh, id, w.msg.Seq,
				"sweep %d, from %s to %s, saw another state than the one published, #%d", w.sweep,
				clock(w.startedAt), clock(w.completedAt), e.msg.Seq)
		}
	}
	win.mustSee(func(id int64, rows []*row) bool {
		there := !slices.ContainsFunc(rows, func(r *row) bool {
			return !r.there || !polledAmong(w.polled, r)
		})
		there = there && !win.saw(id, func(r *row) bool { return !r.there }) // nor a glance
		if e := roster[id]; there && e.gone() && !(e != nil && reported[e]) {
			if e != nil {
				reported[e] = true
			}
			c.report(RuleFresh, id, w.msg.Seq,
				"sweep %d, from %s to %s, saw an agent that is not published (%s)", w.sweep,
				clock(w.startedAt), clock(w.completedAt), rowNames(rows))
		}
		return true
	})
	if w.missing > possible || w.missing < sure && !win.nameless() {
		c.report(RuleWatermark, 0, w.msg.Seq,
			"%d agents missing from sweep %d; it must have missed %d and can have missed %d",
			w.missing, w.sweep, sure, possible)
	}
}

// polled reports whether an agent's type is one of those polled.
func (c *check) polled(r *row) bool { return polledAmong(c.opt.types(), r) }

// polledAmong reports whether an agent is in one of the listings of these types, by its own type;
// none: in the one of all.
func polledAmong(types []string, r *row) bool {
	return len(types) == 0 || slices.Contains(types, strings.TrimPrefix(r.fields["type"], "s"))
}

// polledTypes checks that a complete sweep's watermark says what was polled.
func (c *check) polledTypes(w *watermark) {
	if want := c.opt.types(); !c.opt.OtherTypes && !slices.Equal(w.polled, want) {
		c.report(RuleWatermark, 0, w.msg.Seq,
			"it says that the types %q were polled, and these were: %q", w.polled, want)
	}
}
