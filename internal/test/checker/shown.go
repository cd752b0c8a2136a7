package checker

import "time"

// shownEvents checks each event, lost ones included, against what the tenant showed.
func (c *check) shownEvents() {
	for _, events := range c.byAgent {
		var prev *event
		for _, e := range events {
			c.shownOne(prev, e)
			prev = e
		}
	}
	for _, events := range c.lost {
		for _, e := range events {
			c.shownRow(nil, e)
		}
	}
	if c.opt.Rollback == NoRollback {
		c.baselines()
	}
}

func (c *check) shownOne(prev, e *event) {
	c.shownRow(prev, e)
	if e.absent() {
		c.out.Stats.Removals++
		c.absence(prev, e)
	}
	// What the agent was before was still shown not before notBefore. After a restart notBefore may
	// be the state's own time, which lies behind that.
	if e.notBefore.IsZero() || prev.gone() || e.rev != prev.rev+1 || e.notBefore.Equal(prev.time) {
		return
	}
	like := func(r *row) bool { return c.rules.alike(r, prev.agent) }
	if !c.window(e.notBefore, e.time).saw(e.agent.id, like) {
		c.reportEvent(RuleNotBefore, e, "the revision before it was no longer shown after %s",
			clock(e.notBefore))
	}
}

// shownRow checks that the agent was shown as the event has it.
func (c *check) shownRow(prev, e *event) {
	from := e.notBefore
	if e.absent() {
		// As it was last seen, which may be before; or as its last event has it.
		if prev != nil && prev.agent.same(e.agent) {
			return
		}
		from = time.Time{}
	}
	if !c.window(from, e.time).saw(e.agent.id, e.agent.same) {
		c.reportEvent(RuleShown, e, "the agent was not shown like this between %s and %s",
			clock(from), clock(e.time))
	}
}

// absence checks that an agent removed for its absence was missing from as many complete sweeps in
// a row as it takes, all of one process. Where not all watermarks are known, the last sweep alone
// is judged.
func (c *check) absence(prev, e *event) {
	id := e.agent.id
	last := -1
	for i, w := range c.complete {
		if w.sweep <= e.sweep {
			last = i
		}
	}
	switch {
	case last < 0 || c.complete[last].sweep != e.sweep:
		if c.live && c.opt.Rollback == NoRollback && !c.withTheNext(e) {
			c.reportEvent(RuleAbsence, e,
				"sweep %d, which decided that the agent is absent, never completed", e.sweep)
			return
		}
		from := e.notBefore
		if prev != nil && prev.time.After(from) {
			from = prev.time
		}
		if !c.window(from, e.time).couldMiss(id) {
			c.reportEvent(RuleAbsence, e, "the agent was listed all the time from %s to %s",
				clock(from), clock(e.time))
		}
		return
	case apart(e.time, c.complete[last].completedAt) > c.opt.slack() &&
		(prev == nil || !e.time.Equal(prev.time)):
		c.reportEvent(RuleTime, e, "its time is %s, and the sweep that decided it ended at %s",
			clock(e.time), clock(c.complete[last].completedAt))
	}
	need := c.opt.RemoveAfter
	if !c.live || c.opt.Rollback != NoRollback {
		need = 1
	}
	for n := range need {
		i := last - n
		if i < 0 || c.complete[i].instance != c.complete[last].instance {
			c.reportEvent(RuleAbsence, e, "removed after %d complete sweeps of %s, want %d", n,
				c.complete[last].instance, need)
			return
		}
		if n > 0 && c.unstated(i) &&
			c.window(c.complete[i].completedAt, c.complete[i+1].startedAt).couldMiss(id) {
			return
		}
		if w := c.complete[i]; !c.window(w.startedAt, w.completedAt).couldMiss(id) {
			c.reportEvent(RuleAbsence, e, "sweep %d, from %s to %s, can't have missed the agent",
				w.sweep, clock(w.startedAt), clock(w.completedAt))
			return
		}
	}
}

// withTheNext reports whether the sweep of an event was published together with a later complete
// one, so that no watermark states it: the first one behind the event states the later sweep.
func (c *check) withTheNext(e *event) bool {
	for _, m := range c.line {
		w := c.watermarks[m.Seq]
		// One that says that the sweep goes on is that of a part of its commit.
		if w != nil && m.Seq > e.msg.Seq && w.inProgress != e.sweep {
			return !w.isInProgress && w.sweep > e.sweep
		}
	}
	return false
}

// unstated reports whether there may have been complete sweeps between one that is stated and the
// next: their ends were published together with the next's.
func (c *check) unstated(i int) bool {
	return i+1 < len(c.complete) && c.complete[i+1].sweep > c.complete[i].sweep+1
}

func apart(a, b time.Time) time.Duration { return a.Sub(b).Abs() }

// baselines checks which first events say baseline: those of sweeps up to the first complete one.
func (c *check) baselines() {
	if len(c.complete) == 0 {
		return
	}
	first := c.complete[0]
	for _, events := range c.byAgent {
		switch e := events[0]; {
		case e.rev != 1:
		case e.reason == "baseline" && e.sweep > first.sweep:
			c.reportEvent(RuleReason, e, "baseline in sweep %d, after sweep %d was complete",
				e.sweep, first.sweep)
		case e.reason == "appeared" && e.sweep <= first.sweep && c.live:
			c.reportEvent(RuleReason, e,
				"appeared in sweep %d, before any other than sweep %d was complete", e.sweep,
				first.sweep)
		}
	}
}
