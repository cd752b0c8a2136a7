package history

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// State says whether an agent was on duty.
type State string

// The states of an interval.
const (
	On      State = "on"  // online
	Off     State = "off" // not online, or not there
	Unknown State = "unknown"
)

// An Interval is a time in which an agent was on duty, or was not, or nobody can tell.
type Interval struct {
	AgentID int64

	// From and To are its ends; it holds From, and not To.
	From, To time.Time
	// FromNotBefore and ToNotBefore say how precise the ends are: what ended, or began, did so
	// between that and the end. The end itself, where it is cut off, by the time asked about or by
	// what is unknown; zero where nobody knows.
	FromNotBefore, ToNotBefore time.Time

	State State
	// Listed: the agent was there, or may have been where State is Unknown. One that was removed,
	// or not seen yet, is off and not listed.
	Listed bool
	// Type, Area and Name are the agent's, as [schemas.Agent.TypeToken] has it, and its areaName
	// and agentName; empty where it has none.
	Type, Area, Name string
	// SignIns is how many sign-ins were seen in it: agent.online events but for the baseline's.
	SignIns int

	// Why says why it is unknown. It is, or wraps, [ErrUnobserved], [ErrMissing], [ErrExpired] or
	// [ErrNoSweep].
	Why error
	// Unobserved is the interval in which nobody looked, where that is why.
	Unobserved *Unobserved
	// Missing is how many of the agent's events of about this time the stream lacks, as far as it
	// shows. Where the state is known nevertheless, it follows from the next event.
	Missing uint64
}

// Duration is how long the interval is.
func (i *Interval) Duration() time.Duration { return i.To.Sub(i.From) }

// Intervals reads when an agent was on duty between two moments. The intervals are in order,
// without a gap, and make up the time asked about exactly. Each differs from its neighbours; type,
// area and name are those at its beginning.
//
// An error ends them. It is, or wraps, [ErrFuture], [ErrEmpty] or [ErrNoAgent] where the question
// has no answer. js needs the right to look at the stream, to create consumers of it and to ask
// them for messages, and no other.
func Intervals(
	ctx context.Context, js jetstream.JetStream, tenant, agent int64, from, to time.Time,
	opts ...Option,
) iter.Seq2[Interval, error] {
	return func(yield func(Interval, error) bool) {
		o := with(opts)
		var held *Interval // may grow
		only := []string{schemas.AgentEventFilter(tenant, agent)}
		err := read(ctx, js, tenant, from, to, o, schemas.StateSubject(tenant, agent), only,
			func(i Interval) bool {
				if held != nil && held.grow(&i) {
					return true
				}
				more := held == nil || yield(*held, nil)
				held = &i
				return more
			})
		switch {
		case err == errStopped:
		case err == nil && held == nil:
			err = fmt.Errorf("read the stream %s: %w %d of tenant %d", o.stream, ErrNoAgent, agent,
				tenant)
			fallthrough
		case err != nil:
			yield(Interval{}, fmt.Errorf("history: %w", err))
		default:
			yield(*held, nil)
		}
	}
}

// All reads the intervals of every agent that the stream knows of between two moments, agent by
// agent in order, but one between another, as the stream has them. An agent's make up the time
// asked about exactly. Two that follow one another may be of the same state: each is of one type,
// area and name.
//
// It is for sums: it holds what it takes to go on with each agent, and no interval. The rest is as
// with [Intervals].
func All(
	ctx context.Context, js jetstream.JetStream, tenant int64, from, to time.Time, opts ...Option,
) iter.Seq2[Interval, error] {
	return func(yield func(Interval, error) bool) {
		err := read(ctx, js, tenant, from, to, with(opts), schemas.StateFilter(tenant),
			schemas.EventFilters(tenant), func(i Interval) bool { return yield(i, nil) })
		if err != nil && err != errStopped {
			yield(Interval{}, fmt.Errorf("history: %w", err))
		}
	}
}

// errStopped: whoever asked has heard enough.
var errStopped = fmt.Errorf("stopped")

// grow takes the next interval in, unless it is of another kind.
func (i *Interval) grow(next *Interval) bool {
	if i.State != next.State || i.State != Unknown && i.Listed != next.Listed ||
		i.Unobserved != next.Unobserved || fmt.Sprint(i.Why) != fmt.Sprint(next.Why) {
		return false
	}
	i.To, i.ToNotBefore = next.To, next.ToNotBefore
	i.Listed = i.Listed || next.Listed
	i.SignIns += next.SignIns
	i.Missing += next.Missing
	return true
}

