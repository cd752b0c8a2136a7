package diff

import (
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// Loaded is what [Roster.Load] found.
type Loaded struct {
	Lost    int // agents of which the stream has lost events that this process published or read
	Dropped int // queued changes that are dropped, since the stream has others of the same agents

	moved map[int64]bool // agents of which the stream does not say what it did; at first, all
}

// Load takes over what the stream says: the state of every agent, the last watermark (nil: there is
// none that can be trusted), and the last sweep that it knows of. It must not be called while a
// commit is under way.
//
// For agents of which the stream says something new, all that lives in memory only starts anew:
// their removal may be late, but is never wrong. Revisions are remembered: where the stream has
// lost events, an agent's next one goes on above them.
func (r *Roster) Load(states map[int64]*State, w *schemas.Watermark, lastSweep uint64) Loaded {
	l := Loaded{moved: make(map[int64]bool)}
	load := func(id int64, s *State) {
		e := r.entry(id)
		was, is := e.published, s
		if was == nil {
			was = new(State)
		}
		if is == nil {
			is = new(State)
		}
		if is.Revision < was.Revision {
			l.Lost++
		}
		if was.Revision == 0 || was.Revision != is.Revision || !was.Time.Equal(is.Time) {
			l.moved[id] = true
		}
		r.publish(e, s)
	}
	for id, e := range r.agents {
		if _, ok := states[id]; !ok && e.published != nil {
			load(id, nil)
		}
	}
	for id, s := range states {
		load(id, s)
	}
	for _, e := range r.agents {
		// A stream that has lost events may have lost a commit that was never acknowledged too.
		if l.Lost > 0 {
			r.use(e, e.sent)
		}
		e.sent = 0
	}
	l.Dropped = r.drop(l.moved)
	for id := range l.moved {
		e := r.entry(id)
		if e.queued == 0 {
			e.observed = there(e.published)
		}
		e.rank = r.stateRank(e.published)
		e.seen, e.other, e.spared, e.missing, e.heldSince = sighting{}, nil, 0, 0, time.Time{}
		delete(r.tooLarge, id)
	}
	r.loadWatermark(w)
	r.lastPublishedSweep = lastSweep
	return l
}

func (r *Roster) loadWatermark(w *schemas.Watermark) {
	r.watermark = figures(w, r.rules.Types)
	r.restart, r.untyped = completeSweep{}, false
	if w == nil {
		return
	}
	// An agent without a type was in one of the listings that were polled then, and maybe in one
	// that no longer is.
	types := r.rules.Types
	r.untyped = len(w.Polled) > 0 && (len(types) == 0 ||
		!slices.ContainsFunc(w.Polled, func(t string) bool { return !slices.Contains(types, t) }))
	if w.Sweep == 0 {
		return
	}
	r.hadCompleteSweep = true
	last := completeSweep{w.Sweep, w.StartedAt, w.Polled}
	if w.Missing == 0 && w.Rejected == 0 {
		r.restart = last
	}
	if w.Sweep > r.complete.number {
		r.complete = last
		if w.Rejected > 0 { // the stream does not say whose rows these were
			r.complete.startedAt = time.Time{}
		}
	}
}

// figures returns those of the last complete sweep in the stream, from the last watermark there
// (nil: there is none that can be trusted).
func figures(last *schemas.Watermark, types []string) (w schemas.Watermark) {
	if last != nil {
		w = *last
		w.InProgress = nil
	}
	if w.Sweep == 0 {
		w.Polled = types
	}
	return w
}

// A First is the watermark with which a process takes over the stream, and whether a nextBy has
// passed since the last complete sweep; see [Commit.Lapsed].
type First struct {
	Watermark schemas.Watermark
	Lapsed    bool
}

// TakeOver returns what a process takes a stream over with that has these states and this last
// watermark (nil: there is none that can be trusted); before is whether a nextBy had passed when
// the latter came. The first watermark repeats the figures of the last complete sweep there, counts
// the published states, and names the sweep that is to begin. It is formed now, and by nextBy
// another one comes.
func TakeOver(states map[int64]*State, last *schemas.Watermark, before bool, types []string,
	sweep uint64, now, nextBy time.Time) First {
	p := make(Population)
	for _, s := range states {
		p.count(s, 1)
	}
	w := figures(last, types)
	f := First{Lapsed: lapsed(&w, before, now)}
	p.show(&w)
	w.InProgress, w.NextBy = inProgress(sweep, w.Sweep), nextBy
	f.Watermark = w
	return f
}

// Stepped says that the clock has moved by d against the time that has passed. What is waited for
// goes on as if it had not. The times of what was read move back with a clock that was set back, so
// that none of them is yet to come. When the clock jumps ahead they stay: the machine may have
// slept, and then nobody looked meanwhile.
func (r *Roster) Stepped(d time.Duration) {
	for _, e := range r.agents {
		move(d, &e.heldSince)
		if d < 0 {
			move(d, &e.seen.sent, &e.seen.read)
		}
	}
	if d < 0 {
		w := &r.watermark
		move(d, &w.StartedAt, &w.CompletedAt, &w.StaleAfter, &w.GlancedAt, &w.NextBy)
		move(d, &r.complete.startedAt, &r.restart.startedAt)
	}
}

// move moves times that are not zero.
func move(d time.Duration, times ...*time.Time) {
	for _, t := range times {
		if !t.IsZero() {
			*t = t.Add(d)
		}
	}
}
