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

// completeSweep is what is remembered of a complete sweep.
type completeSweep struct {
	Number             uint64
	StartedAt, EndedAt time.Time
	Rejected           int // rows that could not be used
	Unidentified       int // those of them that nobody can tell whose they are

	polled types // of a sweep that the stream tells of
}

// types are the business types that a sweep polled, one listing each; empty: one listing of all.
type types []string

func (t types) has(name string) bool { return len(t) == 0 || slices.Contains(t, name) }

// Absence is what a complete sweep says about the agents that it did not show.
type Absence struct {
	Shown     []*Observation // what only a listing says of an agent that is not the one to go by, sorted by agent
	Removed   []*Observation // those that now count as removed, sorted by agent
	Missing   int            // those that are missing but not yet removed
	Held      int            // those of them that the guard holds back
	Suspended bool           // rows that nobody can name: no agent counts as missing
}

// Roster holds, for every agent, what was published, what was last observed, and since when it has
// been missing.
type Roster struct {
	rules  Rules
	agents map[int64]*entry

	// Where several types are polled: rows of another listing than the one to go by. They count
	// where that one turns out not to show their agents.
	aside map[int64]shown
	twice []int64 // agents found in two listings in different states, that Twice has not yet told of

	strangers int    // agents of which nothing was ever published
	forgot    uint64 // the last sweep in which some of them were forgotten before it was complete

	there, online int // of the published states
	tooLarge      int // agents of which a refused observation stands

	untyped  bool          // an agent without a usable type belongs to a listing that is read, though it has not been seen yet
	restart  completeSweep // the last complete sweep that the log knew of when the roster was loaded, where it bounds anything
	complete completeSweep // the last complete sweep that shows who was not listed
}

// An entry is what is known of an agent. There are as many as agents, so it is kept small.
type entry struct {
	id        int64
	published published
	revision  uint64       // the highest ever published, also where the log has lost it since
	last      *Observation // the latest observation that is not yet published; nil: what is published is what was last observed
	refused   *Observation // the first observation since the published state whose event no message could hold; nil: none
	seen      *sighting    // the last page that showed the agent; nil: none since the roster was loaded
	read      packed.Agent // the agent as that page showed it, already compared; "": yet to be compared
	spared    uint64       // the last sweep in which a rejected row was this agent's
	heldSince int64        // since when the guard holds it back, in nanoseconds since 1970; 0: it does not
	missing   int32        // complete sweeps in a row that missed it
	rank      int16        // of the listing and the row that seen is of
	twice     bool         // another listing shows it too, in another state
	told      bool         // … and Twice has told so
}

// published is a State; the zero one is that of an agent of which nothing has been published.
type published struct {
	agent           packed.Agent
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
	return &Roster{rules: rules, agents: make(map[int64]*entry), aside: make(map[int64]shown)}
}

