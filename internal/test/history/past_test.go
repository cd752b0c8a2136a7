package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/history"
)

// A past is all that a tenant's stream ever said, by a recording, and what can be known by it at a
// moment.
type past struct {
	tenant     int64
	events     map[int64][]schemas.Event // by agent, in order
	unobserved []schemas.Unobserved
	watermark  *schemas.Watermark // the last one
	baseline   time.Time          // the last event's with that reason
	swept      time.Time          // when the first complete sweep ended
	marks      []time.Time        // moments at which something changes
}

func newPast(t *testing.T, tenant int64, all []checker.Message) *past {
	t.Helper()
	p := &past{tenant: tenant, events: map[int64][]schemas.Event{}}
	read := func(m *checker.Message, into any) {
		if err := json.Unmarshal(m.Body, into); err != nil {
			t.Fatalf("message %d: %v", m.Seq, err)
		}
	}
	for i := range all {
		m := &all[i]
		s, err := schemas.ParseSubject(m.Subject)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case s.Tenant != tenant:
		case s.Kind == schemas.KindWatermark:
			p.watermark = new(schemas.Watermark)
			read(m, p.watermark)
			if p.watermark.Sweep > 0 && p.swept.IsZero() {
				p.swept = p.watermark.CompletedAt
			}
		case s.Kind == schemas.KindUnobserved:
			var u schemas.Unobserved
			read(m, &u)
			p.unobserved = append(p.unobserved, u)
			p.marks = append(p.marks, u.From, u.To)
		case s.Kind == schemas.KindState || s.Kind == schemas.KindHealth:
		default:
			var e schemas.Event
			read(m, &e)
			p.events[s.AgentID] = append(p.events[s.AgentID], e)
			p.marks = append(p.marks, e.Time)
			if e.Data.Reason == schemas.Baseline {
				p.baseline = later(p.baseline, e.Time)
			}
		}
	}
	return p
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// A question is about the past, asked when some of it may be gone from the stream.
type question struct {
	t *testing.T
	*past
	js    jetstream.JetStream
	now   time.Time
	since time.Time // what was stored from then on is in the stream; zero: all is
	holes bool      // some of it is not
	asked int
}

// last is the agent's last event up to a moment; nil: it has none.
func (p *past) last(agent int64, t time.Time) *schemas.Event {
	var last *schemas.Event
	for i := range p.events[agent] {
		if e := &p.events[agent][i]; !e.Time.After(t) {
			last = e
		}
	}
	return last
}

// overdue is from when on nobody can say now who is on duty, because the next watermark is overdue;
// zero: it is not.
func (q *question) overdue() time.Time {
	if w := q.watermark; w != nil && w.Sweep > 0 && q.now.After(w.TrustedUntil()) {
		return w.StartedAt
	}
	return time.Time{}
}

// unseen reports whether nobody looked at a moment, for agents of the type; "": for all.
func (q *question) unseen(t time.Time, kind string) bool {
	if from := q.overdue(); !from.IsZero() && !t.Before(from) {
		return true
	}
	return slices.ContainsFunc(q.unobserved, func(u schemas.Unobserved) bool {
		return !t.Before(u.From) && t.Before(u.To) &&
			(len(u.Types) == 0 || slices.Contains(u.Types, kind))
	})
}

// tidy removes what readings have left behind, which the server would do by itself within a minute.
func (q *question) tidy() {
	q.t.Helper()
	if q.asked++; q.asked%25 > 0 {
		return
	}
	stream, err := q.js.Stream(q.t.Context(), schemas.Stream)
	if err != nil {
		q.t.Fatal(err)
	}
	for name := range stream.ConsumerNames(q.t.Context()).Name() {
		err := stream.DeleteConsumer(q.t.Context(), name)
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			q.t.Fatal(err)
		}
	}
}

