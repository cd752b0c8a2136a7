package checker

import (
	"bytes"
	"maps"
	"slices"
)

// A commit is what is known of one atomic batch.
type commit struct {
	id    string // "": a message published by itself
	first uint64 // the sequence of its first message
	msgs  []*Message
	mark  *Message // its watermark, if known
}

// commits checks that each commit is whole: its events, the states they lead to, and one watermark
// in the end.
func (c *check) commits() {
	lastMark := uint64(0)
	for seq := range c.watermarks {
		lastMark = max(lastMark, seq)
	}
	marks := map[string]uint64{}
	for _, k := range c.group() {
		c.out.Stats.Commits++
		if k.mark == nil {
			if (c.live || k.first > lastMark) && !c.opt.cut() {
				c.report(RuleCommit, agentOf(k.msgs[0]), k.msgs[0].Seq,
					"the commit from #%d to #%d has no watermark", k.msgs[0].Seq,
					k.msgs[len(k.msgs)-1].Seq)
			}
			c.states(k, false)
			continue
		}
		whole := c.ending(k)
		if whole {
			c.out.Stats.WholeCommits++
		}
		c.states(k, whole)
		if w := c.watermarks[k.mark.Seq]; w != nil {
			if other, twice := marks[w.commit]; twice {
				c.report(RuleCommit, 0, k.mark.Seq,
					"commit %s is there twice, the other one's watermark is #%d", w.commit, other)
			}
			marks[w.commit] = k.mark.Seq
		}
	}
}

// group sorts the stream into commits, and checks that their messages lie side by side.
func (c *check) group() []*commit {
	byID := map[string]*commit{}
	var all []*commit
	for _, m := range c.line {
		id, place := m.batch()
		k := byID[id]
		switch {
		case id == "" && m.kind() != "watermark":
			c.report(RuleCommit, agentOf(m), m.Seq, "%s was published outside any commit",
				m.Subject)
			continue
		case id != "" && (place == 0 || place > m.Seq):
			c.report(RuleCommit, agentOf(m), m.Seq, "%s has place %d in its commit", m.Subject,
				place)
			continue
		case id == "":
			k = &commit{first: m.Seq}
			all = append(all, k)
		case k == nil:
			k = &commit{id: id, first: m.Seq - place + 1}
			byID[id] = k
			all = append(all, k)
		case k.first != m.Seq-place+1:
			c.report(RuleCommit, agentOf(m), m.Seq,
				"%s is not where its place %d in its commit would have it", m.Subject, place)
		}
		if k.mark != nil {
			c.report(RuleCommit, agentOf(m), m.Seq,
				"%s comes after the watermark #%d of its commit", m.Subject, k.mark.Seq)
		}
		k.msgs = append(k.msgs, m)
		if m.kind() == "watermark" {
			k.mark = m
		}
	}
	return all
}

// ending checks a commit's watermark against it, and reports whether all its messages are known.
func (c *check) ending(k *commit) bool {
	w := c.watermarks[k.mark.Seq]
	if w == nil {
		return false // reported when it was read
	}
	if n := k.mark.Seq - k.first + 1; n != w.messages {
		c.report(RuleCommit, 0, k.mark.Seq, "the watermark says %d messages, and the commit has %d",
			w.messages, n)
		return false
	}
	whole := uint64(len(k.msgs)) == w.messages
	if !whole && c.live && !c.opt.cut() {
		c.report(RuleCommit, 0, k.mark.Seq,
			"of the %d messages of the commit %d are neither stored nor recorded", w.messages,
			w.messages-uint64(len(k.msgs)))
	}
	for _, m := range k.msgs {
		if e := c.events[m.Seq]; e != nil && e.sweep > w.latest() {
			c.reportEvent(RuleWatermark, e,
				"an event of sweep %d in a commit that knows of none after %d", e.sweep, w.latest())
		}
	}
	return whole
}

// states checks that each state in a commit is its agent's last event there; and, in a whole
// commit, that none is missing.
func (c *check) states(k *commit, whole bool) {
	last := map[int64]*Message{}
	had := map[int64]*Message{}
	for _, m := range k.msgs {
		id := agentOf(m)
		switch {
		case m.isEvent():
			last[id] = m
		case m.kind() == "state":
			if had[id] != nil {
				c.report(RuleState, id, m.Seq, "two states in one commit")
			}
			had[id] = m
		}
	}
	for _, id := range slices.Sorted(maps.Keys(had)) {
		m, e := had[id], last[id]
		if e == nil && c.opt.cut() {
			e = c.lastBefore(id, m.Seq) // a repair
		}
		switch {
		case m.header("Content-Type") != "application/cloudevents+json" ||
			m.header("Nats-TTL") != "":
			c.report(RuleEnvelope, id, m.Seq, "the state's headers are %v", m.Header)
		case e == nil && !c.opt.Expired:
			c.report(RuleState, id, m.Seq, "a state without an event in its commit")
		case e != nil && !bytes.Equal(e.Body, m.Body):
			c.report(RuleState, id, m.Seq, "the state is not the agent's last event, #%d", e.Seq)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(last)) {
		if whole && had[id] == nil {
			c.report(RuleState, id, last[id].Seq, "an event without a state in its commit")
		}
	}
}

// lastBefore is the agent's last event before a message.
func (c *check) lastBefore(id int64, seq uint64) *Message {
	for _, e := range slices.Backward(c.byAgent[id]) {
		if e.msg.Seq < seq {
			return e.msg
		}
	}
	return nil
}
