package diff

import "time"

// Stepped tells the roster that the clock which its times come from has moved by d against the time
// that has passed. Waits go on as if it had not. Earlier looks move back with a clock that was set
// back, since nobody has looked at a time that is yet to come. A jump ahead leaves them where they
// were: the machine may have slept, and then nobody looked meanwhile.
func (r *Roster) Stepped(d time.Duration) {
	moved := make(map[*sighting]*sighting) // agents of a page share one
	for _, e := range r.agents {
		if e.heldSince != 0 {
			e.heldSince += d.Nanoseconds()
		}
		if d >= 0 || e.seen == nil {
			continue
		}
		to := moved[e.seen]
		if to == nil {
			s := *e.seen
			s.read = s.read.Add(d)
			if !s.sent.IsZero() { // it is where nobody knows
				s.sent = s.sent.Add(d)
			}
			to = &s
			moved[e.seen] = to
		}
		e.seen = to
	}
	if d >= 0 {
		return
	}
	for _, s := range []*completeSweep{&r.complete, &r.restart} {
		if s.Number > 0 {
			s.StartedAt, s.EndedAt = s.StartedAt.Add(d), s.EndedAt.Add(d)
		}
	}
}
