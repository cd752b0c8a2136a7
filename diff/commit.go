package diff

import (
	"maps"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// A Commit is the front of the queue on its way into the stream.
type Commit struct {
	Events    []schemas.Event
	Watermark schemas.Watermark
	Changes   int // how many changes it has, those that make no event included

	// What Form adds: the interval that the commit's sweep ends, nil where it ends none, and
	// whether a nextBy has passed since the last complete sweep, of which the watermark's readers
	// have to know.
	Unobserved *schemas.Unobserved
	Lapsed     bool

	// LeftOut is how many of the changes no message can hold. TooLarge are the agents with such a
	// change, but for those that already had one before, since they were last published.
	LeftOut  int
	TooLarge []int64

	items    []item
	states   []*State        // the one that each event leads to
	complete bool            // it completes a sweep
	tooLarge map[int64]*past // what to put into Roster.tooLarge; nil: delete the agent there
}

// Complete reports whether the commit completes a sweep.
func (c *Commit) Complete() bool { return c.complete }

// Empty reports whether there is nothing in the commit to be published.
func (c *Commit) Empty() bool { return len(c.Events) == 0 && !c.complete }

// Next forms the next commit, of at most so many changes. sweep is the last one begun. It must not
// be called while another commit is under way.
//
// It is not complete before [Roster.Form].
//
// fits is asked about each event just before it is taken into Events, as it will stand there.
//
// An event that does not fit is published without the undocumented part of its changes. Where it
// does not fit even so, it is left out, and its agent's state stays.
func (r *Roster) Next(sweep uint64, most int, fits func(*schemas.Event) bool) *Commit {
	c := &Commit{items: r.take(most), Watermark: r.watermark, tooLarge: make(map[int64]*past)}
	w := &c.Watermark
	population := maps.Clone(r.published)
	tooLarge := len(r.tooLarge)
	latest := make(map[int64]*State, len(c.items)) // of agents with an event
	for _, it := range c.items {
		if it.end != nil {
			it.end.GlancedAt = w.GlancedAt
			c.complete, *w = true, *it.end
			w.Rejected += tooLarge
			continue
		}
		if !it.isChange() {
			w.GlancedAt = it.glanced
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
		if first != nil { // what was too large is a part of this change
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
		population.count(from, -1)
		population.count(to, 1)
		c.Events, c.states = append(c.Events, event), append(c.states, to)
	}
	if n := len(c.items); !c.complete {
		if len(r.queue) > 0 && n > 0 {
			sweep = c.items[n-1].sweep
		}
		w.InProgress = inProgress(max(sweep, r.lastPublishedSweep), w.Sweep)
	}
	population.show(w)
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
	r.watermark, r.lapsed = c.Watermark, c.Lapsed
	r.watermark.InProgress = nil
	r.Skip(c)
}

// Skip takes the changes of a commit as done, without one: they cancel out, or no message can hold
// them. Those are not observed again at every sweep, since they stay what was last observed.
func (r *Roster) Skip(c *Commit) {
	for id, first := range c.tooLarge {
		if first != nil {
			r.tooLarge[id] = first
		} else {
			delete(r.tooLarge, id)
		}
	}
	r.watermark.GlancedAt = c.Watermark.GlancedAt
	r.pending -= c.Changes
	clear(c.items)
}

// Retry has changes that were too large observed again, since larger events fit than before. It
// must not be called while a commit is under way.
func (r *Roster) Retry() {
	for id := range r.tooLarge {
		if e := r.entry(id); e.queued == 0 {
			e.observed = there(e.published)
		}
	}
}
