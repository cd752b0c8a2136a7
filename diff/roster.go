package diff

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// Roster holds what was published of every agent, what was last observed, since when it has been
// missing, and the changes that are not yet published.
type Roster struct {
	rules  Rules
	agents map[int64]*entry

	queue    []item          // what is still to be published, in the order of observation
	pending  int             // changes in the queue and in the commit under way
	folded   uint64          // changes that were folded, ever
	tooLarge map[int64]*past // agents with changes that no message can hold: the first one's past

	watermark          schemas.Watermark // the last one published, as of a complete sweep
	lapsed             bool              // a nextBy has passed since that one
	lastPublishedSweep uint64            // in any watermark; none goes back behind it
	published          Population        // the agents of the published state

	known            int    // agents that ever had an event; the others are strangers
	forgot           uint64 // the last sweep in which strangers were forgotten before its end
	hadCompleteSweep bool   // ever

	complete completeSweep // the last one that tells who was not listed
	restart  completeSweep // the last one when the stream was read, where it tells how all were
	untyped  bool          // agents without a type are in the polled listings, says the stream
}

// An entry is what is known of an agent.
type entry struct {
	id        int64
	published *State       // nil: nothing
	revision  uint64       // the highest ever used, even if the stream has lost it since
	sent      uint64       // the highest in a commit that may have been stored; 0: none
	observed  packed.Agent // the agent as it was last observed; "": not there
	queued    int          // how many of its changes are in the queue

	seen   sighting // the last page that showed it; zero: none since the stream was read
	rank   int      // of the row that counted last, see [Roster.rank]
	other  *shown   // the last row of another listing that does not count; nil: there is none
	told   bool     // that two listings show it
	spared uint64   // the last sweep with a row of it that was not compared: it is not missing

	missing   int       // how many complete sweeps in a row have missed it
	heldSince time.Time // since when the guard holds it; zero: it does not
}

// A sighting is when a page showed an agent.
type sighting struct {
	sweep      uint64
	sent, read time.Time
}

// lastListed is the last sweep that listed the agent, even in a row that could not be used.
func (e *entry) lastListed() uint64 { return max(e.seen.sweep, e.spared) }

// A completeSweep is what is remembered of one.
type completeSweep struct {
	number    uint64
	startedAt time.Time // zero: rows were rejected that may have been anybody's
	polled    []string  // the types that it polled; empty: one listing of all
}

// covers reports whether the sweep tells of agents of the type.
func (s completeSweep) covers(kind string) bool {
	return !s.startedAt.IsZero() && (len(s.polled) == 0 || slices.Contains(s.polled, kind))
}

// NewRoster returns an empty roster.
func NewRoster(rules Rules) *Roster {
	return &Roster{
		rules: rules, agents: make(map[int64]*entry), tooLarge: make(map[int64]*past),
		published: make(Population),
	}
}

// Population counts the agents of the published state. It must not be changed.
func (r *Roster) Population() Population { return r.published }

// Watermark returns the figures of the last complete sweep that is published.
func (r *Roster) Watermark() schemas.Watermark { return r.watermark }

// Observe compares a page of a sweep with what was last observed, and queues what changed. Of two
// pages of a sweep that show the same agent the second counts only if it was asked for after the
// first had been read.
func (r *Roster) Observe(sweep uint64, p *listing.Page) {
	r.forgetMany(sweep)
	r.spare(sweep, p.Rejected)
	var changes []change
	here := sighting{sweep, p.Sent, p.Read}
	for _, a := range p.Agents {
		e, row := r.entry(a.AgentID()), shown{a, r.rank(p.Listing, a), here}
		if !r.counts(e, row) {
			continue
		}
		if c, ok := r.show(e, row); ok {
			changes = append(changes, c)
		}
	}
	r.push(changes)
}

// A shown is what a page showed of an agent.
type shown struct {
	agent packed.Agent
	rank  int
	sighting
}

