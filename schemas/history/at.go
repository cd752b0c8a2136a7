package history

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// A Roster is who was there at a moment, as far as the stream tells. It does not change.
type Roster struct {
	Time time.Time

	// Unobserved are the unobserved intervals that the moment lies in: one of all agents, or some
	// of newly polled types; mostly none.
	Unobserved []*Unobserved

	early  error // why nothing can be told of the moment
	states bool  // the stream has some
	broken int   // states that can't be read
	agents map[int64]*piece
}

// An Agent is one that was there, or that may have been.
type Agent struct {
	// Agent is it as it was. Where Why says that nobody can tell, it is as it was last known, or
	// first seen.
	Agent schemas.Agent
	// Online says whether it was on duty.
	Online bool
	// Since is when that was first read, NotBefore when it was last read otherwise; zero where the
	// stream does not tell.
	Since, NotBefore time.Time
	// Revision is the agent's; 0: nobody knows.
	Revision uint64
	// Event is the agent's last event up to the moment; nil: it was not read, since it is old or
	// gone, and the rest follows from the next one.
	Event *schemas.Event

	// Why says why nobody can tell whether it was on duty, or there; nil: it was. It is, or wraps,
	// [ErrMissing] or [ErrUnobserved].
	Why error
	// Missing is how many of the agent's events of about this time the stream lacks, as far as it
	// shows. Without a Why, it was on duty as Online says, and other fields may be those of another
	// time.
	Missing uint64
	// Truncated: fields that the vendor does not document are as they were later.
	Truncated bool
}

// At reads who was there at a moment, and on duty.
//
// An error is, or wraps, [ErrFuture] where the question has no answer. js needs the rights that it
// needs for [Intervals].
func At(
	ctx context.Context, js jetstream.JetStream, tenant int64, t time.Time, opts ...Option,
) (*Roster, error) {
	r, err := at(ctx, js, tenant, t, with(opts))
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return r, nil
}

func at(
	ctx context.Context, js jetstream.JetStream, tenant int64, t time.Time, o options,
) (*Roster, error) {
	if t.After(o.now) {
		return nil, fmt.Errorf("the moment %s: %w", stamp(t), ErrFuture)
	}
	r := &Roster{Time: t, agents: map[int64]*piece{}}
	trails := map[int64]*trail{} // of agents that changed later
	s, err := open(ctx, js, tenant, o, schemas.StateFilter(tenant),
		func() { clear(trails); clear(r.agents) },
		func(state *record) {
			if state.time.After(t) {
				trails[state.id] = &trail{state: state}
				return
			}
			w := walk{last: state}
			w.end(r.take)
		})
	if err != nil {
		return nil, err
	}
	if err := s.learnBegin(ctx); err != nil {
		return nil, err
	}
	r.states, r.broken = s.states > 0, s.broken
	for _, u := range s.unobserved {
		if !t.Before(u.From) && (u.Lasts() || t.Before(u.To)) {
			r.Unobserved = append(r.Unobserved, u)
		}
	}
	if t.Before(s.begin) {
		r.early = s.tooEarly()
	}
	return r, r.rewind(ctx, s, trails)
}

// rewind finds out how the agents were that changed after the moment, or that have no state.
func (r *Roster) rewind(ctx context.Context, s *source, trails map[int64]*trail) error {
	open := len(trails)
	next := func(t *trail, e *record) {
		t.next(e, s.begin, r.take)
		if e.time.After(r.Time) {
			t.state, t.walk.last = nil, nil
			open--
		}
	}
	if open == 0 && r.states {
		return nil
	}
	err := s.events(ctx, r.Time, schemas.EventFilters(s.tenant),
		func(m jetstream.Msg, p schemas.Subject) bool {
			t := trails[p.AgentID]
			switch {
			case t == nil && r.states: // not changed since, or forgotten
				return true
			case t == nil:
				t = &trail{}
				trails[p.AgentID] = t
				open++
			case t.last == nil && t.state == nil: // decided
				return true
			}
			e, err := readRecord(m, p)
			if err != nil {
				return true
			}
			if t.state != nil && e.time.After(t.state.time) {
				e = t.state
			}
			next(t, e)
			return open > 0 || !r.states
		})
	if err != nil {
		return err
	}
	for _, t := range trails {
		if t.state != nil {
			next(t, t.state)
		}
		t.end(r.take)
	}
	return nil
}

