package checker

import "time"

// check is one run of the checker.
type check struct {
	opt   Options
	rules rules
	live  bool // every message should be known
	out   *Report

	known   map[*byte]seen // rows by their bytes
	history history
	pages   []answer // of those that arrived in good order

	line       []*Message         // the stream, by sequence
	events     map[uint64]*event  // of the line, by sequence
	byAgent    map[int64][]*event // of the line, in its order
	lost       map[int64][]*event // those that the broker lost
	watermarks map[uint64]*watermark
	complete   []*watermark // each complete sweep's first
	healths    []*health
	unobserved []*unobserved
	present    map[uint64]bool // the sequences of which the message is known
}

// Check reports every breach of the contract that the stream shows, given the truth.
func Check(stream Stream, truth Truth, opt Options) *Report {
	opt = opt.withDefaults()
	c := &check{
		opt: opt, rules: newRules(opt), live: len(stream.Live) > 0 && !opt.LossyLive,
		out:   &Report{},
		known: map[*byte]seen{}, events: map[uint64]*event{}, byAgent: map[int64][]*event{},
		lost:       map[int64][]*event{},
		watermarks: map[uint64]*watermark{}, present: map[uint64]bool{},
	}
	if opt.Tenant == 0 {
		c.report(RuleSetup, 0, 0, "Options.Tenant is not set")
		return c.out
	}
	c.learnHistory(truth.History)
	c.learnPages(truth.Pages)
	line, lost := c.gather(stream)
	c.read(line, lost)
	c.follow()
	c.commits()
	c.replay()
	c.intervals()
	c.shownEvents()
	c.guarded()
	c.lasted()
	c.final()
	c.out.Stats.Changes, c.out.Stats.Pages = len(truth.History), len(truth.Pages)
	return c.finish()
}

// read takes every message apart. What can't be read is reported and then left aside, but for its
// place in its commit.
func (c *check) read(line, lost []*Message) {
	c.line = line
	c.out.Stats.Messages, c.out.Stats.Lost = len(line), len(lost)
	for _, m := range line {
		var err error
		switch {
		case m.isEvent():
			var e *event
			if e, err = c.rules.event(m); err == nil {
				c.events[m.Seq] = e
				c.byAgent[e.agent.id] = append(c.byAgent[e.agent.id], e)
			}
		case m.kind() == "watermark":
			var w *watermark
			if w, err = c.rules.watermark(m); err == nil {
				c.watermarks[m.Seq] = w
			}
		case m.kind() == "health":
			var h *health
			if h, err = c.rules.health(m); err == nil {
				c.healths = append(c.healths, h)
			}
		case m.kind() == "unobserved":
			var u *unobserved
			if u, err = c.rules.unobserved(m); err == nil {
				c.unobserved = append(c.unobserved, u)
			}
		case m.kind() == "state": // judged by its agent's event
		default:
			c.report(RuleEnvelope, 0, m.Seq, "%s is no subject of the stream", m.Subject)
		}
		if err != nil {
			c.report(RuleEnvelope, agentOf(m), m.Seq, "%s: %v", m.Subject, err)
		}
	}
	for _, m := range lost {
		if !m.isEvent() {
			continue
		}
		if e, err := c.rules.event(m); err != nil {
			c.report(RuleEnvelope, agentOf(m), m.Seq, "%s, lost since: %v", m.Subject, err)
		} else {
			c.lost[e.agent.id] = append(c.lost[e.agent.id], e)
		}
	}
	c.out.Stats.Events, c.out.Stats.Agents = len(c.events), len(c.byAgent)
	c.out.Stats.Watermarks, c.out.Stats.Unobserved = len(c.watermarks), len(c.unobserved)
}

// until is when rollcall was last there to see changes.
func (c *check) until() time.Time {
	if !c.opt.Until.IsZero() {
		return c.opt.Until
	}
	var last time.Time
	for _, w := range c.watermarks {
		if w.completedAt.After(last) {
			last = w.completedAt
		}
	}
	return last
}
