package diff

import (
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
)

// A toldPage is what a test has a roster observe.
type toldPage struct {
	Sweep      uint64
	Listing    int
	Sent, Read time.Time
	Agents     []packed.Agent
	Rejected   []int64 // whose the rejected rows are
	Baseline   bool
}

func (p *toldPage) page() *listing.Page {
	page := &listing.Page{Listing: p.Listing, Sent: p.Sent, Read: p.Read, Agents: p.Agents}
	for _, id := range p.Rejected {
		page.Rejected = append(page.Rejected, listing.Rejected{AgentID: id, Known: true})
	}
	return page
}

// A teller is a Roster, or what embeds one.
type teller interface {
	Observe(sweep uint64, p *listing.Page, baseline bool) []*Observation
	Alive(sweep uint64, p *listing.Page)
	Complete(sweep uint64, v *listing.Verdict) Absence
}

func observe(r teller, p toldPage) []*Observation { return r.Observe(p.Sweep, p.page(), p.Baseline) }

func alive(r teller, p toldPage) { r.Alive(p.Sweep, p.page()) }

// A toldSweep is a complete sweep that a test tells a roster of.
type toldSweep struct {
	Number                 uint64
	StartedAt, EndedAt     time.Time
	Rejected, Unidentified int
}

func complete(r teller, s toldSweep) Absence {
	return r.Complete(s.Number, &listing.Verdict{Complete: true, StartedAt: s.StartedAt, EndedAt: s.EndedAt,
		Rejected: s.Rejected, Unidentified: s.Unidentified})
}
