// Package diff holds the rules of change: what makes an event of an agent, of which type, for which
// reason, and when an agent that is missing from the listing counts as removed.
//
// A [Roster] observes the pages of a listing (roster.go, and listings.go where several types are
// polled), judges absence at the end of a complete sweep (absence.go), and keeps what has changed
// until it is published (queue.go, commit.go). It reads the published state from the stream when a
// process starts, and whenever the stream turns out to say something else (load.go).
//
// A change is detected against what was last observed, and becomes an event against what was last
// published. So the events of an agent follow from one another whatever was read in between, and a
// process that starts, which only knows what was published, gives the same answers.
//
// Everything here is a function of its arguments and of the roster: no clock, no I/O, no logging.
// The order of the rows of a page does not matter, and changes are sorted by agent. A Roster is not
// safe for concurrent use.
package diff

import (
	"time"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// Rules are the settings of change.
type Rules struct {
	// Quiet are the fields whose change alone makes no event.
	Quiet schemas.Quiet

	// RemoveAfter is how many complete sweeps in a row must miss an agent before it is removed; at
	// least 1.
	RemoveAfter int

	// MaxMissing is the share of a listing that may be missing together. Beyond it no agent of the
	// listing is removed until it has been missing for MissingHold. 1: removals are never held
	// back.
	MaxMissing  float64
	MissingHold time.Duration

	// Types are the business types that are polled, each a listing of its own; empty: one listing
	// of all. Agents of other types are never missing.
	Types []string

	// BufferEvents is how many changes are kept while they can't be published. Beyond it the oldest
	// changes of an agent are folded into its next one; the last one of each is always kept. 0: no
	// limit.
	BufferEvents int
}

// State is what the stream says of one agent: its last event.
type State = packed.State

// A change is one change of one agent as it was observed. Which event it makes, if any, depends on
// what will have been published before it.
type change struct {
	id    int64
	agent packed.Agent // as it was read; "": gone from the listing
	sweep uint64       // the sweep that saw it
	time  time.Time    // when the page had been read; of one that is gone, when the sweep ended
	past
}

// A past is what was known of an agent before a change.
type past struct {
	// notBefore is when the request was sent whose answer last showed the agent without the change;
	// zero: nobody looked.
	notBefore time.Time

	// baseline says that the tenant had had no complete sweep.
	baseline bool

	// unseen says that no page had shown the agent since the stream was read, so that notBefore is
	// what the stream says.
	unseen bool
}

// there returns the agent as its state has it, "" where it is not there.
func there(s *State) packed.Agent {
	if s == nil || s.Removed {
		return ""
	}
	return s.Agent
}

func isThere(a packed.Agent) bool { return a != "" && a.There() }

// differ reports whether it makes an event when an agent that was a becomes b.
func (r *Rules) differ(a, b packed.Agent) bool {
	if a == b {
		return false
	}
	was, is := isThere(a), isThere(b)
	if !was || !is {
		return was != is
	}
	return a.Online() != b.Online() || r.significant(a, b)
}

// significant reports whether a and b differ in any field that is not quiet.
func (r *Rules) significant(a, b packed.Agent) bool {
	for name := range a.Differing(b) {
		if !r.Quiet.Has(name) {
			return true
		}
	}
	return false
}

// event returns the event that a change makes, given what was last published of the agent (nil:
// nothing). It reports false where there is none: no difference, a quiet one only, or an agent that
// was not there and still is not.
func (r *Rules) event(prev *State, c *change) (schemas.Event, bool) {
	first := prev == nil
	if first {
		prev = &State{Removed: true}
	}
	listed, there := c.agent != "", isThere(c.agent)
	e := schemas.Event{
		Type: schemas.Updated,
		Time: schemas.CeilTime(c.time),
		Data: schemas.EventData{
			Revision: prev.Revision + 1, Sweep: c.sweep, Online: there && c.agent.Online(),
			NotBefore: schemas.FloorTime(c.notBefore), Since: prev.Since,
		},
	}
	if e.Time.Before(prev.Time) { // the clock went back, or is another machine's
		e.Time = prev.Time
	}
	d := &e.Data
	if d.NotBefore.After(e.Time) { // for the same reason
		d.NotBefore = e.Time
	}
	switch flip := d.Online != prev.Online; {
	case prev.Removed && !there:
		return schemas.Event{}, false
	case first && c.baseline:
		d.Reason = schemas.Baseline
	case prev.Removed:
		d.Reason = schemas.Appeared
	case !there:
		d.Reason = schemas.Removed
	case flip:
		d.Reason = schemas.Status
	case r.significant(prev.Agent, c.agent):
		d.Reason = schemas.Fields
		if c.unseen {
			// The last sweep may have shown other quiet fields than the stream does.
			d.NotBefore = prev.Time
		}
	default:
		return schemas.Event{}, false
	}
	switch {
	case d.Online && !prev.Online:
		e.Type = schemas.Online
	case !d.Online && prev.Online:
		e.Type = schemas.Offline
	}
	if first || e.Type != schemas.Updated {
		d.Since, d.PreviousSince = e.Time, prev.Since
	}
	switch {
	case !listed:
		d.Agent = prev.Agent.Unpack()
	case first:
		d.Agent = c.agent.Unpack()
	default:
		d.Agent, d.Changes = c.agent.Unpack(), prev.Agent.Changes(c.agent)
	}
	return e, true
}
