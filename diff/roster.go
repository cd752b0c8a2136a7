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
	Sent, Read time.Time        // when the request was sent, when its answer had been read
	Agents     []schemas.Packed // the usable rows
	Rejected   []int64          // whose the rejected rows are, where that is known: they are not missing
	Baseline   bool             // the tenant has had no complete sweep yet
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
	tooLarge      int // agents of which a refused observation stands

	restart  Sweep // the last complete sweep that the log knew of when the roster was loaded, where it bounds anything
	complete Sweep // the last complete sweep that shows who was not listed
}

// An entry is what is known of an agent. There are as many as agents, so it is kept small.
type entry struct {
	id        int64
	published published
	revision  uint64         // the highest ever published, also where the log has lost it since
	last      *Observation   // the latest observation that is not yet published; nil: what is published is what was last observed
	refused   *Observation   // the first observation since the published state whose event no message could hold; nil: none
	seen      *sighting      // the last page that showed the agent; nil: none since the roster was loaded
	read      schemas.Packed // the agent as that page showed it, already compared; "": yet to be compared
	spared    uint64         // the last sweep in which a rejected row was this agent's
	heldSince int64          // since when the guard holds it back, in nanoseconds since 1970; 0: it does not
	missing   int32          // complete sweeps in a row that missed it
}

// published is a State; the zero one is that of an agent of which nothing has been published.
type published struct {
	agent           schemas.Packed
	revision        uint64
	time, since     int64 // in milliseconds since 1970
	online, removed bool
}

func publishedAs(s *State) published {
	if s == nil {
		return published{}
	}
	return published{s.Agent, s.Revision, s.Time.UnixMilli(), s.Since.UnixMilli(), s.Online, s.Removed}
}

func (p *published) state() *State {
	if p.revision == 0 {
		return nil
	}
	return &State{Revision: p.revision, Online: p.online, Removed: p.removed, Time: milli(p.time), Since: milli(p.since), Agent: p.agent}
}

func (p *published) isThere() bool  { return p.revision > 0 && !p.removed }
func (p *published) isOnline() bool { return p.isThere() && p.online }

func milli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// A sighting is a page that showed an agent. All agents of a page share it; it never changes.
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
		was, is := r.entry(id).published, publishedAs(s)
		if is.revision < was.revision {
			lost++
		}
		if was.revision == 0 || was.revision != is.revision || was.time != is.time {
			moved[id] = true
		}
		r.publish(id, s)
	}
	for id, e := range r.agents {
		if _, ok := states[id]; !ok && e.published.revision > 0 {
			load(id, nil)
		}
	}
	for id, s := range states {
		load(id, s)
	}
	for id := range moved {
		e := r.agents[id]
		r.refuse(e, nil)
		if e.last != nil && e.last.refused {
			e.last = nil
		}
		e.seen, e.read = nil, ""
		e.spared, e.missing, e.heldSince = 0, 0, 0
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
	e.last, e.read = nil, ""
	if e.seen != nil && o.Agent != "" && r.changed(e, o.Agent) {
		// It did not show the agent as it is published.
		e.seen = &sighting{sweep: e.seen.sweep, sent: o.NotBefore, read: e.seen.read}
	}
}

// Retry has what was refused observed again: larger events fit than before.
func (r *Roster) Retry() {
	if r.tooLarge == 0 {
		return
	}
	for _, e := range r.agents {
		if e.last != nil && e.last.refused {
			r.GiveUp(e.last)
		}
	}
}

// Refused reports whether an observation of the agent was refused, and none has been published since.
func (r *Roster) Refused(id int64) bool {
	e := r.agents[id]
	return e != nil && e.refused != nil
}

// Agents returns how many agents are there in the published state, and how many of them are online.
func (r *Roster) Agents() (there, online int) { return r.there, r.online }

// Len returns how many agents the roster remembers, removed ones included.
func (r *Roster) Len() int { return len(r.agents) }

