package diff

import (
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// commitBytes bounds a commit by the size of its agents, so that a batch of large ones does not
// fill anybody's buffers.
const commitBytes = 8 << 20

// An item of the queue is a change, the end of a complete sweep, or that of a glance. A commit goes
// no further than the end of a sweep, since its watermark vouches for exactly what that sweep read.
type item struct {
	change
	end     *schemas.Watermark // the figures of the sweep that ends; nil: it is none
	glanced time.Time          // when the glance began that ends; zero: it is none
}

func (it *item) isChange() bool { return it.end == nil && it.glanced.IsZero() }

// push queues changes, sorted by agent.
func (r *Roster) push(changes []change) {
	sortChanges(changes)
	for _, c := range changes {
		r.queue = append(r.queue, item{change: c})
		r.entry(c.id).queued++
	}
	r.pending += len(changes)
	r.fold()
}

// pushEnd queues the end of a complete sweep. It takes the place of an end directly before it:
// where nothing changed between two sweeps, the later one says all.
func (r *Roster) pushEnd(w schemas.Watermark) {
	if n := len(r.queue); n > 0 && r.queue[n-1].end != nil {
		r.queue = r.queue[:n-1]
	}
	r.queue = append(r.queue, item{end: &w})
}

// Glanced is told in a sweep that a glance is complete which began then, and that everything it
// pointed to has been observed. The watermarks of what is published from here on say so.
func (r *Roster) Glanced(sweep uint64, began time.Time) {
	r.queue = append(r.queue, item{change: change{sweep: sweep}, glanced: schemas.FloorTime(began)})
}

// Pending returns how many changes are not known to be published.
func (r *Roster) Pending() int { return r.pending }

// Idle reports whether there is nothing to publish, but for a commit under way.
func (r *Roster) Idle() bool { return len(r.queue) == 0 }

// Ending reports whether the end of a sweep waits to be published, but for one in a commit under
// way.
func (r *Roster) Ending() bool {
	return slices.ContainsFunc(r.queue, func(it item) bool { return it.end != nil })
}

// Folded returns how many changes were folded into later ones because the queue was full, ever.
func (r *Roster) Folded() uint64 { return r.folded }

// fold keeps the queue within its limit: the oldest changes that have a later one of their agent
// are folded into that. A commit under way stays as it is. Folding goes through the whole queue, so
// it waits until a hundredth of the limit is too much.
func (r *Roster) fold() {
	limit := max(r.rules.BufferEvents, len(r.agents))
	if over := r.pending - limit; r.rules.BufferEvents > 0 && over > limit/100 {
		r.foldOldest(over)
	}
}

func (r *Roster) foldOldest(n int) {
	kept := r.queue[:0]
	folding := make(map[int64]past) // the past of what goes into the agent's next change
	for _, it := range r.queue {
		if !it.isChange() {
			// What is folded is published with a later change, so an end in between can't be
			// published before.
			if len(folding) == 0 {
				kept = append(kept, it)
			}
			continue
		}
		if older, ok := folding[it.id]; ok {
			it.past = older
			delete(folding, it.id)
		}
		// All earlier ones of the agent are folded by now, so of two that are left this is the
		// first.
		if e := r.entry(it.id); n > 0 && e.queued > 1 {
			folding[it.id] = it.past
			e.queued--
			r.pending--
			r.folded++
			n--
			continue
		}
		kept = append(kept, it)
	}
	clear(r.queue[len(kept):])
	r.queue = kept
}

// take takes the items of the next commit from the front of the queue.
func (r *Roster) take(most int) []item {
	n, size := 0, 0
	for n < len(r.queue) {
		it := &r.queue[n]
		if it.end != nil {
			n++
			break
		}
		if !it.isChange() {
			n++
			continue
		}
		size += it.agent.Size()
		if n == most || n > 0 && size > commitBytes {
			break
		}
		n++
		r.entry(it.id).queued--
	}
	taken := r.queue[:n:n]
	r.queue = r.queue[n:]
	return taken
}

// Requeue says that a commit is not in the stream: its changes are still to be published.
func (r *Roster) Requeue(c *Commit) {
	for _, it := range c.items {
		if it.isChange() {
			r.entry(it.id).queued++
		}
	}
	for i := range c.Events {
		e := r.entry(c.Events[i].Data.Agent.AgentID)
		e.sent = max(e.sent, c.Events[i].Data.Revision)
	}
	r.queue = append(c.items, r.queue...)
	r.fold()
}

// drop drops the queued changes of agents about which the stream says something else than it did
// when they were observed, and all ends of sweeps. Where the stream has one of the changes itself,
// since a part of its commit was stored, those behind it stay. It returns how many it dropped.
func (r *Roster) drop(moved map[int64]bool) (dropped int) {
	stored := make(map[int64]int) // the last item of the agent that the stream has
	for i, it := range r.queue {
		if it.isChange() && moved[it.id] {
			if s := r.entry(it.id).published; s != nil && s.Time.Equal(schemas.CeilTime(it.time)) {
				stored[it.id] = i
			}
		}
	}
	kept := r.queue[:0]
	for i, it := range r.queue {
		if !it.isChange() {
			continue
		}
		if last, ok := stored[it.id]; moved[it.id] && !(ok && i > last) {
			r.entry(it.id).queued--
			dropped++
			continue
		}
		kept = append(kept, it)
	}
	clear(r.queue[len(kept):])
	r.queue = kept
	r.pending -= dropped
	return dropped
}
