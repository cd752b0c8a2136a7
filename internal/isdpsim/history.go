package isdpsim

import (
	"encoding/json"
	"slices"
	"time"
)

// Kind says what kind of a change one was. It is a label for readers: Before and After say what
// there was to see.
type Kind string

const (
	Started   Kind = "started"   // there from the beginning
	Added     Kind = "added"     // new in the listing
	SignedIn  Kind = "signedIn"  // onlineStatus 1
	SignedOut Kind = "signedOut" // onlineStatus 0
	Edited    Kind = "edited"    // some fields
	Replaced  Kind = "replaced"  // the whole row
	Removed   Kind = "removed"   // gone from the listing
	Restored  Kind = "restored"  // back in the listing
	Deleted   Kind = "deleted"   // deleteFlag 1
	Undeleted Kind = "undeleted" // deleteFlag 0
)

// Change is one change of the listing, at one instant. Applied in order to an empty set, each
// putting After in the place of Before, the changes of a History give the listing.
type Change struct {
	Seq    int       // its index in the History
	Time   time.Time // by the tenant's clock
	ID     int64
	Kind   Kind
	Before json.RawMessage // the row as it was listed; nil: it was not
	After  json.RawMessage // the row as it is listed; nil: it is not
}

// History returns every change in order, the first agents included. Changes of an agent that is not
// listed are in it when the agent returns, since no page could show them before. The rows are
// shared and must not be altered.
func (t *Tenant) History() []Change { return t.HistorySince(0) }

// HistorySince is History from the change with the given Seq on.
func (t *Tenant) HistorySince(seq int) []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.history[min(seq, len(t.history)):])
}

// PageAnswer is what one answer of the agents endpoint showed.
type PageAnswer struct {
	Request  int       // the number of the request
	Time     time.Time // of the look-up, by the tenant's clock
	Seq      int       // how many changes of the History had been made by then
	Page     int       // the page asked for, not the one that a fault may have served
	PageSize int
	Type     int // the filter; -1: none
	Online   int // the filter; -1: none
	Pos      int // what the answer said
	Total    int // what the answer said

	// Rows is what the answer said; a row made up by a fault has the id that the fault gave it.
	// Shared between answers: not to be altered.
	Rows []Row

	// Broken says that these rows did not reach the client as one well-formed answer: a fault
	// changed the status or the body, or the client had gone.
	Broken bool
}

// lookup is what a page answer depends on besides the listing.
type lookup struct{ page, size, typ, online int }

// Pages returns what every answer of the agents endpoint showed, in the order of the look-ups,
// where Config.RecordPages is set. Requests that were answered without a look-up are not in it.
func (t *Tenant) Pages() []PageAnswer {
	t.mu.Lock()
	defer t.mu.Unlock()
	pages := make([]PageAnswer, len(t.pages))
	for i, p := range t.pages {
		pages[i] = *p
	}
	return pages
}

// share lets an answer use the rows of the last answer to the same look-up where they are the same,
// so that pages without news cost next to nothing. mu is held.
func (t *Tenant) share(key lookup, p *PageAnswer) {
	same := func(a, b Row) bool {
		return a.ID == b.ID && len(a.JSON) == len(b.JSON) && (len(a.JSON) == 0 || &a.JSON[0] == &b.JSON[0])
	}
	if last, ok := t.shown[key]; ok && slices.EqualFunc(last.Rows, p.Rows, same) {
		p.Rows = last.Rows
	}
	t.shown[key] = p
}