// take keeps the piece that the moment lies in.
func (r *Roster) take(p *piece) {
	if p.from.After(r.Time) || !p.to.IsZero() && !p.to.After(r.Time) {
		return
	}
	r.agents[p.agent] = p
}

// All are the agents that were there, and those of which nobody can tell, by agentId.
func (r *Roster) All() iter.Seq[*Agent] {
	return func(yield func(*Agent) bool) {
		for _, id := range slices.Sorted(maps.Keys(r.agents)) {
			if p := r.agents[id]; p.there || !p.known {
				if a, err := p.at(); err == nil && !yield(a) {
					return
				}
			}
		}
	}
}

// at is the agent in a piece.
func (p *piece) at() (*Agent, error) {
	e, err := p.of.event()
	if err != nil {
		return nil, err
	}
	a := &Agent{Agent: e.Data.Agent, Online: p.online, Since: p.since, Revision: p.of.revision,
		Why: p.why, Missing: p.missing}
	if !p.before {
		a.Event = e
		if e.Data.Since.Equal(e.Time) {
			a.NotBefore = e.Data.NotBefore
		}
		return a, nil
	}
	if a.Revision--; !p.known {
		a.Revision = 0
	}
	a.Truncated = e.Data.ChangesTruncated
	was, err := schemas.Revert(&e.Data.Agent, e.Data.Changes)
	if err != nil {
		return nil, err
	}
	a.Agent = *was
	return a, nil
}

// Err says why the roster can't be trusted, as far as agents of the given types are concerned
// ([schemas.Agent.TypeToken]); none: all agents. Nil: at that moment rollcall knew, and the stream
// still tells. It joins an error for each reason, which is, or wraps, [ErrUnobserved],
// [ErrExpired], [ErrNoSweep], [ErrMissing] or [ErrNoStates].
func (r *Roster) Err(types ...string) error {
	errs := []error{r.early}
	for _, u := range r.Unobserved {
		if len(types) == 0 || slices.ContainsFunc(types, u.about) {
			errs = append(errs, u.Err())
		}
	}
	missing, unseen := 0, 0
	for _, p := range r.agents {
		switch {
		case len(types) > 0 && !slices.Contains(types, p.kind.kind):
		case errors.Is(p.why, ErrUnobserved):
			unseen++
		case p.missing > 0:
			missing++
		}
	}
	if r.early == nil { // else this goes without saying
		if missing > 0 {
			errs = append(errs, fmt.Errorf("%w, of %s", ErrMissing, agents(missing)))
		}
		if unseen > 0 {
			errs = append(errs, fmt.Errorf("%w: nobody had looked for %s that came later",
				ErrUnobserved, agents(unseen)))
		}
	}
	if r.broken > 0 {
		errs = append(errs, fmt.Errorf("%w: what the stream has of %s can't be read", ErrMissing,
			agents(r.broken)))
	}
	if !r.states {
		errs = append(errs, ErrNoStates)
	}
	return errors.Join(errs...)
}

func agents(n int) string {
	if n == 1 {
		return "1 agent"
	}
	return fmt.Sprintf("%d agents", n)
}

// Err says in a sentence what is not known, and why.
func (u *Unobserved) Err() error {
	var b strings.Builder
	if len(u.Types) > 0 {
		fmt.Fprintf(&b, " of type %s", strings.Join(u.Types, ", "))
	}
	fmt.Fprintf(&b, " from %s ", stamp(u.From))
	if u.Lasts() {
		b.WriteString("until now")
	} else {
		b.WriteString("to " + stamp(u.To))
	}
	if u.Health != "" {
		fmt.Fprintf(&b, " (%s)", u.Health)
	}
	return fmt.Errorf("%w%s", ErrUnobserved, b.String())
}
