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

// Roster holds, for every agent, what was published, what was last observed, and since when it has
// been missing; and the changes that are not yet published.
type Roster struct {
	rules  Rules
	agents map[int64]*entry

	queue    []item          // what is still to be published, in the order in which it was observed
	pending  int             // changes in the queue and in the commit under way
	folded   uint64          // changes that were folded, ever
	tooLarge map[int64]*past // agents with changes that no message could hold: the past of the first of them

	watermark          schemas.Watermark // the last one that is published, as after a complete sweep
	lastPublishedSweep uint64            // the last sweep that the stream knows of: no watermark goes back behind it
	hadCompleteSweep   bool              // ever

	present Population            // of the published state
	byType  map[string]Population // by the agents' type
	known   int                   // agents of which something was ever published; the others are strangers
	forgot  uint64                // the last sweep in which strangers were forgotten before it was complete

	untyped  bool          // an agent without a usable type belongs to a listing that is read, though it has not been seen yet
	restart  completeSweep // the last one when the stream was read, where it shows how everybody was
	complete completeSweep // the last one, where it shows who was not listed
}

// An entry is what is known of an agent.
type entry struct {
	id        int64
	published *State       // nil: nothing
	revision  uint64       // the highest ever published, also where the stream has lost it since
	observed  packed.Agent // the agent as it was last observed; "": not there
	queued    int          // its changes in the queue
	seen      sighting     // the last page that showed it; zero: none since the stream was read
	rank      int          // of the row that counted last, see [Roster.rank]
	other     *shown       // what another listing showed last that does not count; nil: nothing
	told      bool         // that two listings show it
	rejected  uint64       // the last sweep with a row of it that could not be used, or was only a sign of life
	missing   int          // complete sweeps in a row that missed it
	heldSince time.Time    // since when the guard holds it back; zero: it does not
}

// A sighting is when a page showed an agent.
type sighting struct {
	sweep      uint64
	sent, read time.Time
}

// lastListed is the last sweep that listed the agent, be it in a row that could not be used.
func (e *entry) lastListed() uint64 { return max(e.seen.sweep, e.rejected) }

// A completeSweep is what is remembered of one. A zero startedAt: that nobody was left out can't be
// told of it.
type completeSweep struct {
	number    uint64
	startedAt time.Time
	polled    []string // the types that it polled; empty: one listing of all
}

// covers reports whether the sweep tells of agents of the type.
func (s completeSweep) covers(kind string) bool {
	return !s.startedAt.IsZero() && (len(s.polled) == 0 || slices.Contains(s.polled, kind))
}

// NewRoster returns an empty roster.
func NewRoster(rules Rules) *Roster {
	return &Roster{rules: rules, agents: make(map[int64]*entry), tooLarge: make(map[int64]*past), byType: make(map[string]Population)}
}

// Population returns how many agents are there in the published state, of all types and of each;
// "" are those without one. The map is the roster's own.
func (r *Roster) Population() (all Population, byType map[string]Population) {
	return r.present, r.byType
}

// Watermark returns the figures of the last complete sweep that is published.
func (r *Roster) Watermark() schemas.Watermark { return r.watermark }

// Observe compares a page of a sweep with what was last observed, and queues what changed.
//
// A row whose request was sent before the answer that last showed its agent had been read says
// nothing new, and is ignored.
func (r *Roster) Observe(sweep uint64, p *listing.Page) {
	r.crowded(sweep)
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
		delete(r.tooLarge, e.id) // it is again as it is published
	}
	e.observed, e.seen, e.rank = row.agent, row.sighting, row.rank
	e.missing, e.heldSince = 0, time.Time{}
	return c, changed
}

// Alive says that a page showed its agents, and nothing else of it: they are not missing from its
// sweep.
func (r *Roster) Alive(sweep uint64, p *listing.Page) {
	r.crowded(sweep)
	r.spare(sweep, p.Rejected)
	for _, a := range p.Agents {
		r.alive(a.AgentID(), sweep)
	}
}

// spare says that the agents of rejected rows, where those are known, are not missing.
func (r *Roster) spare(sweep uint64, rows []listing.Rejected) {
	for _, row := range rows {
		if row.Known {
			r.alive(row.AgentID, sweep)
		}
	}
}

func (r *Roster) alive(id int64, sweep uint64) {
	e := r.entry(id)
	e.rejected, e.missing, e.heldSince = sweep, 0, time.Time{}
}

// notBefore says when the request was sent whose answer last showed the agent as it was last
// observed. row is what is shown now.
func (r *Roster) notBefore(e *entry, row shown) time.Time {
	// The last complete listing without the agent shows that it was not there as well as a row does.
	if !isThere(e.observed) && e.lastListed() < r.complete.number && r.complete.covers(r.typeOf(row)) {
		return r.complete.startedAt
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

// publish records what the stream says of an agent; nil: nothing.
func (r *Roster) publish(e *entry, s *State) {
	r.count(e.published, -1)
	r.count(s, 1)
	e.published = s
	if s != nil {
		if e.revision == 0 {
			r.known++
		}
		e.revision = max(e.revision, s.Revision)
	}
}

// count counts an agent in the published state, n times.
func (r *Roster) count(s *State, n int) {
	r.present.count(s, n)
	if there(s) == "" {
		return
	}
	kind, _ := s.Agent.Type()
	p := r.byType[kind]
	if p.count(s, n); p.Agents == 0 {
		delete(r.byType, kind)
	} else {
		r.byType[kind] = p
	}
}

// A Population counts the agents that are there, and those of them that are online.
type Population struct{ Agents, Online int }

func (p *Population) count(s *State, n int) {
	if there(s) == "" {
		return
	}
	p.Agents += n
	if s.Online {
		p.Online += n
	}
}

// forget forgets the strangers that are not there and that no sweep since the given one has listed.
func (r *Roster) forget(since uint64) {
	for id, e := range r.agents {
		if e.revision == 0 && e.queued == 0 && !isThere(e.observed) && e.lastListed() < since {
			delete(r.agents, id)
		}
	}
}

// mostStrangers is how many strangers are remembered from one sweep to another while none is
// complete, besides as many as there are known agents.
const mostStrangers = 1000

// crowded forgets strangers where there are too many: rejected rows may have ever new ids. The next
// agent to appear may be one of those, so nobody can say when it was last not there.
func (r *Roster) crowded(sweep uint64) {
	if len(r.agents)-r.known > r.known+mostStrangers && r.forgot < sweep {
		r.forgot = sweep
		r.forget(sweep)
		r.complete.startedAt = time.Time{}
	}
}

func sortChanges(changes []change) {
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.id, b.id) })
}
