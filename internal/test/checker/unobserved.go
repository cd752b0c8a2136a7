package checker

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An unobserved is an unobserved interval's message, read.
type unobserved struct {
	msg      *Message
	from, to time.Time
	sweep    uint64
	health   string   // "": left out
	types    []string // none: all agents are meant
}

func (r rules) unobserved(m *Message) (*unobserved, error) {
	o := strictly("unobserved", m.Body, "tenantId from to sweep", "health types")
	u := &unobserved{msg: m, from: o.time("from"), to: o.time("to"), sweep: o.uint("sweep"),
		health: o.text("health")}
	if o.err != nil {
		return nil, o.err
	}
	if o.has("types") {
		list, err := elements(o.fields["types"])
		o.take(err)
		for _, raw := range list {
			u.types = append(u.types, documentedText(o, raw))
		}
		if err == nil && len(list) == 0 {
			o.fail("types is empty")
		}
	}
	reasons := strings.Fields("unreachable credentials unusable inconsistent missing unidentified")
	switch {
	case o.int("tenantId") != r.tenant || m.Subject != fmt.Sprintf("agent.unobserved.%d", r.tenant):
		o.fail("of tenant %d, published as %s", o.int("tenantId"), m.Subject)
	case m.header("Content-Type") != "application/json":
		o.fail("Content-Type is %q", m.header("Content-Type"))
	case m.header("Nats-TTL") == "":
		o.fail("without a TTL")
	case u.sweep == 0:
		o.fail("sweep 0")
	case o.has("health") && !slices.Contains(reasons, u.health):
		o.fail("health is %q", u.health)
	}
	return u, o.err
}

// intervals checks the unobserved intervals: each by itself and with its commit, and that between
// two complete sweeps there is one exactly if a staleAfter or nextBy passed there.
func (c *check) intervals() {
	marks := map[string]*watermark{} // by the commit's id
	for _, w := range c.watermarks {
		if id, _ := w.msg.batch(); id != "" {
			marks[id] = w
		}
	}
	var last *unobserved // of all agents
	for _, u := range c.unobserved {
		id, _ := u.msg.batch()
		c.intervalInCommit(u, marks[id])
		switch {
		case u.from.After(u.to.Add(c.opt.slack())):
			c.badInterval(u, "it ends at %s, before it begins", clock(u.to))
		case u.types != nil || c.opt.cut():
		case last != nil && u.from.Before(last.to.Add(-c.opt.slack())):
			c.badInterval(u, "it begins before the one before it ended, at %s", clock(last.to))
		}
		if u.types == nil {
			last = u
		}
	}
	if !c.opt.cut() {
		c.between()
	}
}

// intervalInCommit checks that the commit is that of the complete sweep which ends the interval;
// nil: its watermark is not known.
func (c *check) intervalInCommit(u *unobserved, w *watermark) {
	switch {
	case w == nil:
	case w.isInProgress || w.sweep != u.sweep:
		c.badInterval(u, "it says that sweep %d ends it, and it is in a commit of sweep %d",
			u.sweep, w.latest())
	case !u.to.Equal(w.startedAt):
		c.badInterval(u, "sweep %d, which ends it, began at %s", u.sweep, clock(w.startedAt))
	}
}

func (c *check) badInterval(u *unobserved, format string, args ...any) {
	c.report(RuleUnobserved, 0, u.msg.Seq, "the interval from %s to %s: %s", clock(u.from),
		clock(u.to), fmt.Sprintf(format, args...))
}

// A pass is a moment at which readers stopped trusting.
type pass struct {
	at   time.Time
	sure bool // else it is too close to tell
	what string
}

// between goes through the watermarks, from one complete sweep to the next.
//
// Readers stop trusting at a nextBy that no watermark came before, by the broker's clock, and at a
// staleAfter that no complete sweep had ended before. The interval of such a moment is that between
// the last complete sweep before it and the next one. Where a sweep had ended before a nextBy
// passed, and its watermark came only afterwards (the broker was away), there are two ways to name
// them: by when the sweeps ended, and by when their watermarks came. Both are the contract's, so
// either the sweep whose watermark came next says it, or else the first one that ended later.
func (c *check) between() {
	var prev, from *watermark // the last one, and the first of the last complete sweep
	var passed []pass
	hole := false // something is not known since from
	at := uint64(0)
	for _, m := range c.line {
		w := c.watermarks[m.Seq]
		if w == nil {
			continue
		}
		hole = hole || !c.contiguous(at, m.Seq)
		if from != nil && prev != nil && c.opt.near(prev.nextBy, m.Time) >= 0 {
			passed = append(passed, pass{prev.nextBy, c.opt.near(prev.nextBy, m.Time) > 0,
				fmt.Sprintf("nextBy of #%d", prev.msg.Seq)})
		}
		prev, at = w, m.Seq
		switch {
		case w.sweep == 0:
		case from == nil:
			for _, u := range c.within(0, m.Seq) {
				if !hole {
					c.badInterval(u, "it is in the commit of the tenant's first complete sweep")
				}
			}
			from, hole = w, false
		case w.sweep > from.sweep:
			passed = c.oneInterval(from, w, passed, hole)
			from, hole = w, false
		}
	}
}

