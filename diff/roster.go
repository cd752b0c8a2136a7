package diff

import (
	"cmp"
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// Page is one page of the listing, as the rules see it.
type Page struct {
	Sweep      uint64
	Sent, Read time.Time       // when the request was sent, when its answer had been read
	Agents     []schemas.Agent // the usable rows
	Rejected   []int64         // whose the rejected rows are, where that is known: they are not missing
	Baseline   bool            // the tenant has had no complete sweep yet
}

// Sweep is a complete sweep.
type Sweep struct {
	Number             uint64
	StartedAt, EndedAt time.Time
	Rejected           int // rows that could not be used
	Unidentified       int // those of them that nobody can tell whose they are
}

// Absence is what a complete sweep says about the agents that it did not show.
type Absence struct {
	Removed   []*Observation // those that now count as removed, sorted by agent
	Missing   int            // those that are missing but not yet removed
	Held      int            // those of them that the guard holds back
	Suspended bool           // rows that nobody can name: no agent counts as missing
}

// Roster holds, for every agent, what was published, what was last observed, and since when it has been missing.
type Roster struct {
	rules  Rules
	types  map[string]bool // nil: all
	agents map[int64]*entry

	there, online int // of the published states

	restart  Sweep // the last complete sweep that the log knew of when the roster was loaded, where it bounds anything
	complete Sweep // the last complete sweep that shows who was not listed
}

type entry struct {
	id        int64
	published *State       // nil: nothing published yet
	revision  uint64       // the highest ever published, also where the log has lost it since
	last      *Observation // the latest observation that is not yet published; nil: what is published is what was last observed
	seen      *sighting    // the last page that showed the agent; nil: none since the roster was loaded
	spared    uint64       // the last sweep in which a rejected row was this agent's
	missing   int          // complete sweeps in a row that missed it
	heldSince time.Time    // since when the guard holds it back; zero: it does not
}

// A sighting is shared by all agents of a page.
type sighting struct {
	sweep      uint64
	sent, read time.Time
}

// NewRoster returns an empty roster.
func NewRoster(rules Rules) *Roster {
	r := &Roster{rules: rules, agents: make(map[int64]*entry)}
	if len(rules.Types) > 0 {
		r.types = make(map[string]bool, len(rules.Types))
		for _, t := range rules.Types {
			r.types[t] = true
		}
	}
	return r
}

// Load takes over what the log says: every agent's state, and the figures of the last watermark. It returns the agents whose
// published state is not what the roster had published itself (at first, all of them): observations of these that are still to
// be published refer to a past that is no more, and have to be given up with [Roster.GiveUp].
//
// Everything that lives in memory only starts anew for them: late, never wrong. All but the revisions: where the log has lost
// events that the roster knows of, an agent's next event goes on above them. lost counts these agents.
func (r *Roster) Load(states map[int64]*State, w *schemas.Watermark) (moved map[int64]bool, lost int) {
	moved = make(map[int64]bool)
	load := func(id int64, s *State) {
		p := r.entry(id).published
		if p != nil && (s == nil || s.Revision < p.Revision) {
			lost++
		}
		if p == nil || s == nil || p.Revision != s.Revision || !p.Time.Equal(s.Time) {
			moved[id] = true
		}
		r.publish(id, s)
	}
	for id, e := range r.agents {
		if _, ok := states[id]; !ok && e.published != nil {
			load(id, nil)
		}
	}
	for id, s := range states {
		load(id, s)
	}
	for id := range moved {
		e := r.agents[id]
		e.seen, e.spared, e.missing, e.heldSince = nil, 0, 0, time.Time{}
	}
	r.restart = Sweep{}
	if w != nil && w.Sweep > 0 && w.Missing == 0 && w.Rejected == 0 {
		r.restart = Sweep{Number: w.Sweep, StartedAt: w.StartedAt}
	}
	if w != nil && w.Sweep > r.complete.Number {
		// The log does not say whose the rejected rows were.
		r.complete = Sweep{Number: w.Sweep, StartedAt: w.StartedAt, EndedAt: w.CompletedAt, Rejected: w.Rejected, Unidentified: w.Rejected}
	}
	return moved, lost
}

// GiveUp forgets an observation that will not be published: what it saw counts as not yet observed.
func (r *Roster) GiveUp(o *Observation) {
	e := r.agents[o.AgentID]
	if e == nil || e.last != o {
		return
	}
	e.last = nil
	if e.seen != nil && o.Agent != nil && r.changed(e, o.Agent) {
		e.seen = &sighting{e.seen.sweep, o.NotBefore, e.seen.read} // it did not show the agent as it is published
	}
}

// Agents returns how many agents are there in the published state, and how many of them are online.
func (r *Roster) Agents() (there, online int) { return r.there, r.online }

// Len returns how many agents the roster remembers, removed ones included.
func (r *Roster) Len() int { return len(r.agents) }

// State returns what was last published of an agent, nil where nothing was.
func (r *Roster) State(id int64) *State {
	if e := r.agents[id]; e != nil {
		return e.published
	}
	return nil
}

// Observe compares a page with what was last observed, and returns what changed, sorted by agent. A row whose request was sent
// before the answer that last showed its agent had been read says nothing new, and is ignored.
func (r *Roster) Observe(p Page) []*Observation {
	for _, id := range p.Rejected {
		e := r.entry(id)
		e.spared, e.missing, e.heldSince = p.Sweep, 0, time.Time{}
	}
	var out []*Observation
	here := &sighting{p.Sweep, p.Sent, p.Read}
	for i := range p.Agents {
		a := &p.Agents[i]
		e := r.entry(a.AgentID)
		if e.seen != nil && e.seen.sweep == p.Sweep && !p.Sent.After(e.seen.read) {
			continue
		}
		if r.changed(e, a) {
			own := *a // so that one change does not keep a page of agents in memory
			e.last = &Observation{
				AgentID: a.AgentID, Agent: &own, Sweep: p.Sweep, Baseline: p.Baseline,
				NotBefore: r.notBefore(e), Time: p.Read,
			}
			out = append(out, e.last)
		}
		e.seen, e.missing, e.heldSince = here, 0, time.Time{}
	}
	sortObservations(out)
	return out
}

// Complete judges absence at the end of a complete sweep whose pages have all been observed.
func (r *Roster) Complete(s Sweep) Absence {
	known := 0
	var missing []*entry
	for _, e := range r.agents {
		if _, there := e.observed(); !there || !r.polled(e) {
			continue
		}
		known++
		if e.spared != s.Number && (e.seen == nil || e.seen.sweep != s.Number) {
			missing = append(missing, e)
		}
	}
	v := Absence{Suspended: s.Unidentified > 0}
	// A quotient is exact where a product is not: 29 of 100 are 0.29, but 0.29*100 is less than 29.
	guard := len(missing) > 0 && float64(len(missing))/float64(known) > r.rules.MaxMissing
	for _, e := range missing {
		if v.Suspended {
			// Not a sweep that missed it: the counts start anew. What the guard holds it goes on holding.
			e.missing = 0
			if !e.heldSince.IsZero() {
				e.heldSince = s.EndedAt
			}
			continue
		}
		e.missing++
		if guard && e.heldSince.IsZero() {
			e.heldSince = s.EndedAt
		}
		held := !e.heldSince.IsZero() && s.EndedAt.Sub(e.heldSince) < r.rules.MissingHold
		switch {
		case held:
			v.Held++
			v.Missing++
		case e.missing < r.rules.RemoveAfter:
			v.Missing++
		default:
			e.last = &Observation{AgentID: e.id, Sweep: s.Number, NotBefore: r.notBefore(e), Time: s.EndedAt}
			e.missing, e.heldSince = 0, time.Time{}
			v.Removed = append(v.Removed, e.last)
		}
	}
	sortObservations(v.Removed)
	if s.Unidentified == 0 {
		r.complete = s
	}
	return v
}

// Formed is what observations make of the published states.
type Formed struct {
	Events         []schemas.Event
	Refused        []*Observation // their events do not fit
	Agents, Online int            // of the published states once the events are published, removed agents left out
}

// Form computes the events that the observations, in their order, make of the published states. An event that does not fit is
// left out, and its agent's state stays. Form changes nothing.
func (r *Roster) Form(obs []*Observation, fits func(*schemas.Event) bool) Formed {
	f := Formed{Agents: r.there, Online: r.online}
	formed := make(map[int64]*State, len(obs))
	for _, o := range obs {
		prev, ok := formed[o.AgentID]
		if !ok {
			prev = r.State(o.AgentID)
		}
		e, ok := r.rules.Event(prev, o)
		if !ok {
			continue
		}
		if known := r.agents[o.AgentID]; known != nil {
			e.Data.Revision = max(e.Data.Revision, known.revision+1)
		}
		if !fits(&e) {
			f.Refused = append(f.Refused, o)
			continue
		}
		next := StateOf(&e)
		f.Agents += counts(next.there()) - counts(prev.there())
		f.Online += counts(next.online()) - counts(prev.online())
		f.Events = append(f.Events, e)
		formed[o.AgentID] = next
	}
	return f
}

// Advance records that the observations have been published as these events.
func (r *Roster) Advance(obs []*Observation, events []schemas.Event) {
	for i := range events {
		r.publish(events[i].Data.Agent.AgentID, StateOf(&events[i]))
	}
	for _, o := range obs {
		r.GiveUp(o)
	}
}

func (r *Roster) entry(id int64) *entry {
	e := r.agents[id]
	if e == nil {
		e = &entry{id: id}
		r.agents[id] = e
	}
	return e
}

func (r *Roster) publish(id int64, s *State) {
	e := r.entry(id)
	r.there += counts(s.there()) - counts(e.published.there())
	r.online += counts(s.online()) - counts(e.published.online())
	e.published = s
	if s != nil {
		e.revision = max(e.revision, s.Revision)
	}
}

// observed returns the agent as it was last observed, where anything is known of it, and whether it was there.
func (e *entry) observed() (a *schemas.Agent, there bool) {
	switch {
	case e.last != nil:
		return e.last.Agent, e.last.there()
	case e.published != nil:
		return &e.published.Agent, !e.published.Removed
	default:
		return nil, false
	}
}

// changed reports whether a differs from what was last observed in a way that makes an event.
func (r *Roster) changed(e *entry, a *schemas.Agent) bool {
	prev, there := e.observed()
	if !there || !a.There() {
		return there != a.There()
	}
	return prev.Online() != a.Online() || r.rules.loud(prev, a)
}

// notBefore says when the request was sent whose answer last showed the agent as it was last observed.
func (r *Roster) notBefore(e *entry) time.Time {
	_, there := e.observed()
	if !there {
		// The last listing without it shows that as well as a row does, unless a row that could not be used was this agent's.
		c := r.complete
		if c.Number > 0 && c.Unidentified == 0 && e.spared < c.Number && (e.seen == nil || e.seen.sweep < c.Number) {
			return c.StartedAt
		}
	}
	switch {
	case e.seen != nil:
		return e.seen.sent
	case e.published == nil:
		return time.Time{}
	case r.restart.Number > 0:
		return r.restart.StartedAt
	default:
		return e.published.Time
	}
}

// polled reports whether the agent belongs to a listing that is read: otherwise its absence means nothing.
func (r *Roster) polled(e *entry) bool {
	if r.types == nil || e.seen != nil {
		return true
	}
	a, _ := e.observed()
	return a.Type != nil && r.types[*a.Type]
}

func sortObservations(obs []*Observation) {
	slices.SortFunc(obs, func(a, b *Observation) int { return cmp.Compare(a.AgentID, b.AgentID) })
}