// show makes a row what was last observed, and returns what changed.
func (r *Roster) show(e *entry, row shown) (c change, changed bool) {
	if changed = r.rules.differ(e.observed, row.agent); changed {
		c = change{e.id, row.agent, row.sweep, row.read, past{
			notBefore: r.notBefore(e, row), baseline: !r.hadCompleteSweep,
			unseen: e.seen.sweep == 0 && e.published != nil,
		}}
	} else if r.tooLarge[e.id] != nil && !r.rules.differ(there(e.published), row.agent) {
		delete(r.tooLarge, e.id) // it is as it is published again
	}
	e.observed, e.seen, e.rank = row.agent, row.sighting, row.rank
	e.missing, e.heldSince = 0, time.Time{}
	return c, changed
}

// Alive takes from a page only that its agents are listed, so that they are not missing from its
// sweep.
func (r *Roster) Alive(sweep uint64, p *listing.Page) {
	r.forgetMany(sweep)
	r.spare(sweep, p.Rejected)
	for _, a := range p.Agents {
		r.alive(a.AgentID(), sweep)
	}
}

// spare says that agents of rejected rows are not missing, where it is known whose the rows are.
func (r *Roster) spare(sweep uint64, rows []listing.Rejected) {
	for _, row := range rows {
		if row.Known {
			r.alive(row.AgentID, sweep)
		}
	}
}

func (r *Roster) alive(id int64, sweep uint64) {
	e := r.entry(id)
	e.spared, e.missing, e.heldSince = sweep, 0, time.Time{}
}

// notBefore returns when the request was sent whose answer last showed the agent as it was last
// observed. row is what is shown now.
func (r *Roster) notBefore(e *entry, row shown) time.Time {
	// That an agent was not there, a complete sweep that did not list it shows as well as a row.
	last := r.complete
	if !isThere(e.observed) && e.lastListed() < last.number && last.covers(r.typeOf(row)) {
		return last.startedAt
	}
	if e.seen.sweep > 0 {
		return e.seen.sent
	}
	if e.published == nil {
		return time.Time{}
	}
	if kind, _ := e.published.Agent.Type(); r.restart.covers(kind) {
		return r.restart.startedAt
	}
	return e.published.Time
}

func (r *Roster) entry(id int64) *entry {
	e := r.agents[id]
	if e == nil {
		e = &entry{id: id, rank: math.MaxInt}
		r.agents[id] = e
	}
	return e
}

// publish records what the stream says of an agent, nil: nothing.
func (r *Roster) publish(e *entry, s *State) {
	r.published.count(e.published, -1)
	r.published.count(s, 1)
	e.published = s
	if s != nil {
		r.use(e, s.Revision)
	}
}

// use remembers that a revision of the agent was used, if it is above 0.
func (r *Roster) use(e *entry, revision uint64) {
	if e.revision == 0 && revision > 0 {
		r.known++
	}
	e.revision = max(e.revision, revision)
}

// forget forgets strangers that are not there, and that no sweep since the given one has listed.
func (r *Roster) forget(since uint64) {
	for id, e := range r.agents {
		if e.revision == 0 && e.queued == 0 && !isThere(e.observed) && e.lastListed() < since {
			delete(r.agents, id)
		}
	}
}

// mostStrangers is how many strangers are remembered while no sweep is complete, besides as many as
// there are known agents.
const mostStrangers = 1000

// forgetMany forgets strangers when there are too many: rejected rows may have ever new ids. The
// next agent to appear may be one of them, so nobody can say when it was last not there.
func (r *Roster) forgetMany(sweep uint64) {
	if len(r.agents)-r.known > r.known+mostStrangers && r.forgot < sweep {
		r.forgot = sweep
		r.forget(sweep)
		r.complete.startedAt = time.Time{}
	}
}

func sortChanges(changes []change) {
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.id, b.id) })
}