// near says whether a moment lies before another one (1), after it (-1), or too close to tell (0).
// The first is by a process's clock, the second by the broker's.
func (o *Options) near(a, b time.Time) int {
	switch d := b.Sub(a); {
	case d > o.slack()+brokerSlack:
		return 1
	case d < -o.slack()-brokerSlack:
		return -1
	}
	return 0
}

// oneInterval checks what is said between two complete sweeps, and returns the passes that the next
// one may have to tell.
func (c *check) oneInterval(a, b *watermark, passed []pass, hole bool) (left []pass) {
	if late := b.completedAt.Sub(a.staleAt); late > -c.opt.slack() {
		passed = append(passed, pass{a.staleAt, late > c.opt.slack(), "staleAfter"})
	}
	var all, typed []*unobserved
	for _, u := range c.within(a.msg.Seq, b.msg.Seq) {
		if u.types != nil {
			typed = append(typed, u)
		} else {
			all = append(all, u)
		}
	}
	c.newTypes(a, b, all, typed, hole)
	for _, u := range slices.Concat(all[min(1, len(all)):], typed[min(1, len(typed)):]) {
		c.badInterval(u, "it is not the only one between sweep %d and sweep %d", a.sweep, b.sweep)
	}
	switch {
	case hole:
		return nil // another complete sweep may lie in between
	case len(all) == 0:
		for _, p := range passed {
			switch {
			case p.at.After(b.completedAt.Add(-c.opt.slack())):
				left = append(left, p)
			case p.sure:
				c.report(RuleUnobserved, 0, b.msg.Seq, "%s, %s, passed before sweep %d ended, at "+
					"%s, and no interval from %s on is said to have been unobserved", p.what,
					clock(p.at), b.sweep, clock(b.completedAt), clock(a.startedAt))
				return nil
			}
		}
		return left
	case len(passed) == 0:
		c.badInterval(all[0], "neither staleAfter nor nextBy passed between sweep %d and sweep %d",
			a.sweep, b.sweep)
	case !all[0].from.Equal(a.startedAt) &&
		(all[0].from.Before(b.startedAt) || a.startedAt.Before(b.startedAt)): // by other clocks
		c.badInterval(all[0], "sweep %d, the last complete one before it, began at %s", a.sweep,
			clock(a.startedAt))
	}
	c.intervalHealth(all[0], a, b)
	return nil
}

// intervalHealth checks the reason in an interval: the last one that health gave in between. Where
// it gave none, one that it had given before may have stood.
func (c *check) intervalHealth(u *unobserved, a, b *watermark) {
	given, standing, ending := "", "", ""
	own, _ := b.msg.batch()
	for _, h := range c.healths {
		switch id, _ := h.msg.batch(); {
		case h.msg.Seq < a.msg.Seq:
			standing = h.reason
		case h.msg.Seq > b.msg.Seq:
		case id == own:
			ending = h.reason
		case h.reason != "":
			given = h.reason
		default:
			standing = ""
		}
	}
	switch {
	case u.health == given, u.health != "" && u.health == ending:
	case given == "" && u.health == standing:
	default:
		c.badInterval(u, "its health is %q, and the last reason given in between was %q", u.health,
			given)
	}
}

// newTypes checks what is said of types that were polled for the first time.
func (c *check) newTypes(a, b *watermark, all, typed []*unobserved, hole bool) {
	var added []string
	for _, t := range b.polled {
		if len(a.polled) > 0 && !slices.Contains(a.polled, t) {
			added = append(added, t)
		}
	}
	widened := len(a.polled) > 0 && len(b.polled) == 0 // which types that adds is not known
	switch {
	case hole:
	case len(typed) == 0 && len(added) > 0 && len(all) == 0:
		c.report(RuleUnobserved, 0, b.msg.Seq,
			"the types %q were not polled before, and no interval says so", added)
	case len(typed) == 0 || widened:
	case !slices.Equal(slices.Sorted(slices.Values(typed[0].types)),
		slices.Sorted(slices.Values(added))):
		c.badInterval(typed[0], "it is of the types %q, and %q were polled for the first time",
			typed[0].types, added)
	case typed[0].from.After(a.startedAt):
		c.badInterval(typed[0], "sweep %d, from %s, had not polled its types either", a.sweep,
			clock(a.startedAt))
	}
}

// within are the intervals with a sequence between two others.
func (c *check) within(after, before uint64) (out []*unobserved) {
	for _, u := range c.unobserved {
		if u.msg.Seq > after && u.msg.Seq < before {
			out = append(out, u)
		}
	}
	return out
}

// contiguous reports whether every message between two sequences is known, of whichever tenant.
func (c *check) contiguous(after, before uint64) bool {
	for seq := after + 1; seq < before; seq++ {
		if !c.present[seq] {
			return false
		}
	}
	return true
}
