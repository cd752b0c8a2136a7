package diff

import (
	"maps"
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// When a complete sweep ends an interval in which nobody could say who is on duty. Only the
// watermarks in the stream decide: that of the last complete sweep there, those between, and the
// one that is formed now.
//   - staleAfter: the sweep ended later than the last complete one's staleAfter.
//   - nextBy: since the last complete sweep, some watermark came later than the nextBy of the one
//     before it. Each watermark takes the place of the one before, so the fact goes along with the
//     commits until a complete sweep ends the interval (Commit.Lapsed): whoever takes over then
//     knows of it, too.
//
// Otherwise, where types are polled that the last complete sweep did not poll, nobody has looked at
// their agents.

// Form completes a commit that is to be sent: it is formed now, and by nextBy another watermark
// comes.
func (r *Roster) Form(c *Commit, now, nextBy time.Time) {
	c.Watermark.NextBy = nextBy
	c.Lapsed = lapsed(&r.watermark, r.lapsed, now)
	if !c.complete {
		return
	}
	c.Unobserved = r.unobserved(&c.Watermark, c.Lapsed)
	c.Lapsed = false
}

// lapsed reports whether the nextBy of a watermark, or of an earlier one since the last complete
// sweep, has passed before the one that is formed now. Before any complete sweep there is nothing
// to be trusted.
func lapsed(last *schemas.Watermark, before bool, now time.Time) bool {
	passed := !last.NextBy.IsZero() && schemas.FloorTime(now).After(last.NextBy)
	return last.Sweep > 0 && (before || passed)
}

// Lapse says that the last commit came into the stream only after the nextBy of the watermark
// before it, and did not say so: the next complete sweep ends the interval.
func (r *Roster) Lapse() { r.lapsed = r.watermark.Sweep > 0 }

// unobserved returns the interval that a complete sweep ends, nil where it ends none.
func (r *Roster) unobserved(w *schemas.Watermark, lapsed bool) *schemas.Unobserved {
	last := &r.watermark
	if last.Sweep == 0 {
		return nil
	}
	u := &schemas.Unobserved{From: last.StartedAt, To: w.StartedAt, Sweep: w.Sweep}
	if u.From.After(u.To) { // another machine's clock
		u.From = u.To
	}
	if lapsed || w.CompletedAt.After(last.StaleAfter) {
		return u
	}
	if len(last.Polled) > 0 && len(w.Polled) == 0 && w.Agents > 0 && w.Types == nil {
		return u // too many types to name them
	}
	if u.Types = newlyPolled(last.Polled, w); len(u.Types) == 0 {
		return nil
	}
	return u
}

// newlyPolled returns the types that a sweep polled and the one before did not. Where it was one
// listing of all, they are those of the agents that there are.
func newlyPolled(before []string, w *schemas.Watermark) (types []string) {
	now := w.Polled
	if len(now) == 0 {
		now = slices.Sorted(maps.Keys(w.Types))
	}
	for _, t := range now {
		if len(before) > 0 && !slices.Contains(before, t) {
			types = append(types, t)
		}
	}
	return types
}

// Resume says with which watermark the stream was taken over (see [First]). It follows Load.
func (r *Roster) Resume(f First) {
	r.watermark.NextBy, r.lapsed = f.Watermark.NextBy, f.Lapsed
}
