package engine

import (
	"slices"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// A queue holds, in order, the observations that are still to be published, and between them the
// ends of complete sweeps: an end may be published once everything before it has been.
//
// Beyond its limit it folds: the oldest observation of an agent that has a newer one goes into that
// one. So it never holds more than the limit or one observation an agent, whichever is larger.
type queue struct {
	items  []item           // nil observations have been folded or given up
	first  uint64           // the number of items[0]; numbers are never used twice
	live   int              // observations in items
	limit  int              // how many there should be at the most
	pinned uint64           // items below this number are being committed, and stay as they are
	fixed  int              // and so do so many ends
	latest map[int64]uint64 // agent: the number of its last item
	old    []uint64         // items that have a newer one of their agent, oldest first; may hold numbers that are gone
	ends   []end
	folded uint64 // how many observations have been folded, ever
}

type item struct {
	obs   *diff.Observation
	newer uint64 // the agent's next item; 0: none
}

// An end is the end of a complete sweep; it stands before item number at.
type end struct {
	at      uint64
	figures schemas.Watermark // only what a complete sweep moves: sweep, times, missing, rejected
}

func newQueue() *queue { return &queue{first: 1, latest: make(map[int64]uint64)} }

func (q *queue) next() uint64 { return q.first + uint64(len(q.items)) }

func (q *queue) push(limit int, obs ...*diff.Observation) {
	for _, o := range obs {
		n := q.next()
		if prev, ok := q.latest[o.AgentID]; ok {
			q.items[prev-q.first].newer = n
			q.old = append(q.old, prev)
		}
		q.latest[o.AgentID] = n
		q.items = append(q.items, item{obs: o})
		q.live++
	}
	q.limit = limit
	q.trim()
}

// trim keeps the queue within its limit, and what is left of folded observations from piling up.
func (q *queue) trim() {
	for q.live > q.limit && q.fold() {
	}
	if len(q.items) > 2*q.live+1024 {
		q.compact()
	}
}

// compact closes the gaps behind what is pinned.
func (q *queue) compact() {
	kept := int(max(q.pinned, q.first) - q.first)
	e := q.fixed
	for i := kept; i <= len(q.items); i++ {
		for e < len(q.ends) && q.ends[e].at <= q.first+uint64(i) {
			q.ends[e].at = q.first + uint64(kept)
			e++
		}
		if i < len(q.items) && q.items[i].obs != nil {
			q.items[kept] = q.items[i]
			kept++
		}
	}
	q.items = slices.Clone(q.items[:kept])
	q.relink()
}

// pushEnd marks that everything a complete sweep saw has been pushed. Of sweeps that saw nothing
// new only the latest is kept behind the one that did: what they say, it says too.
func (q *queue) pushEnd(figures schemas.Watermark) {
	if n := len(q.ends); n > q.fixed+1 && q.ends[n-2].at == q.next() {
		q.ends = q.ends[:n-1]
	}
	q.ends = append(q.ends, end{q.next(), figures})
}

// fold folds the oldest observation that can be, and reports whether there was one.
func (q *queue) fold() bool {
	for len(q.old) > 0 {
		n := q.old[0]
		q.old = q.old[1:]
		if n < q.first || n < q.pinned || q.items[n-q.first].obs == nil {
			continue
		}
		older := &q.items[n-q.first]
		diff.Fold(older.obs, q.items[older.newer-q.first].obs)
		// What the folded observation saw will be published with the newer one: a sweep that ended
		// in between can't say so before.
		kept := q.ends[:0]
		for _, e := range q.ends {
			if n >= e.at || older.newer < e.at {
				kept = append(kept, e)
			}
		}
		q.ends = kept
		older.obs = nil
		q.live--
		q.folded++
		return true
	}
	return false
}

// A batch is the front of the queue, on its way into the log. It goes no further than the end of a
// sweep, so that the states which the watermark of a complete sweep vouches for are those that this
// sweep read.
type batch struct {
	obs   []*diff.Observation
	until uint64             // the number of the first item that is not in it
	end   *schemas.Watermark // the figures of the complete sweep that it completes; nil: none
	rest  bool               // whether observations are left behind it
}

// peek returns up to most observations, of up to about size bytes, from the front, and pins them
// until done is called.
func (q *queue) peek(most, size int) batch {
	b := batch{until: q.first}
	stop := q.next()
	if len(q.ends) > 0 {
		stop = q.ends[0].at
	}
	for ; b.until < stop; b.until++ {
		o := q.items[b.until-q.first].obs
		if o == nil {
			continue
		}
		size -= o.Agent.Size()
		if len(b.obs) == most || size < 0 && len(b.obs) > 0 {
			break
		}
		b.obs = append(b.obs, o)
	}
	if len(q.ends) > 0 && b.until == q.ends[0].at {
		figures := q.ends[0].figures
		b.end = &figures
		q.fixed = 1
	}
	b.rest = b.until < q.next()
	q.pinned = b.until
	return b
}

// done ends what peek began: the batch is in the log and goes, or it isn't and stays.
func (q *queue) done(b batch, committed bool) {
	q.pinned, q.fixed = 0, 0
	if !committed {
		q.relink()
		q.trim()
		return
	}
	for i := range b.until - q.first {
		q.forget(&q.items[i], q.first+i)
	}
	q.items = q.items[b.until-q.first:]
	q.first = b.until
	for len(q.old) > 0 && q.old[0] < q.first {
		q.old = q.old[1:]
	}
	if b.end != nil {
		q.ends = q.ends[1:]
	}
}

// relink finds anew which items have a newer one of their agent.
func (q *queue) relink() {
	q.old = nil
	clear(q.latest)
	for i := range q.items {
		o := q.items[i].obs
		if o == nil {
			continue
		}
		n := q.first + uint64(i)
		if prev, ok := q.latest[o.AgentID]; ok {
			q.items[prev-q.first].newer = n
			q.old = append(q.old, prev)
		}
		q.latest[o.AgentID] = n
	}
}

// giveUp drops the observations of the agents in moved, and all ends: what they say refers to a log
// that is no more. Where the log says what one of them saw, since a part of its commit was stored,
// those behind it go on from there. It returns what it dropped.
func (q *queue) giveUp(moved map[int64]bool, state func(id int64) *packed.State) []*diff.Observation {
	stored := make(map[int64]int) // agent: the last of its items that the log has
	for i := range q.items {
		if o := q.items[i].obs; o != nil && moved[o.AgentID] {
			if s := state(o.AgentID); s != nil && s.Time.Equal(schemas.CeilTime(o.Time)) {
				stored[o.AgentID] = i
			}
		}
	}
	var out []*diff.Observation
	for i := range q.items {
		o := q.items[i].obs
		if o == nil || !moved[o.AgentID] {
			continue
		}
		if last, ok := stored[o.AgentID]; ok && i > last {
			continue
		}
		out = append(out, o)
		q.forget(&q.items[i], q.first+uint64(i))
	}
	q.ends = nil
	return out
}

func (q *queue) forget(it *item, number uint64) {
	if it.obs == nil {
		return
	}
	if q.latest[it.obs.AgentID] == number {
		delete(q.latest, it.obs.AgentID)
	}
	it.obs = nil
	q.live--
}

func (q *queue) empty() bool { return q.live == 0 && len(q.ends) == 0 }