// State returns what was last published of an agent, nil where nothing was.
func (r *Roster) State(id int64) *State {
	if e := r.agents[id]; e != nil {
		return e.published.state()
	}
	return nil
}

// Observe compares a page with what was last observed, and returns what changed, sorted by agent. A row whose request was sent
// before the answer that last showed its agent had been read says nothing new, and is ignored.
func (r *Roster) Observe(p Page) []*Observation {
	for _, id := range p.Rejected {
		e := r.entry(id)
		e.spared, e.missing, e.heldSince = p.Sweep, 0, 0
	}
	var out []*Observation
	here := &sighting{sweep: p.Sweep, sent: p.Sent, read: p.Read}
	for _, a := range p.Agents {
		e := r.entry(a.AgentID())
		if e.seen != nil && e.seen.covers(&p) {
			continue
		}
		switch {
		case a == e.read:
		case r.changed(e, a):
			e.last = &Observation{
				AgentID: e.id, Agent: a, Sweep: p.Sweep, Baseline: p.Baseline,
				NotBefore: r.notBefore(e), Time: p.Read,
			}
			out = append(out, e.last)
		case e.last == nil: // as it is published
			r.refuse(e, nil)
		}
		e.seen, e.read = here, a
		e.missing, e.heldSince = 0, 0
	}
	sortObservations(out)
	return out
}

// covers reports whether the sighting is of the same sweep and the page is not known to be newer.
func (s *sighting) covers(p *Page) bool { return s.sweep == p.Sweep && !p.Sent.After(s.read) }