// Load takes over what the log says: every agent's state, and the figures of the last watermark. It
// returns the agents whose published state is not what the roster had published itself (at first,
// all of them): observations of these that are still to be published refer to a past that is no
// more, and have to be given up with [Roster.GiveUp].
//
// Everything that lives in memory only starts anew for them: late, never wrong. All but the
// revisions: where the log has lost events that the roster knows of, an agent's next event goes on
// above them. lost counts these agents.
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
	r.restart, r.untyped = completeSweep{}, false
	if w != nil && w.Sweep > 0 && w.Missing == 0 && w.Rejected == 0 {
		r.restart = completeSweep{Number: w.Sweep, StartedAt: w.StartedAt, polled: w.Polled}
	}
	if w != nil && len(w.Polled) > 0 {
		// Who is listed without a type is so in one of these listings, and maybe in one that is not
		// read any more.
		gone := func(t string) bool { return !types(r.rules.Types).has(t) }
		r.untyped = !slices.ContainsFunc(w.Polled, gone)
	}
	if w != nil && w.Sweep > r.complete.Number {
		// The stream does not say whose the rejected rows were.
		r.complete = completeSweep{
			Number: w.Sweep, StartedAt: w.StartedAt, EndedAt: w.CompletedAt, Rejected: w.Rejected,
			Unidentified: w.Rejected, polled: w.Polled,
		}
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

// Refused reports whether an observation of the agent was refused, and none has been published
// since.
func (r *Roster) Refused(id int64) bool {
	e := r.agents[id]
	return e != nil && e.refused != nil
}

// Agents returns how many agents are there in the published state, and how many of them are online.
func (r *Roster) Agents() (there, online int) { return r.there, r.online }

// Listed returns how many agents of the published state each listing may have: those of which it is
// not known which one they are in may be in any.
func (r *Roster) Listed() []int {
	n := make([]int, max(1, len(r.rules.Types))+1)
	for _, e := range r.agents {
		if e.published.isThere() && r.polled(e) {
			n[r.tallied(e)]++
		}
	}
	last := len(n) - 1
	for i := range last {
		n[i] += n[last]
	}
	return n[:last]
}

// Len returns how many agents the roster remembers, removed ones included.
func (r *Roster) Len() int { return len(r.agents) }

// State returns what was last published of an agent, nil where nothing was.
func (r *Roster) State(id int64) *State {
	if e := r.agents[id]; e != nil {
		return e.published.state()
	}
	return nil
}

// RefusedTwice is how many of the agents of which a refused observation stands had a rejected row
// in the sweep besides, as where rows have to be shorter now than they were then: they are one
// rejected record each.
func (r *Roster) RefusedTwice(sweep uint64) (n int) {
	if r.tooLarge == 0 {
		return 0
	}
	for _, e := range r.agents {
		n += counts(e.refused != nil && e.spared == sweep)
	}
	return n
}

// Observe compares a page of a sweep with what was last observed, and returns what changed, sorted
// by agent. baseline says that the tenant has had no complete sweep yet.
//
// A row whose request was sent before the answer that last showed its agent had been read says
// nothing new, and is ignored. Of two polled listings that show the same agent one is gone by,
// whichever is read first: that whose type the row names, else the first. A row of the other one
// counts where the sweep turns out to be complete and that one not to have shown the agent. An
// agent that comes into another listing, whose type its row names, has moved there as far as
// anybody knows: that counts at once, unless both have been seen to show it.
func (r *Roster) Observe(sweep uint64, p *listing.Page, baseline bool) []*Observation {
	r.crowded(sweep)
	r.spare(sweep, p.Rejected)
	var out []*Observation
	here := &sighting{sweep: sweep, sent: p.Sent, read: p.Read}
	for _, a := range p.Agents {
		e, row := r.entry(a.AgentID()), shown{a, r.rank(p.Listing, a), here, baseline}
		if !r.decides(e, row) {
			continue
		}
		if o := r.show(e, row); o != nil {
			out = append(out, o)
		}
	}
	sortObservations(out)
	return out
}

// decides reports whether a row counts now. One that may yet do so is laid aside.
func (r *Roster) decides(e *entry, row shown) bool {
	now := e.seen != nil && e.seen.sweep == row.by.sweep // what is gone by has been read
	switch home := r.home(e); {
	case len(r.rules.Types) < 2, e.seen != nil && r.listing(row.rank) == r.listing(home):
		return !now || row.by.sent.After(e.seen.read)
	case row.rank < home, row.rank == home:
		r.compare(e, row.agent, now)
		return true
	case now:
		r.compare(e, row.agent, true)
	case e.seen != nil && row.rank < len(r.rules.Types) && !e.twice && e.spared != row.by.sweep:
		return true // it has moved
	default:
		r.lay(row)
	}
	return false
}

// A shown is a row of a page.
type shown struct {
	agent    packed.Agent
	rank     int
	by       *sighting
	baseline bool
}

// show takes a row in that counts, and returns what changed.
func (r *Roster) show(e *entry, row shown) (o *Observation) {
	switch a := row.agent; {
	case a == e.read:
	case r.changed(e, a):
		o = &Observation{
			AgentID: e.id, Agent: a, Sweep: row.by.sweep, Baseline: row.baseline,
			NotBefore: r.notBefore(e, a, r.listing(row.rank)), Time: row.by.read,
			Unseen: e.seen == nil && e.published.revision > 0,
		}
		e.last = o
	case e.last == nil: // as it is published
		r.refuse(e, nil)
	}
	e.seen, e.read, e.rank = row.by, row.agent, int16(row.rank)
	e.missing, e.heldSince = 0, 0
	return o
}

// Alive says that a page showed its agents, and nothing else of it: they are not missing from its
// sweep.
func (r *Roster) Alive(sweep uint64, p *listing.Page) {
	r.crowded(sweep)
	r.spare(sweep, p.Rejected)
	for _, a := range p.Agents {
		r.alive(r.entry(a.AgentID()), sweep)
	}
}

// spare says that the agents of rejected rows, where those are known, are not missing.
func (r *Roster) spare(sweep uint64, rows []listing.Rejected) {
	for _, row := range rows {
		if row.Known {
			r.alive(r.entry(row.AgentID), sweep)
		}
	}
}

func (r *Roster) alive(e *entry, sweep uint64) { e.spared, e.missing, e.heldSince = sweep, 0, 0 }

// lay lays a row aside. Of several the better one stays, then the newer one.
func (r *Roster) lay(row shown) {
	id := row.agent.AgentID()
	if was, ok := r.aside[id]; ok && was.by.sweep == row.by.sweep &&
		(was.rank < row.rank || was.rank == row.rank && !row.by.sent.After(was.by.read)) {
		return
	}
	r.aside[id] = row
}

// takeAside takes in what was laid aside in a complete sweep, of agents that it did not show
// otherwise.
func (r *Roster) takeAside(sweep uint64) (out []*Observation) {
	for id, x := range r.aside {
		e := r.entry(id)
		switch {
		case x.by.sweep != sweep, e.spared == sweep: // a rejected row leaves its agent as it was
			continue
		case e.seen != nil && e.seen.sweep == sweep:
			r.compare(e, x.agent, true)
			continue
		}
		e.twice = false
		if o := r.show(e, x); o != nil {
			out = append(out, o)
		}
	}
	clear(r.aside)
	sortObservations(out)
	return out
}

// rank orders what the listings show of an agent: the least is gone by.
func (r *Roster) rank(listing int, a packed.Agent) int {
	n := len(r.rules.Types)
	if n == 0 {
		return 0
	}
	if t, ok := a.Type(); ok && r.rules.Types[listing] == t {
		return listing
	}
	return n + listing
}

// listing is the one that a rank is of.
func (r *Roster) listing(rank int) int { return rank % max(1, len(r.rules.Types)) }

// home is the rank that is gone by so far: that of the row that counted last. Of an agent that has
// not been seen since the stream was read it is what its state names.
func (r *Roster) home(e *entry) int {
	switch {
	case e.seen != nil:
		return int(e.rank)
	case e.published.revision == 0:
		return math.MaxInt
	}
	t, _ := e.published.agent.Type()
	if i := slices.Index(r.rules.Types, t); i >= 0 {
		return i
	}
	return len(r.rules.Types)
}

// tallied is the listing that the agent is counted in. Those of which that is not known are counted
// by themselves, behind all listings.
func (r *Roster) tallied(e *entry) int {
	home, n := r.home(e), max(1, len(r.rules.Types))
	if n == 1 || e.seen != nil || home < n {
		return r.listing(home)
	}
	return n
}

// compare notes that two listings show the agent, in different states, where they do in one sweep.
func (r *Roster) compare(e *entry, a packed.Agent, both bool) {
	if !both || !r.changed(e, a) {
		return
	}
	if e.twice = true; !e.told {
		e.told = true
		r.twice = append(r.twice, e.id)
	}
}

// Twice returns the agents that two polled listings show in different states, each once.
func (r *Roster) Twice() []int64 {
	ids := r.twice
	r.twice = nil
	slices.Sort(ids)
	return ids
}

// Complete judges absence at the end of a complete sweep whose pages have all been observed.
func (r *Roster) Complete(sweep uint64, s *listing.Verdict) Absence {
	v := Absence{Shown: r.takeAside(sweep), Suspended: s.Unidentified > 0}
	whole, each := tally{}, make([]tally, max(1, len(r.rules.Types))+1)
	var missing []*entry
	for _, e := range r.agents {
		if !e.there() || !r.polled(e) {
			continue
		}
		absent := e.spared != sweep && (e.seen == nil || e.seen.sweep != sweep)
		whole.add(absent)
		each[r.tallied(e)].add(absent)
		if absent {
			missing = append(missing, e)
		}
	}
	guards := func(e *entry) bool {
		of := r.tallied(e)
		if of == len(each)-1 && each[of].missing <= few { // who are all of no listing
			return whole.tooMany(r.rules.MaxMissing)
		}
		return whole.tooMany(r.rules.MaxMissing) || each[of].tooMany(r.rules.MaxMissing)
	}
	ended := s.EndedAt.UnixNano()
	for _, e := range missing {
		if v.Suspended {
			// Not a sweep that missed it: the counts start anew. What the guard holds it goes on
			// holding.
			e.missing = 0
			if e.heldSince != 0 {
				e.heldSince = ended
			}
			continue
		}
		e.missing++
		if e.heldSince == 0 && guards(e) {
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
			e.last = &Observation{AgentID: e.id, Sweep: sweep, NotBefore: r.notBefore(e, "", 0), Time: s.EndedAt}
			e.read, e.missing, e.heldSince = "", 0, 0
			v.Removed = append(v.Removed, e.last)
		}
	}
	sortObservations(v.Removed)
	if s.Unidentified == 0 {
		r.complete = completeSweep{Number: sweep, StartedAt: s.StartedAt, EndedAt: s.EndedAt, Rejected: s.Rejected}
		if r.strangers > 0 {
			r.forget(sweep)
		}
	}
	return v
}

// A tally counts the agents of a listing that could be missing, and those of them that are.
type tally struct{ known, missing int }

func (t *tally) add(missing bool) {
	t.known++
	t.missing += counts(missing)
}

// few is how many agents may always go missing from a listing, as long as others stay.
const few = 3

// tooMany reports whether a larger share of the listing is missing than the guard lets go.
func (t tally) tooMany(share float64) bool {
	// A quotient is exact where a product is not: 29 of 100 are 0.29, but 0.29*100 is less than 29.
	return t.missing > 0 && float64(t.missing)/float64(t.known) > share &&
		(t.missing > few || t.missing == t.known)
}

// Formed is what observations make of the published states.
type Formed struct {
	Events         []schemas.Event
	States         []*State       // the one that each event leads to
	Refused        []*Observation // no message can hold their events
	TooLarge       int            // agents of which a refused observation stands once the events are published
	Agents, Online int            // of the published states once the events are published, removed agents left out
}

// Form computes the events that the observations, in their order, make of the published states. An
// event that does not fit goes without the undocumented part of its changes; one that does not fit
// even so is left out, and its agent's state stays. Form changes nothing.
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
		next := packed.StateWith(&e, agent)
		was, is := publishedAs(prev), publishedAs(next)
		f.Agents += counts(is.isThere()) - counts(was.isThere())
		f.Online += counts(is.isOnline()) - counts(was.isOnline())
		f.Events, f.States = append(f.Events, e), append(f.States, next)
		formed[o.AgentID] = next
	}
	return f
}

