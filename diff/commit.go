package diff

import (
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// A Commit is what the queued changes make of the published state: the front of the queue, on its
// way into the stream.
type Commit struct {
	Events    []schemas.Event
	Watermark schemas.Watermark
	Changes   int     // how many changes it has, those without an event included
	TooLarge  []int64 // agents with a change that no message can hold, and none before it since they were published
	LeftOut   int     // all changes that no message can hold

	items    []item
	states   []*State        // that each event leads to
	complete bool            // it completes a sweep
	tooLarge map[int64]*past // what becomes of Roster.tooLarge; nil: published, or as it is published
}

// Empty reports whether there is nothing in the commit to be published.
func (c *Commit) Empty() bool { return len(c.Events) == 0 && !c.complete }

// Next forms the next commit, of as many changes as most. Not while another one is under way. sweep
// is the last one begun.
//
// An event that does not fit goes without the undocumented part of its changes; one that does not
// fit even so is left out, and its agent's state stays.
func (r *Roster) Next(sweep uint64, most int, fits func(*schemas.Event) bool) *Commit {
	c := &Commit{items: r.take(most), Watermark: r.watermark, tooLarge: make(map[int64]*past)}
	w := &c.Watermark
	present := r.present
	tooLarge := len(r.tooLarge)
	latest := make(map[int64]*State, len(c.items)) // of agents with an event
	for _, it := range c.items {
		if it.end != nil {
			c.complete, *w = true, *it.end
			w.Rejected += tooLarge
			continue
		}
		c.Changes++
		e := r.entry(it.id)
		from, ok := latest[it.id]
		if !ok {
			from = e.published
		}
		first, ok := c.tooLarge[it.id]
		if !ok {
			first = r.tooLarge[it.id]
		}
		if first != nil { // what it saw is a part of this change
			it.past = *first
			tooLarge--
			c.tooLarge[it.id] = nil
		}
		event, ok := r.rules.event(from, &it.change)
		if !ok {
			continue
		}
		event.Data.Revision = max(event.Data.Revision, e.revision+1)
		if !fits(&event) && !(event.Data.TruncateChanges() && fits(&event)) {
			if first == nil {
				past := it.past
				first = &past
				c.TooLarge = append(c.TooLarge, it.id)
			}
			c.tooLarge[it.id] = first
			tooLarge++
			c.LeftOut++
			continue
		}
		agent := it.agent
		if agent == "" { // gone: as it was last published
			agent = from.Agent
		}
		to := packed.StateWith(&event, agent)
		latest[it.id] = to
		present.count(from, -1)
		present.count(to, 1)
		c.Events, c.states = append(c.Events, event), append(c.states, to)
	}
	if n := len(c.items); !c.complete {
		if len(r.queue) > 0 && n > 0 {
			sweep = c.items[n-1].sweep
		}
		w.InProgress = inProgress(max(sweep, r.lastPublishedSweep), w.Sweep)
	}
	w.Agents, w.Online = present.Agents, present.Online
	return c
}

// inProgress names the sweep that a commit brings changes of, where that is a later one than the
// last complete one.
func inProgress(sweep, complete uint64) *schemas.InProgress {
	if sweep <= complete {
		return nil
	}
	return &schemas.InProgress{Sweep: sweep}
}

// Committed says that a commit is in the stream.
func (r *Roster) Committed(c *Commit) {
	for _, s := range c.states {
		r.publish(r.entry(s.Agent.AgentID()), s)
	}
	r.lastPublishedSweep = c.Watermark.LastSweep()
	r.watermark = c.Watermark
	r.watermark.InProgress = nil
	r.Skip(c)
}

// Skip says that nothing of a commit has to be published: its changes cancel out, or no message can
// hold them. Such a one still is what was last observed, so that it is not observed again at every
// sweep.
func (r *Roster) Skip(c *Commit) {
	for id, first := range c.tooLarge {
		if first != nil {
			r.tooLarge[id] = first
		} else {
			delete(r.tooLarge, id)
		}
	}
	r.pending -= c.Changes
	clear(c.items)
}

// Retry has what was too large observed again: larger events fit than before. Not while a commit is
// under way.
func (r *Roster) Retry() {
	for id := range r.tooLarge {
		if e := r.entry(id); e.queued == 0 {
			e.observed = there(e.published)
		}
	}
}
