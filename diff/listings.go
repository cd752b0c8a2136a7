package diff

import (
	"math"
	"slices"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// Where several types are polled, each is a listing, and two of them can show the same agent in
// different states. Then one listing counts, whichever is read first: the one whose type the row
// names, else the one that is polled first. A row of another listing is kept aside (entry.other).
// It counts at the end of a complete sweep in which the listing that counts did not show the agent.
//
// An agent that appears in another listing, in a row that names that listing's type, has moved
// there. That counts at once, unless that listing already showed it in the last sweep in which the
// one that counts did.

// rank orders the rows that listings show of an agent: the one with the lowest rank counts.
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

// stateRank is the rank that an agent has until a page shows it: by the type that its state names.
func (r *Roster) stateRank(s *State) int {
	if s == nil {
		return math.MaxInt
	}
	kind, _ := s.Agent.Type()
	if i := slices.Index(r.rules.Types, kind); i >= 0 {
		return i
	}
	return len(r.rules.Types)
}

// counts reports whether a row counts now. One of another listing that does not is kept aside.
func (r *Roster) counts(e *entry, row shown) bool {
	n := len(r.rules.Types)
	read := e.seen.sweep == row.sweep // by the listing that counts, in this sweep
	switch {
	case n < 2, e.seen.sweep > 0 && row.rank%n == e.rank%n:
		return !read || row.sent.After(e.seen.read)
	case row.rank <= e.rank:
		if read {
			e.other = &shown{e.observed, e.rank, e.seen}
		}
		return true
	case row.rank < n && !read && e.spared != row.sweep && e.otherSweep() < e.seen.sweep:
		return true // it has moved
	}
	// Of several rows the one with the lowest rank stays, then the newest.
	if o := e.other; o == nil || o.sweep != row.sweep ||
		row.rank < o.rank || row.rank == o.rank && row.sent.After(o.read) {
		aside := row
		e.other = &aside
	}
	return false
}

// otherSweep is the last sweep in which another listing showed the agent; 0: none.
func (e *entry) otherSweep() uint64 {
	if e.other == nil {
		return 0
	}
	return e.other.sweep
}

// countOther ends a complete sweep for an agent of which a row was kept aside. Where the listing
// that counts did not show the agent, that row counts now. Otherwise twice reports whether the two
// differ, the first time that they do.
func (r *Roster) countOther(e *entry, sweep uint64) (c change, changed, twice bool) {
	if e.otherSweep() != sweep || e.spared == sweep { // a rejected row leaves its agent as it was
		return c, false, false
	}
	if e.seen.sweep == sweep {
		twice = !e.told && r.rules.differ(e.observed, e.other.agent)
		e.told = e.told || twice
		return c, false, twice
	}
	c, changed = r.show(e, *e.other)
	e.other = nil
	return c, changed, false
}

// listing returns the polled listing that the agent is in, as an index. It returns the number of
// listings where the agent may be in any of them, and -1 where it is in none, so that its absence
// means nothing.
func (r *Roster) listing(e *entry) int {
	n := len(r.rules.Types)
	switch {
	case n == 0:
		return 0
	case e.seen.sweep > 0:
		return e.rank % n
	case e.rank < n:
		return e.rank
	case e.published == nil || e.published.Agent.TypeToken() != schemas.NoType || !r.untyped:
		return -1
	case n == 1:
		return 0
	}
	return n
}

// Listed returns how many agents of the published state each listing may have. Those that may be in
// any listing count in each.
func (r *Roster) Listed() []int {
	n := make([]int, max(1, len(r.rules.Types))+1)
	for _, e := range r.agents {
		if i := r.listing(e); i >= 0 && there(e.published) != "" {
			n[i]++
		}
	}
	last := len(n) - 1
	for i := range last {
		n[i] += n[last]
	}
	return n[:last]
}

// typeOf is the type of the listing that showed the row, else the agent's own.
func (r *Roster) typeOf(row shown) string {
	if n := len(r.rules.Types); n > 0 {
		return r.rules.Types[row.rank%n]
	}
	t, _ := row.agent.Type()
	return t
}