// at asks who was on duty at a moment.
func (q *question) at(t time.Time) {
	q.t.Helper()
	q.tidy()
	r, err := history.At(q.t.Context(), q.js, q.tenant, t, history.AsOf(q.now))
	if err != nil {
		q.t.Errorf("at %s: %v", stamp(t), err)
		return
	}
	bad := func(format string, args ...any) {
		q.t.Helper()
		q.t.Errorf("at %s, asked at %s, with all since %s: %s", stamp(t), stamp(q.now),
			stamp(q.since), fmt.Sprintf(format, args...))
	}
	// What is not known.
	err = r.Err()
	if want := t.Before(q.since); errors.Is(err, history.ErrExpired) != want {
		bad("that events may have expired should be %v: %v", want, err)
	}
	early := !t.Before(q.since) && (q.swept.IsZero() || t.Before(q.baseline))
	between := !t.Before(q.baseline) && t.Before(q.swept)
	if errors.Is(err, history.ErrNoSweep) != early && !between {
		bad("that nothing had been swept should be %v: %v", early, err)
	}
	kept := !t.Before(q.since)
	if want := q.unseen(t, ""); kept && want != slices.ContainsFunc(r.Unobserved,
		func(u *history.Unobserved) bool { return len(u.Types) == 0 }) {
		bad("that nobody could say should be %v: %v", want, err)
	}
	for _, kind := range types[:3] {
		if kept && q.unseen(t, kind) && !errors.Is(r.Err(kind), history.ErrUnobserved) {
			bad("nobody could say of type %s: %v", kind, r.Err(kind))
		}
	}
	complete := kept && !q.holes
	if complete && errors.Is(err, history.ErrMissing) {
		bad("nothing is missing: %v", err)
	}
	// What is.
	got := map[int64]*history.Agent{}
	before := int64(0)
	for a := range r.All() {
		if a.Agent.AgentID <= before {
			bad("agent %d comes after agent %d", a.Agent.AgentID, before)
		}
		before = a.Agent.AgentID
		got[a.Agent.AgentID] = a
	}
	for id, events := range inOrder(q.events) {
		a, e := got[id], q.last(id, t)
		delete(got, id)
		switch {
		case e == nil && events[0].Data.NotBefore.IsZero(): // nobody looked
			if complete && (a == nil || !errors.Is(a.Why, history.ErrUnobserved)) {
				bad("agent %d, which nobody had looked for before %s: %+v", id,
					stamp(events[0].Time), a)
			}
		case e == nil || e.Data.Reason == schemas.Removed:
			if a != nil && (complete || a.Why == nil && a.Online) {
				bad("agent %d was not there: %+v", id, a)
			}
		case a == nil:
			if complete {
				bad("agent %d is not there; its last event was\n%+v", id, e)
			}
		case complete:
			q.same(bad, a, e)
		case a.Why == nil:
			if a.Online != e.Data.Online {
				bad("agent %d is online %v; its last event was\n%+v", id, a.Online, e)
			}
			if !a.Since.IsZero() && !a.Since.Equal(e.Data.Since) {
				bad("agent %d is online %v since %s; its last event was\n%+v", id, a.Online,
					stamp(a.Since), e)
			}
			if a.Missing == 0 && a.Event != nil {
				q.same(bad, a, e)
			}
		}
	}
	for _, a := range got {
		bad("nobody ever saw %+v", a)
	}
}

// same compares an agent with its last event.
func (q *question) same(bad func(string, ...any), a *history.Agent, e *schemas.Event) {
	q.t.Helper()
	id := a.Agent.AgentID
	want, is := e.Data.Agent, a.Agent
	if a.Truncated {
		want.Other, is.Other = nil, nil
	}
	if !reflect.DeepEqual(normal(&is), normal(&want)) {
		bad("agent %d is\n%s, and was\n%s", id, normal(&is), normal(&want))
	}
	if a.Why != nil || a.Missing != 0 || a.Online != e.Data.Online ||
		a.Revision != e.Data.Revision {
		bad("agent %d is\n%+v; its last event was\n%+v", id, a, e)
	}
	if !a.Since.Equal(e.Data.Since) && (a.Event != nil || !a.Since.IsZero()) {
		bad("agent %d is so since %s, and not since %s", id, stamp(a.Since), stamp(e.Data.Since))
	}
	if a.Event != nil && !reflect.DeepEqual(a.Event.AppendJSON(nil), e.AppendJSON(nil)) {
		bad("agent %d has the event\n%+v, and not\n%+v", id, a.Event, e)
	}
	begun := q.last(id, e.Data.Since)
	if !a.NotBefore.IsZero() && !a.NotBefore.Equal(begun.Data.NotBefore) {
		bad("agent %d was otherwise at %s, and not at %s", id, stamp(a.NotBefore),
			stamp(begun.Data.NotBefore))
	}
}

func normal(a *schemas.Agent) string {
	body, err := json.Marshal(a)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "ever"
	}
	return t.UTC().Format("15:04:05.000")
}

// intervals asks for the intervals of every agent, each by itself and all together.
func (q *question) intervals(from, to time.Time) {
	q.t.Helper()
	all := map[int64][]history.Interval{}
	for i, err := range history.All(q.t.Context(), q.js, q.tenant, from, to, history.AsOf(q.now)) {
		if err != nil {
			q.t.Errorf("from %s to %s: %v", stamp(from), stamp(to), err)
			return
		}
		all[i.AgentID] = append(all[i.AgentID], i)
	}
	for id := range inOrder(q.events) {
		q.tidy()
		var own []history.Interval
		for i, err := range history.Intervals(q.t.Context(), q.js, q.tenant, id, from, to,
			history.AsOf(q.now)) {
			if err != nil {
				q.t.Errorf("agent %d from %s to %s: %v", id, stamp(from), stamp(to), err)
				break
			}
			if n := len(own); n > 0 && own[n-1].State == i.State && own[n-1].Listed == i.Listed &&
				fmt.Sprint(own[n-1].Why) == fmt.Sprint(i.Why) && own[n-1].Missing == i.Missing &&
				own[n-1].Unobserved == i.Unobserved {
				q.t.Errorf("agent %d: the interval %s is as the one before", id, show(&i))
			}
			own = append(own, i)
		}
		q.add(id, from, to, own)
		q.add(id, from, to, all[id])
		delete(all, id)
	}
	for id := range all {
		q.t.Errorf("nobody ever saw agent %d", id)
	}
}

