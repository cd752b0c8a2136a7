// Package diff holds the rules of change: what makes an event of an agent, of which type, for which
// reason, and when an agent that is missing from the listing counts as removed.
//
// A change is detected against what was last observed ([Roster.Observe], [Roster.Complete]) and
// computed against what was last published ([Rules.Event], through [Roster.Form]), so that the
// events of an agent chain without a gap whatever was read in between, and a restart, which only
// knows what was published, gives the same answers.
//
// Everything here is a function of its arguments and of the roster: no clock, no I/O, no logging.
// The order of the rows of a page never matters, and output is sorted by agent. A Roster is not
// safe for concurrent use.
package diff

import (
	"time"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// Rules are the settings of change. The guard (MaxMissing) judges the whole and each polled type by
// itself, and lets three agents go in any case, as long as others stay.
type Rules struct {
	Quiet       schemas.Quiet // fields whose change alone makes no event
	RemoveAfter int           // complete sweeps in a row that must miss an agent before it counts as removed; at least 1
	MaxMissing  float64       // the share of a listing that may be missing together before removal is held back; 1: no guard
	MissingHold time.Duration // how long they must then stay missing
	Types       []string      // the business types that are polled; empty: all. Agents of other types are never missing
}

// State is what the log says of one agent: its last event.
type State = packed.State

func counts(is bool) int {
	if is {
		return 1
	}
	return 0
}

// Observation is one change of one agent as it was observed: not yet an event, since what it
// amounts to depends on what will have been published before it.
type Observation struct {
	AgentID   int64
	Agent     packed.Agent // as it was read; "": gone from the listing
	Sweep     uint64       // the sweep that saw it
	NotBefore time.Time    // when the request was sent whose answer last showed the agent without the change; zero: nobody looked
	Time      time.Time    // when the page had been read; of an agent that is gone, when the sweep ended
	Baseline  bool         // seen before the tenant's first complete sweep had ended
	Unseen    bool         // no page had shown the agent since the stream was read: NotBefore goes by what that says

	refused bool // no message could hold its event
}

// Fold merges two observations of the same agent, one directly after the other, into their net
// effect.
func Fold(older, newer *Observation) {
	newer.NotBefore = older.NotBefore
	newer.Baseline = older.Baseline
	newer.Unseen = older.Unseen
}

// Event computes the event that an observation makes, given what was last published of the agent
// (nil: nothing). It reports false where there is nothing to say: no difference, a quiet one only,
// or an agent that was not there and still is not.
func (r *Rules) Event(prev *State, o *Observation) (schemas.Event, bool) {
	listed := o.Agent != ""
	there := listed && o.Agent.There()
	online := there && o.Agent.Online()
	e := schemas.Event{
		Type: schemas.Updated,
		Time: schemas.CeilTime(o.Time),
		Data: schemas.EventData{Revision: 1, Sweep: o.Sweep, Online: online, NotBefore: schemas.FloorTime(o.NotBefore)},
	}
	if prev != nil && e.Time.Before(prev.Time) { // the clock went back, or is another machine's
		e.Time = prev.Time
	}
	d := &e.Data
	if d.NotBefore.After(e.Time) { // for the same reason
		d.NotBefore = e.Time
	}
	if prev == nil {
		if !there {
			return schemas.Event{}, false
		}
		d.Agent, d.Since, d.Reason = o.Agent.Unpack(), e.Time, schemas.Appeared
		if o.Baseline {
			d.Reason = schemas.Baseline
		}
		if online {
			e.Type = schemas.Online
		}
		return e, true
	}

	d.Revision = prev.Revision + 1
	d.Since = prev.Since
	switch {
	case prev.Removed && !there:
		return schemas.Event{}, false
	case prev.Removed:
		d.Reason = schemas.Appeared
	case !there:
		d.Reason = schemas.Removed
	case online != prev.Online:
		d.Reason = schemas.Status
	case r.significant(prev.Agent, o.Agent):
		d.Reason = schemas.Fields
		if o.Unseen { // the last sweep before may have shown other quiet fields than the stream does
			d.NotBefore = prev.Time
		}
	default:
		return schemas.Event{}, false
	}
	if online != prev.Online {
		e.Type = schemas.Offline
		if online {
			e.Type = schemas.Online
		}
		d.Since, d.PreviousSince = e.Time, prev.Since
	}
	if listed {
		d.Agent, d.Changes = o.Agent.Unpack(), prev.Agent.Changes(o.Agent)
	} else {
		d.Agent = prev.Agent.Unpack()
	}
	return e, true
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
