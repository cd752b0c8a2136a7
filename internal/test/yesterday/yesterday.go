// Package yesterday writes the stream of a tenant as rollcall would have written it on a day that
// is over.
package yesterday

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// Tenant is whose stream it is.
const Tenant = 886

// epoch is midnight.
var epoch = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// Clock is a time of the day that the world is made on, 2026-11-22 in UTC: "8:30", "8:30:15".
func Clock(t testing.TB, s string) time.Time {
	t.Helper()
	var h, m, sec int
	if n, _ := fmt.Sscanf(s, "%d:%d:%d", &h, &m, &sec); n < 2 {
		t.Fatalf("%q is no time of day", s)
	}
	return epoch.Add(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute +
		time.Duration(sec)*time.Second)
}

// A World is a tenant whose stream is written as rollcall writes it.
type World struct {
	testing.TB
	NC    *nats.Conn
	JS    jetstream.JetStream
	Sweep uint64    // the last complete one; it may be set before the first
	Now   time.Time // when the last commit was made

	marked schemas.Watermark // the last one
	p      *publisher.Publisher
	last   map[int64]*schemas.Event
	batch  []schemas.Event
}

// New returns a world whose events are kept for some time. There has been no sweep in it.
func New(t testing.TB, maxAge time.Duration) *World {
	t.Helper()
	url, _ := natstest.Start(t, "")
	w := &World{TB: t, NC: natstest.Connect(t, url), last: map[int64]*schemas.Event{}}
	var err error
	if w.JS, err = jetstream.New(w.NC); err != nil {
		t.Fatal(err)
	}
	w.p, err = publisher.Open(t.Context(), w.NC, publisher.Config{
		Tenant: Tenant, Instance: "test", Replicas: 1, Manage: true,
		EventsMaxAge: maxAge, MaxBytes: 256 << 20, LeaseTTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.p.TakeOver(t.Context(), func(*packed.State) {},
		func(*publisher.Recovered) (m schemas.Watermark, _ bool) { return m, false })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Change adds an event of an agent to the next commit: what its row said at a time, having last
// been read otherwise a second before. nil: it left the listing.
func (w *World) Change(id int64, at string, row func(*schemas.Agent)) *schemas.Event {
	w.Helper()
	e := schemas.Event{Type: schemas.Updated, Time: Clock(w, at)}
	d := &e.Data
	d.Revision, d.Sweep, d.NotBefore = 1, w.Sweep+1, e.Time.Add(-time.Second)
	d.Reason, d.Since = schemas.Fields, e.Time
	was := w.last[id]
	d.Agent = schemas.Agent{AgentID: id, TenantID: Tenant}
	wasOnline, wasThere := false, false
	if was != nil {
		d.Revision, d.Since, d.Agent = was.Data.Revision+1, was.Data.Since, was.Data.Agent
		wasOnline, wasThere = was.Data.Online, was.Data.Reason != schemas.Removed
	}
	if row != nil {
		row(&d.Agent)
		d.Online = d.Agent.Online()
	}
	switch there := row != nil && d.Agent.There(); {
	case was == nil && w.Sweep == 0:
		d.Reason, d.NotBefore = schemas.Baseline, time.Time{}
	case !wasThere:
		d.Reason = schemas.Appeared
	case !there:
		d.Reason = schemas.Removed
	case d.Online != wasOnline:
		d.Reason = schemas.Status
	}
	if d.Online != wasOnline {
		e.Type = schemas.Offline
		if d.Online {
			e.Type = schemas.Online
		}
		d.Since = e.Time
		if was != nil {
			d.PreviousSince = was.Data.Since
		}
	}
	if was != nil {
		d.Changes = schemas.Changes(&was.Data.Agent, &d.Agent)
	}
	w.last[id] = &e
	w.batch = append(w.batch, e)
	return &w.batch[len(w.batch)-1]
}

// On is the row of an agent on duty.
func On(a *schemas.Agent) { a.OnlineStatus = 1 }

// Off is the row of an agent off duty.
func Off(a *schemas.Agent) { a.OnlineStatus = 0 }

// Of is the row of an agent of a type and an area.
func Of(kind, area string, more ...func(*schemas.Agent)) func(*schemas.Agent) {
	return func(a *schemas.Agent) {
		a.Type, a.AreaName = &kind, &area
		for _, m := range more {
			m(a)
		}
	}
}

// Swept commits what was added, and a complete sweep that began at a time and took ten seconds. It
// is stale after a minute.
func (w *World) Swept(at string) {
	w.Helper()
	w.Sweep++
	begun := Clock(w, at)
	w.Now = begun.Add(10 * time.Second)
	w.commit(schemas.Watermark{Sweep: w.Sweep, StartedAt: begun, CompletedAt: w.Now,
		StaleAfter: w.Now.Add(time.Minute), NextBy: w.Now.Add(time.Minute)})
}

func (w *World) commit(m schemas.Watermark) {
	w.Helper()
	batch := w.batch
	w.batch, w.marked = nil, m
	if err := w.p.Commit(w.Context(), publisher.Batch{Events: batch, Watermark: m}); err != nil {
		w.Fatal(err)
	}
}

// Unobserved writes an unobserved interval, as it is stored beside the watermark of its sweep.
func (w *World) Unobserved(from, to string, health schemas.HealthReason, types ...string) {
	w.Helper()
	u := schemas.Unobserved{TenantID: Tenant, From: Clock(w, from), To: Clock(w, to),
		Sweep: w.Sweep, Health: health, Types: types}
	b := publisher.Batch{Unobserved: &u, Watermark: w.marked}
	if err := w.p.Commit(w.Context(), b); err != nil {
		w.Fatal(err)
	}
}

// Purge removes messages: those of the subject up to a number of the latest that stay.
func (w *World) Purge(subject string, keep uint64) {
	w.Helper()
	s, err := w.JS.Stream(w.Context(), schemas.Stream)
	if err != nil {
		w.Fatal(err)
	}
	opts := []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(subject)}
	if keep > 0 {
		opts = append(opts, jetstream.WithPurgeKeep(keep))
	}
	if err := s.Purge(w.Context(), opts...); err != nil {
		w.Fatal(err)
	}
}
