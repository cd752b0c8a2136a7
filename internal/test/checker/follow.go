package checker

import (
	"fmt"
	"slices"
)

// A fault is a breach in how one event follows another.
type fault struct {
	rule Rule
	text string
}

// follow checks each agent's chain of events.
func (c *check) follow() {
	for id, events := range c.byAgent {
		var prev *event
		for _, e := range events {
			c.followOne(prev, e)
			prev = e
		}
		if c.opt.Rollback == Remembered {
			c.noneTwice(id, events)
		}
	}
}

func (c *check) followOne(prev, e *event) {
	before := uint64(0)
	if prev != nil {
		before = prev.rev
	}
	gap := e.rev > before+1
	switch {
	case e.rev <= before:
		c.reportEvent(RuleRevision, e, "revision %d comes after revision %d", e.rev, before)
		return
	case gap && c.opt.Rollback != NoRollback:
		c.followLost(prev, e)
		return
	case gap && prev == nil && c.opt.Expired:
		return // nothing is known of what came before
	case gap:
		c.reportEvent(RuleRevision, e, "revision %d comes after revision %d", e.rev, before)
		return
	}
	for _, f := range c.link(prev, e) {
		c.reportEvent(f.rule, e, "%s", f.text)
	}
}

// followLost judges an event above a gap that a rollback left. The revision before it is one that
// was lost, or, where rollcall went by the stream, the last one that was not.
func (c *check) followLost(prev, e *event) {
	faults := c.link(prev, e)
	if len(faults) == 0 {
		return
	}
	known := false
	for _, l := range c.lost[e.agent.id] {
		if l.rev == e.rev-1 {
			known = true
			if len(c.link(l, e)) == 0 {
				return
			}
		}
	}
	if !known && (c.opt.LossyLive || !c.live) {
		return // it can have followed an event that nobody recorded
	}
	for _, f := range faults {
		c.reportEvent(f.rule, e, "%s", f.text)
	}
}

// noneTwice checks that no id of a lost event was given to another one.
func (c *check) noneTwice(id int64, events []*event) {
	for _, l := range c.lost[id] {
		for _, e := range events {
			if e.rev == l.rev && string(e.msg.Body) != string(l.msg.Body) {
				c.reportEvent(RuleRevision, e,
					"revision %d had been used before the broker lost it, at #%d", e.rev, l.msg.Seq)
			}
		}
	}
}

// link finds what is wrong with an event that follows prev; nil: the agent's first.
func (c *check) link(prev, e *event) (faults []fault) {
	fail := func(rule Rule, format string, args ...any) {
		faults = append(faults, fault{rule, fmt.Sprintf(format, args...)})
	}
	// The agent, and what follows from it.
	if online := e.reason != "removed" && e.agent.online; e.online != online {
		fail(RuleType, "online is %t for an agent with reason %s and onlineStatus %s", e.online,
			e.reason, brief(e.agent.fields["onlineStatus"]))
	}
	kind := "updated"
	switch {
	case e.online && !prev.wasOnline():
		kind = "online"
	case !e.online && prev.wasOnline():
		kind = "offline"
	}
	if e.kind != kind {
		fail(RuleType, "it is %s and should be %s", e.kind, kind)
	}
	c.linkReason(prev, e, fail)

	// Times.
	if prev != nil && e.time.Before(prev.time) {
		fail(RuleTime, "its time %s is before the last event's, %s", clock(e.time),
			clock(prev.time))
	}
	if prev != nil && e.sweep < prev.sweep {
		fail(RuleTime, "its sweep %d is before the last event's, %d", e.sweep, prev.sweep)
	}
	c.linkSince(prev, e, fail)

	// Changes.
	var want []change
	if prev != nil && !e.absent() {
		want = changesOf(prev.agent, e.agent)
	}
	if e.truncated {
		whole := len(e.msg.Body) + lengthOf(want) - lengthOf(e.changes)
		want = slices.DeleteFunc(want, func(c change) bool { return listed[c.field] == 0 })
		if whole < c.opt.MaxPayload/10*9 {
			fail(RuleChanges,
				"changes are truncated, and with all of them the event has some %d bytes", whole)
		}
	}
	if !slices.Equal(e.changes, want) {
		fail(RuleChanges, "changes are %v, want %v", e.changes, want)
	}
	if !prev.gone() && !e.gone() && c.rules.alike(prev.agent, e.agent) {
		fail(RuleQuiet, "nothing but quiet fields changed")
	}
	return faults
}

func (c *check) linkReason(prev, e *event, fail func(Rule, string, ...any)) {
	want := "fields"
	switch {
	case e.reason != "removed" && !e.agent.there:
		want = "removed"
	case e.reason == "removed" && prev.gone():
		want = "appeared" // or nothing at all
	case e.reason == "removed":
		return // RuleAbsence and RuleShown look into it
	case prev == nil && e.reason == "baseline":
		return // as shownEvents sees
	case prev.gone():
		want = "appeared"
	case e.online != prev.online:
		want = "status"
	}
	if e.reason != want {
		fail(RuleReason, "the reason is %s and should be %s", e.reason, want)
	}
}

func (c *check) linkSince(prev, e *event, fail func(Rule, string, ...any)) {
	if prev == nil || prev.online == e.online {
		if !e.previousSince.IsZero() {
			fail(RuleSince, "previousSince in an event that ends no state")
		}
	} else if !e.previousSince.Equal(prev.since) {
		fail(RuleSince, "previousSince is %s, and the state had begun at %s",
			clock(e.previousSince), clock(prev.since))
	}
	first, last := e.time, e.time
	if prev != nil && prev.online == e.online {
		first, last = prev.since, prev.since
	}
	// a state between the two may be missing, or one may have begun unpublished
	if prev != nil && c.opt.Folded {
		first, last = prev.since, e.time
	}
	if e.since.Before(first) || e.since.After(last) {
		fail(RuleSince, "since is %s, want %s", clock(e.since), clock(first))
	}
}

// lengthOf is about how many bytes some changes take in an event.
func lengthOf(changes []change) (n int) {
	for _, c := range changes {
		n += len(`{"field":"","from":,"to":},`) + len(c.field) + len(c.from) + len(c.to)
	}
	return n
}

// unfit reports whether the event that leads from one row to another may be too large for a
// message, whatever is left out.
func (c *check) unfit(from, to *row) bool {
	changed := slices.DeleteFunc(changesOf(from, to), func(c change) bool {
		return listed[c.field] == 0
	})
	return len(to.full)+lengthOf(changed) > c.opt.MaxPayload/10*9
}
