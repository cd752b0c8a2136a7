package diff

import (
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// A toldPage is what a test has a roster observe.
type toldPage struct {
	Sweep      uint64
	Listing    int
	Sent, Read time.Time
	Agents     []packed.Agent
	Rejected   []int64 // whose the rejected rows are
	Baseline   bool    // the tenant has had no complete sweep: the roster has to know
}

func (p *toldPage) page() *listing.Page {
	page := &listing.Page{Listing: p.Listing, Sent: p.Sent, Read: p.Read, Agents: p.Agents}
	for _, id := range p.Rejected {
		page.Rejected = append(page.Rejected, listing.Rejected{AgentID: id, Known: true})
	}
	return page
}

// observe has a roster observe a page, and returns the changes that this queued.
func observe(r *Roster, p toldPage) []change {
	n := len(r.queue)
	r.Observe(p.Sweep, p.page())
	return queued(r, n)
}

func alive(r *Roster, p toldPage) { r.Alive(p.Sweep, p.page()) }

// A toldSweep is a complete sweep that a test tells a roster of.
type toldSweep struct {
	Number                 uint64
	StartedAt, EndedAt     time.Time
	Rejected, Unidentified int
}

// A toldAbsence is what the end of a sweep brought.
type toldAbsence struct {
	Absence
	Removed []change // agents that are gone
}

func complete(r *Roster, s toldSweep) toldAbsence {
	n := len(r.queue)
	a := toldAbsence{
		Absence: r.Complete(s.Number,
			&listing.Verdict{Complete: true, StartedAt: s.StartedAt, EndedAt: s.EndedAt,
				Rejected: s.Rejected, Unidentified: s.Unidentified}, time.Time{})}
	for _, c := range queued(r, n) {
		if c.agent == "" {
			a.Removed = append(a.Removed, c)
		}
	}
	return a
}

// queued are the changes in the queue from the n-th item on.
func queued(r *Roster, n int) (out []change) {
	for _, it := range r.queue[n:] {
		if it.end == nil {
			out = append(out, it.change)
		}
	}
	return out
}

func all(*schemas.Event) bool { return true }

// commit commits everything that is queued, and returns it as if it were one commit.
func commit(r *Roster, fits func(*schemas.Event) bool) Commit {
	return commitSome(r, len(r.queue), fits)
}

// commitSome commits n changes.
func commitSome(r *Roster, n int, fits func(*schemas.Event) bool) (out Commit) {
	for {
		c := r.Next(0, n-out.Changes, fits)
		r.Committed(c)
		out.Events = append(out.Events, c.Events...)
		out.TooLarge, out.LeftOut = append(out.TooLarge, c.TooLarge...), out.LeftOut+c.LeftOut
		out.Watermark, out.Changes = c.Watermark, out.Changes+c.Changes
		if c.Changes == 0 && !c.complete {
			return out
		}
	}
}

// published is what was last published of an agent, nil where nothing was.
func published(r *Roster, id int64) *State {
	if e := r.agents[id]; e != nil {
		return e.published
	}
	return nil
}

// load has a roster read the stream, and returns the agents that moved.
func load(r *Roster, states map[int64]*State, w *schemas.Watermark) (moved map[int64]bool) {
	return r.Load(states, w, 0).moved
}

// agents is how many are there in the published state, and how many of them are online.
func agents(r *Roster) (there, online int) {
	all := r.Population().Total()
	return all.Agents, all.Online
}