// A window is the time asked about, and what is known of it.
type window struct {
	*source
	from, to time.Time
	each     func(Interval) bool
	stopped  bool
}

// A trail is an agent's way through the window.
type trail struct {
	walk
	state *record // still to come; nil: it has been taken
	early int     // sign-ins of pieces without a length
}

// read reads the intervals of the agents whose states and events the filters match.
func read(
	ctx context.Context, js jetstream.JetStream, tenant int64, from, to time.Time, o options,
	states string, events []string, each func(Interval) bool,
) error {
	if !from.Before(to) {
		return fmt.Errorf("the time from %s to %s: %w", stamp(from), stamp(to), ErrEmpty)
	}
	if to.After(o.now) {
		return fmt.Errorf("the time up to %s: %w", stamp(to), ErrFuture)
	}
	trails := map[int64]*trail{}
	s, err := open(ctx, js, tenant, o, states, func() { clear(trails) }, func(r *record) {
		trails[r.id] = &trail{state: r}
	})
	if err != nil {
		return err
	}
	if err := s.learnBegin(ctx); err != nil {
		return err
	}
	w := &window{source: s, from: from, to: to, each: each}
	err = s.events(ctx, from, events,
		func(m jetstream.Msg, p schemas.Subject) bool {
			t := trails[p.AgentID]
			switch {
			case t == nil && s.states > 0: // forgotten
				return true
			case t == nil:
				t = &trail{}
				trails[p.AgentID] = t
			case t.state != nil && !t.state.time.After(from): // it has not changed since
				return true
			case t.last != nil && !t.last.time.Before(to): // what comes is later
				return true
			}
			r, err := readRecord(m, p)
			if err != nil {
				return true
			}
			if t.state != nil && r.time.After(t.state.time) {
				w.next(t, t.state)
				t.state = nil
			}
			w.next(t, r)
			return !w.stopped
		})
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(trails)) {
		t := trails[id]
		delete(trails, id)
		switch {
		case t.state == nil:
		case t.last == nil && !t.state.time.After(from):
			t.walk = begun(t.state)
		default:
			w.next(t, t.state)
		}
		t.end(func(p *piece) { w.cut(t, p) })
		if w.stopped {
			return errStopped
		}
	}
	return nil
}

// next goes on with the agent's next event.
func (w *window) next(t *trail, r *record) {
	t.next(r, w.begin, func(p *piece) { w.cut(t, p) })
	r.body = nil // most of what it holds
}

// cut hands out what of a piece is in the window, in parts that are known or not.
func (w *window) cut(t *trail, p *piece) {
	from, to := p.from, p.to
	cutFrom, cutTo := from.Before(w.from), to.IsZero() || to.After(w.to)
	if cutFrom {
		from = w.from
	}
	if cutTo {
		to = w.to
	}
	if p.signIn && !cutFrom && from.Before(w.to) {
		t.early++
	}
	for from.Before(to) && !w.stopped {
		i := Interval{AgentID: p.agent, From: from, To: to, State: Off, Listed: p.there || !p.known,
			Type: p.kind.kind, Area: p.kind.area, Name: p.kind.name, Missing: p.missing}
		if p.online {
			i.State = On
		}
		if !p.known {
			i.State, i.Why = Unknown, p.why
		}
		limited := w.limit(&i)
		i.FromNotBefore, i.ToNotBefore = i.From, i.To
		if i.From.Equal(p.from) && !cutFrom && !limited {
			i.FromNotBefore = p.fromNotBefore
		}
		if i.To.Equal(p.to) && !cutTo && !limited {
			i.ToNotBefore = p.toNotBefore
		}
		i.SignIns, t.early = t.early, 0
		from = i.To
		w.stopped = !w.each(i)
	}
}

// limit cuts an interval off where it is no longer known, or known again, by what can be told of
// all agents. It reports whether the latter is why it is not known.
func (w *window) limit(i *Interval) bool {
	if i.From.Before(w.begin) {
		i.To = earlier(i.To, w.begin)
		i.State, i.Why, i.Missing = Unknown, w.tooEarly(), 0
		return true
	}
	for _, u := range w.unobserved {
		switch {
		case !u.about(i.Type):
		case u.contains(i.From, i.Type):
			if !u.Lasts() {
				i.To = earlier(i.To, u.To)
			}
			i.State, i.Why, i.Unobserved = Unknown, ErrUnobserved, u
			return true
		case u.From.After(i.From):
			i.To = earlier(i.To, u.From)
		}
	}
	return false
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
