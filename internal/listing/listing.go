// Package listing is what the parts of rollcall tell one another about a listing of agents: the
// pages that were read, what the whole sweep was worth, and what went wrong. The vendor's package
// and the poller make these values; the rules of change and the engine use them as they are.
package listing

import (
	"time"

	"github.com/rollcall-events/rollcall/internal/packed"
)

// A Request is for one page.
type Request struct {
	Listing int  // which of the polled types, as an index; 0 where there is one listing of all
	Page    int  // from 0
	Online  bool // of those alone who are online
	Again   bool // this follows at once on a request for the same page that failed
}

// NoTotal is the Total of a page whose answer names none.
const NoTotal = -1

// A Page is one answer of the vendor. What its slices hold may be shared with other pages, and must
// not be changed.
type Page struct {
	Listing, Number int // as it was asked for

	// Sent is when the request was about to be sent, Read when its answer had been read completely.
	// Of two pages that show the same agent, one is known to be newer only if it was Sent after the
	// other had been Read.
	Sent, Read time.Time

	Agents   []packed.Agent // the usable rows, in the listing's order
	Rejected []Rejected     // the other rows

	Total     int  // agents in the whole listing, as this answer has it; or NoTotal
	Misplaced bool // the answer says that it is another page than the one that was asked for

	// GlancedAt is when the last complete glance began whose missing agents have been looked up,
	// this page included; zero: not since the page before.
	GlancedAt time.Time

	Dropped  int // values of documented fields of usable rows that were left out
	Repaired int // names and values of usable rows in which something that can't stay was marked
}

// Rows is how many rows the page has, usable or not.
func (p *Page) Rows() int { return len(p.Agents) + len(p.Rejected) }

// Unidentified is how many of its rejected rows can't be told whose they are.
func (p *Page) Unidentified() (n int) {
	for _, r := range p.Rejected {
		if !r.Known {
			n++
		}
	}
	return n
}

// Rejected is a row that can't be used.
type Rejected struct {
	Index   int    // its place on the page, from 0
	AgentID int64  // whose row it is, where Known
	Known   bool   // the AgentID could be read
	Reason  string // one of the Reject constants of internal/packed
	Detail  string // what was seen, where the reason does not say it; nothing of the row's values
}

// A Verdict says what a sweep came to. Its counts are those of the pages that it rests on: of each
// page of the listing's present length, what it showed last.
type Verdict struct {
	Complete  bool
	Err       error     // why not Complete, the most telling reason; always an *Error
	StartedAt time.Time // just before the first page was asked for
	EndedAt   time.Time // when everything was decided

	Pages        int // pages that arrived
	Agents       int // distinct agents, over all listings
	Rejected     int // rejected rows
	Unidentified int // rejected rows that can't be told whose they are

	Rejections map[string]int // rejected rows by their reasons; nil: there are none

	Dropped  int // as Page.Dropped
	Repaired int // as Page.Repaired
}
