package checker

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"
)

// A stay is a stretch in which all that counts of an agent stayed the same.
type stay struct {
	from, to time.Time // to is zero while it lasts
	row      *row      // nil: not there
}

// stays are an agent's states in the history. Where there is no telling what rollcall should
// publish, there is none.
func (c *check) stays(id int64) []stay {
	var out []stay
	open := false // the last one may go on
	for _, s := range c.history.agents[id] {
		next := stay{from: s.from, to: s.to}
		clear := !s.refused
		for i, r := range s.rows {
			clear = clear && c.polled(r) && (i == 0 || c.rules.alike(r, s.rows[0]))
			if next.row = nil; r.there {
				next.row = r
			}
		}
		switch {
		case !clear:
			open = false
			continue
		case open && c.asBefore(out[len(out)-1].row, next.row):
			out[len(out)-1].to = next.to
			continue
		}
		out, open = append(out, next), true
	}
	return out
}

// asBefore reports whether two states are the same; nil: not there.
func (c *check) asBefore(a, b *row) bool {
	return a == b || a != nil && b != nil && c.rules.alike(a, b)
}

// lasted checks that every state that lasted for the bound, outages not counted, is in the stream
// by then.
func (c *check) lasted() {
	if c.opt.Bound <= 0 {
		return
	}
	until := c.until()
	outages := merged(c.opt.Outages)
	removals := merged(slices.Concat(c.opt.Outages, c.history.closed(until)))
	for _, id := range slices.Sorted(maps.Keys(c.history.agents)) {
		for _, s := range c.stays(id) {
			bound, out := c.opt.Bound, outages
			if s.row == nil {
				if bound, out = c.opt.RemovalBound, removals; bound < 0 {
					continue
				}
			}
			end := s.to
			if end.IsZero() || end.After(until) {
				end = until
			}
			due, ok := after(s.from, end, bound, out)
			if !ok || s.from.IsZero() {
				continue
			}
			c.out.Stats.Lasting++
			if !c.published(id, s.row, s.from.Add(-c.opt.slack()), due.Add(c.opt.slack())) {
				what := "was not there"
				if s.row != nil {
					what = "was there with onlineStatus " + brief(s.row.fields["onlineStatus"])
				}
				c.report(RuleLasted, id, 0,
					"it %s from %s on, and at %s the stream still did not say so", what,
					clock(s.from),
					clock(due))
			}
		}
	}
}

// published reports whether by the times of its events an agent was like r at some moment; nil: not
// there.
func (c *check) published(id int64, r *row, from, to time.Time) bool {
	var held *event // when the stretch begins
	for _, e := range c.byAgent[id] {
		if e.time.After(to) {
			break
		}
		if e.time.After(from) && (c.says(held, r) || c.says(e, r)) {
			return true
		}
		held = e
	}
	return c.says(held, r)
}

func (c *check) says(e *event, r *row) bool {
	if e.gone() || r == nil {
		return e.gone() && r == nil
	}
	return c.rules.alike(e.agent, r)
}

// closed are the stretches with a nameless row, during which nobody is removed.
func (h *history) closed(until time.Time) []Interval {
	out := slices.Clone(h.nameless)
	for i := range out {
		if out[i].To.IsZero() {
			out[i].To = until
		}
	}
	return out
}

func merged(in []Interval) []Interval {
	in = slices.SortedFunc(slices.Values(in), func(a, b Interval) int {
		return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To))
	})
	var out []Interval
	for _, i := range in {
		switch n := len(out); {
		case !i.To.After(i.From):
		case n > 0 && !i.From.After(out[n-1].To):
			if i.To.After(out[n-1].To) {
				out[n-1].To = i.To
			}
		default:
			out = append(out, i)
		}
	}
	return out
}

// after finds the moment by which d has passed since from, the outages not counted. An outage
// starts the wait anew, since a sweep that it cut off saw nothing. ok is false where that is not
// before to.
func after(from, to time.Time, d time.Duration, outages []Interval) (due time.Time, ok bool) {
	due = from.Add(d)
	for _, o := range outages {
		if o.To.After(from) && o.From.Before(due) {
			due = o.To.Add(d)
		}
	}
	return due, due.Before(to)
}

// final checks the states at rest, and that each is its agent's last event at any time.
func (c *check) final() {
	states := map[int64]*Message{}
	for _, m := range c.line {
		if m.kind() == "state" {
			states[agentOf(m)] = m
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.byAgent)) {
		events := c.byAgent[id]
		e := events[len(events)-1].msg
		if m := states[id]; m == nil {
			c.report(RuleState, id, e.Seq, "the agent has events and no state")
		} else if !bytes.Equal(m.Body, e.Body) {
			c.report(RuleState, id, m.Seq, "the last state is not the last event, #%d", e.Seq)
		}
	}
	if !c.opt.Quiescent {
		return
	}
	nameless := c.history.isNameless(c.until())
	for _, id := range slices.Sorted(maps.Keys(c.history.agents)) {
		stays := c.stays(id)
		if c.history.last(id).refused || len(stays) == 0 || !stays[len(stays)-1].to.IsZero() {
			continue // there is no telling what should be published
		}
		r := stays[len(stays)-1].row
		if r == nil && nameless {
			continue
		}
		c.out.Stats.Final++
		var e *event
		if events := c.byAgent[id]; len(events) > 0 {
			e = events[len(events)-1]
		} else if m := states[id]; m != nil { // its events have expired
			var err error
			if e, err = c.expired(m); err != nil {
				c.report(RuleEnvelope, id, m.Seq, "%s: %v", m.Subject, err)
				continue
			}
		}
		c.atRest(id, e, r)
	}
	for id := range c.byAgent {
		if c.history.agents[id] == nil {
			c.report(RuleFinal, id, 0, "there has never been such an agent")
		}
	}
	if n := len(c.healths); n > 0 && !nameless {
		if h := c.healths[n-1]; h.state != "ok" && !h.stalled {
			c.report(RuleFinal, 0, h.msg.Seq, "at rest health is %s (%s)", h.state, h.reason)
		}
	}
}

func (c *check) atRest(id int64, e *event, r *row) {
	switch {
	case c.says(e, r):
	case r == nil:
		c.report(RuleFinal, id, 0, "the agent is not there, and its state says that it is")
	case e.gone():
		c.report(RuleFinal, id, 0, "the agent is there, with onlineStatus %s, and no state says so",
			brief(r.fields["onlineStatus"]))
	default:
		c.report(RuleFinal, id, 0, "its state differs from the truth in %q", e.agent.differing(r))
	}
}

// expired reads a state whose event is no longer in the stream.
func (c *check) expired(m *Message) (*event, error) {
	as := *m
	o := strictly("state", m.Body,
		"specversion type source subject id time datacontenttype dataschema data", "")
	d := strictly("data", o.fields["data"], "agent",
		"revision reason sweep online since changes notBefore previousSince")
	if o.err != nil || d.err != nil {
		return nil, cmp.Or(o.err, d.err)
	}
	agent, err := c.rules.exact(d.fields["agent"])
	if err != nil {
		return nil, err
	}
	as.Subject = o.text("type") + "." + token(m.Subject, 2) + "." + agent.typeToken() + "." +
		token(m.Subject, 3)
	as.Header = map[string][]string{"Content-Type": m.Header["Content-Type"], "Nats-TTL": {"1s"}}
	return c.rules.event(&as)
}
