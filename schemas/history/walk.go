package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// A piece is a time in which an agent was as one event says, or in which that is unknown.
type piece struct {
	agent    int64
	from, to time.Time // zero: as far as one can look back, or as things are
	// When the request was sent that last showed the agent otherwise; zero: nobody knows.
	fromNotBefore, toNotBefore time.Time

	known   bool
	why     error // why it is not known
	there   bool
	online  bool
	since   time.Time // of online
	missing uint64    // how many of the agent's events are missing, that may be of this time
	signIn  bool      // it begins with a sign-in

	of     *record // the event that says so
	before bool    // by what was before it
	kind   who
}

// who is what a piece says of the agent besides: its type as a token, its area and its name.
type who struct{ kind, area, name string }

// A walk goes through the events of one agent, in the order of the stream, and makes pieces of its
// past that follow one another without a gap.
type walk struct {
	last *record
	kind who
}

// whoBy reads an agent, and marks what can't be read as no type.
func whoBy(a *schemas.Agent, err error) who {
	if err != nil {
		return who{kind: schemas.NoType}
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	return who{a.TypeToken(), text(a.AreaName), text(a.AgentName)}
}

func (r *record) who() who {
	var w struct{ Data struct{ Agent schemas.Agent } }
	err := json.Unmarshal(r.body, &w)
	return whoBy(&w.Data.Agent, err)
}

var errAgain = errors.New("the agent's revisions begin again: the stream was lost in between")

// next takes the agent's next event, and hands out the pieces before it.
func (w *walk) next(r *record, begin time.Time, out func(*piece)) {
	last := w.last
	switch {
	case last == nil:
		w.first(r, begin, out)
		w.kind = r.who()
	case r.revision == last.revision+1:
		out(w.piece(r))
		if r.truncated || r.renames() {
			w.kind = r.who()
		}
	case r.revision <= last.revision && !r.time.After(last.time):
		return // the same once more
	default:
		w.gap(r, out)
		w.kind = r.who()
	}
	w.last = r
}

// begun is a walk for which nothing matters that was before the event.
func begun(r *record) walk { return walk{last: r, kind: r.who()} }

// end hands out the last piece.
func (w *walk) end(out func(*piece)) {
	if w.last != nil {
		out(w.piece(nil))
	}
}

// piece is the time in which the last event is the truth, until the next one; nil: as things are.
func (w *walk) piece(next *record) *piece {
	l := w.last
	p := &piece{agent: l.id, from: l.time, fromNotBefore: l.notBefore, known: true,
		there: l.there(), online: l.online, since: l.since, of: l, kind: w.kind,
		signIn: l.kind == schemas.Online && l.reason != schemas.Baseline}
	if next != nil {
		p.to, p.toNotBefore = next.time, next.notBefore
	}
	return p
}

// first hands out what was before the first event that is left of the agent.
func (w *walk) first(r *record, begin time.Time, out func(*piece)) {
	if r.revision == 1 {
		p := &piece{agent: r.id, to: r.time, toNotBefore: r.notBefore, of: r, before: true,
			kind: r.who(), known: !r.notBefore.IsZero()}
		if !p.known {
			p.why = fmt.Errorf("%w: nobody had looked for the agent before", ErrUnobserved)
		}
		out(p)
		return
	}
	p := r.past()
	// Events of that time would still be there.
	if r.state && r.time.After(begin.Add(time.Minute)) {
		p.missing = 1
	}
	out(&piece{agent: r.id, to: p.from, why: ErrMissing, missing: 1, of: r, before: true,
		kind: p.kind})
	out(p)
}

// gap hands out what was between the last event and one that does not follow it.
func (w *walk) gap(r *record, out func(*piece)) {
	l, p := w.last, r.past()
	unknown := w.piece(nil)
	unknown.known, unknown.why = false, ErrMissing
	if r.revision > l.revision {
		p.missing = r.revision - l.revision - 1
	} else {
		p.missing, unknown.why = 1, fmt.Errorf("%w: %w", ErrMissing, errAgain)
	}
	unknown.missing = p.missing
	switch {
	case r.revision > l.revision && p.online == l.online && p.since.Equal(l.since):
		// Nothing but other fields can have changed.
		p.from, p.fromNotBefore, p.signIn = l.time, l.notBefore, unknown.signIn
		out(p)
		return
	case r.revision == 1 || !p.from.After(l.time): // what it says of the time before is of no use
		p.from = r.time
	case r.revision > l.revision && p.missing <= 2 && p.online != l.online:
		// One of them is the sign-in or sign-out that p begins with. Another would need a third.
		unknown.known, unknown.why = true, nil
	}
	unknown.to = p.from
	out(unknown)
	out(p)
}

// past is what the event says of the time before it. Its time begins where the agent's state is
// known to have begun.
func (r *record) past() *piece {
	b := r.before()
	return &piece{agent: r.id, from: b.since, to: r.time, toNotBefore: r.notBefore, known: true,
		there: b.there, online: b.online, since: b.since, of: r, before: true,
		kind: whoBy(r.revert())}
}

// renames reports whether the event changes what a who has.
func (r *record) renames() bool {
	for _, c := range r.changes {
		switch c.Field {
		case "type", "areaName", "agentName":
			return true
		}
	}
	return false
}
