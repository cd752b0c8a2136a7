package history

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = 886

// epoch is midnight, and clock a time of that day: "8:30", "8:30:15".
var epoch = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func clock(t testing.TB, s string) time.Time {
	t.Helper()
	var h, m, sec int
	if n, _ := fmt.Sscanf(s, "%d:%d:%d", &h, &m, &sec); n < 2 {
		t.Fatalf("%q is no time of day", s)
	}
	return epoch.Add(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute +
		time.Duration(sec)*time.Second)
}

// A world is a tenant whose stream is written as rollcall writes it.
type world struct {
	testing.TB
	nc     *nats.Conn
	js     jetstream.JetStream
	p      *publisher.Publisher
	last   map[int64]*schemas.Event
	batch  []schemas.Event
	marked schemas.Watermark // the last one
	sweep  uint64
	now    time.Time // of what is asked
	from   string    // the stream that is asked
}

func newWorld(t testing.TB, maxAge time.Duration) *world {
	t.Helper()
	url, _ := natstest.Start(t, "")
	w := &world{TB: t, nc: natstest.Connect(t, url), last: map[int64]*schemas.Event{},
		from: schemas.Stream}
	var err error
	if w.js, err = jetstream.New(w.nc); err != nil {
		t.Fatal(err)
	}
	w.p, err = publisher.Open(t.Context(), w.nc, publisher.Config{
		Tenant: tenant, Instance: "test", Replicas: 1, Manage: true,
		EventsMaxAge: maxAge, MaxBytes: 256 << 20, LeaseTTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.p.TakeOver(t.Context(), func(*packed.State) {},
		func(*publisher.Recovered) (m schemas.Watermark, lapsed bool) { return m, lapsed })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// change adds an event of an agent to the next commit: what its row said at a time, having last
// been read otherwise a second before. nil: it left the listing.
func (w *world) change(id int64, at string, row func(*schemas.Agent)) *schemas.Event {
	w.Helper()
	e := schemas.Event{Type: schemas.Updated, Time: clock(w, at)}
	d := &e.Data
	d.Revision, d.Sweep, d.NotBefore = 1, w.sweep+1, e.Time.Add(-time.Second)
	d.Reason, d.Since = schemas.Fields, e.Time
	was := w.last[id]
	d.Agent = schemas.Agent{AgentID: id, TenantID: tenant}
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
	case was == nil && w.sweep == 0:
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

// on, off and other are rows.
func on(a *schemas.Agent)  { a.OnlineStatus = 1 }
func off(a *schemas.Agent) { a.OnlineStatus = 0 }

func of(kind, area string, more ...func(*schemas.Agent)) func(*schemas.Agent) {
	return func(a *schemas.Agent) {
		a.Type, a.AreaName = &kind, &area
		for _, m := range more {
			m(a)
		}
	}
}

// swept commits what was added, and a complete sweep that began at a time and took ten seconds. It
// is stale after a minute, and what is asked now is asked at its end.
func (w *world) swept(at string) {
	w.Helper()
	w.sweep++
	begun := clock(w, at)
	w.now = begun.Add(10 * time.Second)
	w.commit(schemas.Watermark{Sweep: w.sweep, StartedAt: begun, CompletedAt: w.now,
		StaleAfter: w.now.Add(time.Minute), NextBy: w.now.Add(time.Minute)})
}

func (w *world) commit(m schemas.Watermark) {
	w.Helper()
	batch := w.batch
	w.batch, w.marked = nil, m
	if err := w.p.Commit(w.Context(), publisher.Batch{Events: batch, Watermark: m}); err != nil {
		w.Fatal(err)
	}
}

// unobserved writes an unobserved interval, as it is stored beside the watermark of its sweep.
func (w *world) unobserved(from, to string, health schemas.HealthReason, types ...string) {
	w.Helper()
	u := schemas.Unobserved{TenantID: tenant, From: clock(w, from), To: clock(w, to),
		Sweep: w.sweep, Health: health, Types: types}
	if err := w.p.Commit(w.Context(),
		publisher.Batch{Unobserved: &u, Watermark: w.marked}); err != nil {
		w.Fatal(err)
	}
}

// purge removes messages: those of the subject up to a number of the latest that stay.
func (w *world) purge(subject string, keep uint64) {
	w.Helper()
	s, err := w.js.Stream(w.Context(), schemas.Stream)
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

// asked are the intervals of an agent, a line each.
func (w *world) asked(id int64, from, to string) string {
	w.Helper()
	var b strings.Builder
	next := clock(w, from)
	for i, err := range Intervals(w.Context(), w.js, tenant, id, next, clock(w, to),
		AsOf(w.now), FromStream(w.from)) {
		if err != nil {
			return b.String() + err.Error() + "\n"
		}
		if !i.From.Equal(next) || !i.From.Before(i.To) {
			w.Errorf("an interval from %s to %s, after one up to %s", i.From, i.To, next)
		}
		next = i.To
		b.WriteString(line(&i))
	}
	if !next.Equal(clock(w, to)) {
		w.Errorf("the intervals end at %s", next)
	}
	return b.String()
}

func line(i *Interval) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s-%s %s", end(i.From, i.FromNotBefore), end(i.To, i.ToNotBefore), i.State)
	if i.Listed && i.State != Unknown {
		b.WriteString(", listed")
	}
	if i.SignIns > 0 {
		fmt.Fprintf(&b, ", %d sign-ins", i.SignIns)
	}
	if i.Missing > 0 {
		fmt.Fprintf(&b, ", %d missing", i.Missing)
	}
	if i.Why != nil {
		fmt.Fprintf(&b, ": %v", i.Why)
	}
	if i.Unobserved != nil {
		fmt.Fprintf(&b, " %v %s", i.Unobserved.Types, i.Unobserved.Health)
	}
	return b.String() + "\n"
}

// end is an end of an interval: "8:30:00" if it is exact, "8:29:59~8:30:00" or "?~8:30:00" if not.
func end(t, notBefore time.Time) string {
	const format = "15:04:05"
	switch s := t.Format(format); {
	case t.IsZero():
		return "?"
	case notBefore.IsZero():
		return "?~" + s
	case notBefore.Equal(t):
		return s
	default:
		return notBefore.Format(format) + "~" + s
	}
}

// at is the roster at a time, a line for each agent, and why it can't be trusted.
func (w *world) at(at string) string {
	w.Helper()
	r, err := At(w.Context(), w.js, tenant, clock(w, at), AsOf(w.now), FromStream(w.from))
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for a := range r.All() {
		fmt.Fprintf(&b, "%d on=%t since %s rev %d", a.Agent.AgentID, a.Online,
			end(a.Since, a.NotBefore), a.Revision)
		if a.Agent.AreaName != nil {
			fmt.Fprintf(&b, " %s %s", a.Agent.TypeToken(), *a.Agent.AreaName)
		}
		if a.Event == nil {
			b.WriteString(", by the next event")
		}
		if a.Truncated {
			b.WriteString(", truncated")
		}
		if a.Missing > 0 {
			fmt.Fprintf(&b, ", %d missing", a.Missing)
		}
		if a.Why != nil {
			fmt.Fprintf(&b, ": %v", a.Why)
		}
		b.WriteByte('\n')
	}
	if err := r.Err(); err != nil {
		b.WriteString("not trusted: " + strings.ReplaceAll(err.Error(), "\n", "; ") + "\n")
	}
	return b.String()
}

// folded is where a line of what is wanted goes on in the next.
var folded = regexp.MustCompile(`\\\n\s+`)

func (w *world) want(what, got, want string) {
	w.Helper()
	trim := func(s string) string {
		var lines []string
		for l := range strings.Lines(strings.TrimSpace(s)) {
			lines = append(lines, strings.TrimSpace(l))
		}
		return strings.Join(lines, "\n")
	}
	want = folded.ReplaceAllString(want, "")
	if trim(got) != trim(want) {
		w.Errorf("%s:\n%s\nwant:\n%s", what, trim(got), trim(want))
	}
}