// Advance records that the observations have been published as what [Roster.Form] made of them. A
// refused one still is what was last observed, so that it is not observed again at every sweep.
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
		r.strangers++
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
		r.strangers -= counts(e.revision == 0)
		e.revision = max(e.revision, s.Revision)
	}
}

// forget forgets the agents that nothing was published of and that no sweep since the given one has
// shown, not even by a row that could not be used.
func (r *Roster) forget(since uint64) {
	for id, e := range r.agents {
		shown := e.spared >= since || e.seen != nil && e.seen.sweep >= since
		if e.revision == 0 && e.last == nil && !shown {
			delete(r.agents, id)
			r.strangers--
		}
	}
}

// mostStrangers is how many agents that nothing was published of are remembered from one sweep to
// another while none is complete, besides as many as there are published ones.
const mostStrangers = 1000

// crowded forgets such agents where there are too many: rejected rows may have ever new ids. The
// next one to appear may be one of those, so nobody can say when it was last not there.
func (r *Roster) crowded(sweep uint64) {
	if r.strangers > len(r.agents)-r.strangers+mostStrangers && r.forgot < sweep {
		r.forgot = sweep
		r.forget(sweep)
		r.complete = completeSweep{Number: r.complete.Number, Unidentified: 1}
	}
}

// observed returns the agent as it was last observed, "" where nothing is known of it.
func (e *entry) observed() packed.Agent {
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
func (r *Roster) changed(e *entry, a packed.Agent) bool {
	there := e.there()
	if !there || !a.There() {
		return there != a.There()
	}
	prev := e.observed()
	return prev != a && (prev.Online() != a.Online() || r.rules.significant(prev, a))
}

// notBefore says when the request was sent whose answer last showed the agent as it was last
// observed. a is what a row of a listing shows now; "": the agent is gone.
func (r *Roster) notBefore(e *entry, a packed.Agent, listing int) time.Time {
	if !e.there() {
		// The last listing without it shows that as well as a row does, unless a row that could not
		// be used was this agent's.
		c := r.complete
		shown := e.spared >= c.Number || e.seen != nil && e.seen.sweep >= c.Number
		if c.Number > 0 && c.Unidentified == 0 && !shown && c.polled.has(r.typeOf(a, listing)) {
			return c.StartedAt
		}
	}
	switch {
	case e.seen != nil:
		return e.seen.sent
	case e.published.revision == 0:
		return time.Time{}
	case r.restart.Number > 0 && r.restart.polled.has(r.typeOf(e.published.agent, -1)):
		return r.restart.StartedAt
	default:
		return milli(e.published.time)
	}
}

// typeOf is the type of the listing that shows the agent, where it is known which does, else the
// agent's own; "" where it has none.
func (r *Roster) typeOf(a packed.Agent, listing int) string {
	if listing >= 0 && listing < len(r.rules.Types) {
		return r.rules.Types[listing]
	}
	t, _ := a.Type()
	return t
}

// polled reports whether the agent belongs to a listing that is read: otherwise its absence means
// nothing.
func (r *Roster) polled(e *entry) bool {
	if len(r.rules.Types) == 0 || e.seen != nil {
		return true
	}
	t := e.observed().TypeToken()
	return slices.Contains(r.rules.Types, t) || t == schemas.NoType && r.untyped
}

func sortObservations(obs []*Observation) {
	slices.SortFunc(obs, func(a, b *Observation) int { return cmp.Compare(a.AgentID, b.AgentID) })
}
