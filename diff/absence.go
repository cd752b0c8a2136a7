package diff

import (
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/schemas"
)

// Why a removal is published, or is not. An agent that a complete sweep does not list is missing.
// When Rules.RemoveAfter complete sweeps in a row have missed it, it is removed, unless
//   - a row of the sweep can't be told whose it is: it may be this agent's. Then no agent is
//     missing (Absence.Suspended), and the counts start anew;
//   - a row of the agent can't be used: that counts as listed (Roster.spare);
//   - too large a share went missing together: the guard holds these agents (Absence.Held) until
//     they have been missing for Rules.MissingHold;
//   - the agent is in no listing that is polled (Roster.listing);
//   - another polled listing shows it (listings.go);
//   - the process was started, or somebody else has written about the agent: then its count starts
//     anew (Roster.Load).
//
// Before that, the sweep has to be complete, and the listing must not be cut off
// (poller/verdict.go), and the stream must not have been reloaded while it ran
// (internal/engine/sweep.go). After that, the removal waits in the queue for its commit, and is
// left out where no message can hold it (commit.go).
//
// A row that says that the agent is deleted removes it at once: that is a change like any other.

// Absence is what a complete sweep says about the agents that it did not list.
type Absence struct {
	Missing   int  // agents that are missing but not yet removed
	Held      int  // those of them that the guard holds
	Suspended bool // there were rows that can't be told whose they are: no agent counts as missing
	First     bool // it is the tenant's first complete sweep

	// InTwoListings are agents that two polled listings show in different states, by id. Each is
	// named once.
	InTwoListings []int64
}

// Complete judges absence at the end of a complete sweep whose pages have all been observed, and
// queues the removals and the end of the sweep. staleAfter is when the next one is overdue.
func (r *Roster) Complete(sweep uint64, v *listing.Verdict, staleAfter time.Time) Absence {
	a := Absence{Suspended: v.Unidentified > 0, First: !r.hadCompleteSweep}
	var changes []change
	var missing []*entry
	g := guard{share: r.rules.MaxMissing, each: make([]tally, max(1, len(r.rules.Types))+1)}
	for _, e := range r.agents {
		c, changed, twice := r.countOther(e, sweep)
		if changed {
			changes = append(changes, c)
		}
		if twice {
			a.InTwoListings = append(a.InTwoListings, e.id)
		}
		if i := r.listing(e); i >= 0 && isThere(e.observed) {
			absent := e.lastListed() != sweep
			g.add(i, absent)
			if absent {
				missing = append(missing, e)
			}
		}
	}
	for _, e := range missing {
		if a.Suspended {
			// This sweep does not count: the agent's count starts anew, and what the guard holds,
			// it goes on holding.
			e.missing = 0
			if !e.heldSince.IsZero() {
				e.heldSince = v.EndedAt
			}
			continue
		}
		e.missing++
		if e.heldSince.IsZero() && g.holds(r.listing(e)) {
			e.heldSince = v.EndedAt
		}
		held := !e.heldSince.IsZero() && v.EndedAt.Sub(e.heldSince) < r.rules.MissingHold
		switch {
		case held:
			a.Held++
			a.Missing++
		case e.missing < r.rules.RemoveAfter:
			a.Missing++
		default:
			seen := past{notBefore: r.notBefore(e, shown{})}
			changes = append(changes, change{id: e.id, sweep: sweep, time: v.EndedAt, past: seen})
			e.observed, e.missing, e.heldSince = "", 0, time.Time{}
		}
	}
	slices.Sort(a.InTwoListings)
	r.push(changes)
	r.pushEnd(schemas.Watermark{
		Sweep: sweep, Polled: r.rules.Types, StaleAfter: staleAfter,
		StartedAt: schemas.FloorTime(v.StartedAt), CompletedAt: schemas.CeilTime(v.EndedAt),
		Missing: a.Missing, Rejected: v.Rejected - r.rejectedTwice(sweep),
	})
	r.hadCompleteSweep = true
	if !a.Suspended {
		r.complete = completeSweep{number: sweep, startedAt: v.StartedAt}
		if len(r.agents) > r.known {
			r.forget(sweep)
		}
	}
	return a
}

// rejectedTwice is how many agents with a change that is too large to publish had a rejected row in
// the sweep too, since rows have to be shorter now than they were then. They are one rejected
// record each.
func (r *Roster) rejectedTwice(sweep uint64) (n int) {
	for id := range r.tooLarge {
		if r.entry(id).spared == sweep {
			n++
		}
	}
	return n
}

// A guard decides whether too large a share is missing together: of the whole, or of one of the
// polled listings.
type guard struct {
	share float64 // that may be missing, of the whole and of each listing
	whole tally
	each  []tally // by listing; the last one: agents that may be in any of them
}

func (g *guard) add(listing int, missing bool) {
	for _, t := range []*tally{&g.whole, &g.each[listing]} {
		t.known++
		if missing {
			t.missing++
		}
	}
}

// holds reports whether the missing agents of a listing are to be kept.
func (g *guard) holds(listing int) bool {
	t := g.each[listing]
	if listing == len(g.each)-1 && t.missing <= few {
		return g.whole.tooMany(g.share) // so few are always all of "any listing"
	}
	return g.whole.tooMany(g.share) || t.tooMany(g.share)
}

// A tally counts the agents of a listing that could be missing, and those of them that are.
type tally struct{ known, missing int }

// few is how many agents may always go missing from a listing, as long as others stay.
const few = 3

// tooMany reports whether a larger share of the listing is missing than may be.
func (t tally) tooMany(share float64) bool {
	// A quotient is exact where a product is not: 29 of 100 are 0.29, but 0.29*100 is less than 29.
	return t.missing > 0 && float64(t.missing)/float64(t.known) > share &&
		(t.missing > few || t.missing == t.known)
}