func show(i *history.Interval) string {
	return fmt.Sprintf("%s~%s-%s~%s %s listed=%v type=%s sign-ins=%d missing=%d %v",
		stamp(i.FromNotBefore), stamp(i.From), stamp(i.ToNotBefore), stamp(i.To), i.State, i.Listed,
		i.Type, i.SignIns, i.Missing, i.Why)
}

// add checks that intervals of an agent make up the time that was asked for, and say the truth.
func (q *question) add(id int64, from, to time.Time, got []history.Interval) {
	q.t.Helper()
	complete := !q.holes && !from.Before(q.since)
	bad := func(format string, args ...any) {
		q.t.Helper()
		text := fmt.Sprintf("agent %d from %s to %s, asked at %s, with all since %s: %s", id,
			stamp(from), stamp(to), stamp(q.now), stamp(q.since), fmt.Sprintf(format, args...))
		for i := range got {
			text += "\n" + show(&got[i])
		}
		for _, e := range q.events[id] {
			text += fmt.Sprintf("\n  %s~%s %s %s revision %d online %v type %s",
				stamp(e.Data.NotBefore), stamp(e.Time), e.Type, e.Data.Reason, e.Data.Revision,
				e.Data.Online, e.Data.Agent.TypeToken())
		}
		q.t.Error(text)
	}
	sums, signIns := map[history.State]time.Duration{}, 0
	next := from
	for n := range got {
		i := &got[n]
		if !i.From.Equal(next) || !i.From.Before(i.To) {
			bad("interval %d is not after the one before it", n)
			return
		}
		next = i.To
		sums[i.State] += i.Duration()
		signIns += i.SignIns
	}
	if sum := sums[history.On] + sums[history.Off] + sums[history.Unknown]; !next.Equal(to) ||
		sum != to.Sub(from) {
		bad("they add up to %s", sum)
		return
	}
	want := 0
	for _, e := range q.events[id] {
		if e.Type == schemas.Online && e.Data.Reason != schemas.Baseline &&
			!e.Time.Before(from) && e.Time.Before(to) {
			want++
		}
	}
	if signIns > want || complete && signIns < want {
		bad("%d sign-ins, and not %d", signIns, want)
	}
	points := []time.Time{from, to.Add(-1)}
	for _, m := range append([]time.Time{q.overdue(), q.since, q.baseline}, q.marks...) {
		points = append(points, m, m.Add(-1), m.Add(1))
	}
	for _, t := range points {
		if !t.Before(from) && t.Before(to) {
			n := slices.IndexFunc(got, func(i history.Interval) bool { return i.To.After(t) })
			q.point(func(format string, args ...any) {
				q.t.Helper()
				bad("at %s: %s", stamp(t), fmt.Sprintf(format, args...))
			}, id, t, to, &got[n])
		}
	}
}

// point checks what an interval says of a moment in it.
func (q *question) point(
	bad func(string, ...any), id int64, t, to time.Time, i *history.Interval,
) {
	q.t.Helper()
	e := q.last(id, t)
	first := &q.events[id][0]
	kind := first.Data.Agent.TypeToken()
	if e != nil {
		kind = e.Data.Agent.TypeToken()
	}
	complete := !q.holes && !t.Before(q.since)
	var why error
	switch {
	case t.Before(q.since):
		why = history.ErrExpired
	case q.swept.IsZero() || t.Before(q.baseline):
		why = history.ErrNoSweep
	case q.unseen(t, kind) || e == nil && first.Data.NotBefore.IsZero():
		why = history.ErrUnobserved
	}
	state, listed := history.Off, e != nil && e.Data.Reason != schemas.Removed
	if e != nil && e.Data.Online {
		state = history.On
	}
	switch {
	case why != nil && !q.holes || errors.Is(why, history.ErrExpired):
		if i.State != history.Unknown || !errors.Is(i.Why, why) {
			bad("unknown: %v", why)
		}
	case i.State == history.Unknown:
		if complete && !t.Before(q.swept) {
			bad("it was %s", state)
		}
	case i.State != state || complete && i.Listed != listed:
		bad("it was %s, listed %v", state, listed)
	case complete && i.Missing > 0:
		bad("nothing is missing")
	}
	if complete && e != nil && i.From.Equal(e.Time) && i.From.Equal(t) &&
		i.State != history.Unknown && !i.FromNotBefore.Equal(e.Data.NotBefore) {
		bad("it began after %s", stamp(e.Data.NotBefore))
	}
	next := q.last(id, i.To)
	if complete && next != nil && next.Time.Equal(i.To) && i.State != history.Unknown &&
		!i.To.Equal(to) && !i.ToNotBefore.Equal(next.Data.NotBefore) {
		bad("it ended after %s", stamp(next.Data.NotBefore))
	}
}