// Complete judges absence at the end of a complete sweep whose pages have all been observed.
func (r *Roster) Complete(s Sweep) Absence {
	known := 0 // agents that could be missing
	var missing []*entry
	for _, e := range r.agents {
		if !e.there() || !r.polled(e) {
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
	ended := s.EndedAt.UnixNano()
	for _, e := range missing {
		if v.Suspended {
			// Not a sweep that missed it: the counts start anew. What the guard holds it goes on holding.
			e.missing = 0
			if e.heldSince != 0 {
				e.heldSince = ended
			}
			continue
		}
		e.missing++
		if guard && e.heldSince == 0 {
			e.heldSince = ended
		}
		held := e.heldSince != 0 && time.Duration(ended-e.heldSince) < r.rules.MissingHold
		switch {
		case held:
			v.Held++
			v.Missing++
		case int(e.missing) < r.rules.RemoveAfter:
			v.Missing++
		default:
			e.last = &Observation{AgentID: e.id, Sweep: s.Number, NotBefore: r.notBefore(e), Time: s.EndedAt}
			e.read, e.missing, e.heldSince = "", 0, 0
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
	States         []*State       // the one that each event leads to
	Refused        []*Observation // no message can hold their events
	TooLarge       int            // agents of which a refused observation stands once the events are published
	Agents, Online int            // of the published states once the events are published, removed agents left out
}

// Form computes the events that the observations, in their order, make of the published states. An event that does not fit
// goes without the undocumented part of its changes; one that does not fit even so is left out, and its agent's state stays.
// Form changes nothing.
func (r *Roster) Form(obs []*Observation, fits func(*schemas.Event) bool) Formed {
	f := Formed{TooLarge: r.tooLarge, Agents: r.there, Online: r.online}
	formed := make(map[int64]*State, len(obs))
	refused := make(map[int64]*Observation) // of agents seen to here; nil: none stands
	for _, o := range obs {
		known := r.agents[o.AgentID]
		prev, ok := formed[o.AgentID]
		if !ok && known != nil {
			prev = known.published.state()
		}
		first, ok := refused[o.AgentID]
		if !ok && known != nil {
			first = known.refused
		}
		net := *o
		if first != nil { // what it saw is a part of this event
			Fold(first, &net)
		}
		e, ok := r.rules.Event(prev, &net)
		if ok && known != nil {
			e.Data.Revision = max(e.Data.Revision, known.revision+1)
		}
		stands := ok && !fits(&e) && !(e.Data.TruncateChanges() && fits(&e))
		f.TooLarge += counts(stands) - counts(first != nil)
		refused[o.AgentID] = nil
		if stands {
			f.Refused = append(f.Refused, o)
			refused[o.AgentID] = cmp.Or(first, o)
		}
		if stands || !ok {
			continue
		}
		agent := o.Agent
		if agent == "" { // gone: as it was last published
			agent = prev.Agent
		}
		next := e.StateOf(agent)
		was, is := publishedAs(prev), publishedAs(next)
		f.Agents += counts(is.isThere()) - counts(was.isThere())
		f.Online += counts(is.isOnline()) - counts(was.isOnline())
		f.Events, f.States = append(f.Events, e), append(f.States, next)
		formed[o.AgentID] = next
	}
	return f
}

// Advance records that the observations have been published as what [Roster.Form] made of them. A refused one still is what
// was last observed, so that it is not observed again at every sweep.
func (r *Roster) Advance(obs []*Observation, f Formed) {
	for _, s := range f.States {
		r.publish(s.Agent.AgentID(), s)
	}
	refused := make(map[*Observation]bool, len(f.Refused))
	for _, o := range f.Refused {
		refused[o] = true
	}
	for _, o := range obs {
		e := r.entry(o.AgentID)
		if refused[o] {
			o.refused = true
			r.refuse(e, cmp.Or(e.refused, o))
			continue
		}
		r.refuse(e, nil)
		r.GiveUp(o)
	}
}

// refuse makes o the first observation of the agent that stands refused; nil: none does.
func (r *Roster) refuse(e *entry, o *Observation) {
	r.tooLarge += counts(o != nil) - counts(e.refused != nil)
	e.refused = o
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
	was, is := e.published, publishedAs(s)
	r.there += counts(is.isThere()) - counts(was.isThere())
	r.online += counts(is.isOnline()) - counts(was.isOnline())
	e.published = is
	if s != nil {
		e.revision = max(e.revision, s.Revision)
	}
}

// observed returns the agent as it was last observed, "" where nothing is known of it.
func (e *entry) observed() schemas.Packed {
	switch {
	case e.last != nil:
		return e.last.Agent
	default:
		return e.published.agent
	}
}

// there reports whether the agent was there when it was last observed.
func (e *entry) there() bool {
	switch {
	case e.last != nil && e.last.Agent != "":
		return e.last.Agent.There()
	case e.last != nil:
		return false
	default:
		return e.published.isThere()
	}
}

// changed reports whether a differs from what was last observed in a way that makes an event.
func (r *Roster) changed(e *entry, a schemas.Packed) bool {
	there := e.there()
	if !there || !a.There() {
		return there != a.There()
	}
	prev := e.observed()
	return prev != a && (prev.Online() != a.Online() || r.rules.loud(prev, a))
}

// notBefore says when the request was sent whose answer last showed the agent as it was last observed.
func (r *Roster) notBefore(e *entry) time.Time {
	if !e.there() {
		// The last listing without it shows that as well as a row does, unless a row that could not be used was this agent's.
		c := r.complete
		if c.Number > 0 && c.Unidentified == 0 && e.spared < c.Number && (e.seen == nil || e.seen.sweep < c.Number) {
			return c.StartedAt
		}
	}
	switch {
	case e.seen != nil:
		return e.seen.sent
	case e.published.revision == 0:
		return time.Time{}
	case r.restart.Number > 0:
		return r.restart.StartedAt
	default:
		return milli(e.published.time)
	}
}

// polled reports whether the agent belongs to a listing that is read: otherwise its absence means nothing.
func (r *Roster) polled(e *entry) bool {
	if r.types == nil || e.seen != nil {
		return true
	}
	t, ok := e.observed().Type()
	return ok && r.types[t]
}

func sortObservations(obs []*Observation) {
	slices.SortFunc(obs, func(a, b *Observation) int { return cmp.Compare(a.AgentID, b.AgentID) })
}
