package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/internal/pull"
)

const tenant = 886

// large is beyond what a float64 can tell from its neighbours.
const large = 1<<53 + 1

func TestMain(m *testing.M) {
	pull.Heartbeat = 500 * time.Millisecond
	goleak.VerifyTestMain(m)
}

var epoch = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// event is revision rev of an agent: odd revisions online, even ones offline.
func event(id int64, rev uint64) schemas.Event {
	kind, typ, at := schemas.Online, "10", epoch.Add(time.Duration(rev)*time.Second)
	if rev%2 == 0 {
		kind = schemas.Offline
	}
	return schemas.Event{Type: kind, Time: at, Data: schemas.EventData{
		Revision: rev, Reason: schemas.Status, Sweep: rev, Online: rev%2 == 1, Since: at,
		Agent: schemas.Agent{
			AgentID:      id,
			TenantID:     tenant,
			OnlineStatus: int64(rev % 2),
			Type:         &typ,
		},
	}}
}

func complete(sweep uint64) schemas.Watermark {
	at := epoch.Add(time.Duration(sweep) * time.Second)
	return schemas.Watermark{
		Sweep:       sweep,
		StartedAt:   at,
		CompletedAt: at.Add(time.Second),
		StaleAfter:  at.Add(15 * time.Second),
	}
}

// A writer is rollcall's own way of writing a tenant's log.
type writer struct {
	t     testing.TB
	p     *publisher.Publisher
	sweep uint64
}

// newWriter prepares the log at url, and goes on where an earlier writer ended.
func newWriter(t testing.TB, url string, tenant int64) *writer {
	t.Helper()
	p := open(t, url, tenant)
	r, err := p.TakeOver(t.Context(), func(*packed.State) {},
		func(r *publisher.Recovered) (w schemas.Watermark, lapsed bool) {
			if r.Watermark != nil {
				w = *r.Watermark
			}
			return w, false
		})
	if err != nil {
		t.Fatal(err)
	}
	return &writer{t: t, p: p, sweep: r.LastSweep}
}

// open prepares the log at url.
func open(t testing.TB, url string, tenant int64) *publisher.Publisher {
	t.Helper()
	p, err := publisher.Open(t.Context(), natstest.Connect(t, url), publisher.Config{
		Tenant: tenant, Instance: "test", Replicas: 1, Manage: true, EventsMaxAge: time.Hour,
		MaxBytes: 64 << 20, LeaseTTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// commit writes events, and the watermark of the next complete sweep.
func (w *writer) commit(events ...schemas.Event) {
	w.t.Helper()
	w.sweep++
	err := w.p.Commit(w.t.Context(), publisher.Batch{Events: events, Watermark: complete(w.sweep)})
	// the commit is in the log, and so is what the test wrote by other ways
	if errors.Is(err, publisher.ErrTampered) {
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// A follower is a roster that is being filled, and what its reader has been told.
type follower struct {
	*Roster
	t   testing.TB
	nc  *nats.Conn
	end context.CancelFunc
	err chan error // what Run returned

	mu    sync.Mutex
	told  []Update
	read  int      // how many of them have been waited for
	turns []Update // Fresh and Stale
}

// start fills a roster from the first of the urls that can be reached, until the test ends.
func start(t testing.TB, urls ...string) *follower {
	t.Helper()
	nc, err := nats.Connect(
		strings.Join(urls, ","),
		nats.DontRandomize(),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(
			10*time.Millisecond,
		),
		nats.ReconnectJitter(0, 0),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	f := &follower{Roster: New(tenant), t: t, nc: nc, end: end, err: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.err <- f.Run(ctx, js, func(u Update) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if u.Fresh || u.Stale { // depends on what time it is
				f.turns = append(f.turns, u)
				return
			}
			f.told = append(f.told, u)
		})
	}()
	t.Cleanup(func() { end(); <-done })
	return f
}

const patience = 20 * time.Second

// until waits for an update that is as wanted, and returns it with what was told between the one
// before and it.
func (f *follower) until(what string, want func(Update) bool) (u Update, before []Update) {
	f.t.Helper()
	wait.Eventually(f.t, what, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i, told := range f.told[f.read:] {
			if want(told) {
				u, before = told, f.told[f.read:f.read+i]
				f.read += i + 1
				return true
			}
		}
		return false
	})
	return u, before
}

func (f *follower) anew() []Update {
	f.t.Helper()
	_, before := f.until("the states", func(u Update) bool { return u.Anew })
	return before
}

// swept waits for the watermark of a complete sweep.
func (f *follower) swept(sweep uint64) []Update {
	f.t.Helper()
	_, before := f.until(
		fmt.Sprint("the watermark of sweep ", sweep),
		func(u Update) bool { return u.Watermark != nil && u.Watermark.Sweep == sweep },
	)
	return before
}

// holds fails the test where the roster is not exactly this.
func (f *follower) holds(want ...schemas.Event) {
	f.t.Helper()
	got := []schemas.Event{}
	for _, e := range f.Agents() {
		got = append(got, *e)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		f.t.Errorf("the roster (-want +got):\n%s", d)
	}
}

// said is an update in short.
func said(us []Update) (s []string) {
	for _, u := range us {
		switch {
		case u.Anew:
			s = append(s, "anew")
		case u.State != nil && u.Before != nil:
			s = append(
				s,
				fmt.Sprintf(
					"%d: %d to %d",
					u.State.Data.Agent.AgentID,
					u.Before.Data.Revision,
					u.State.Data.Revision,
				),
			)
		case u.State != nil:
			s = append(s, fmt.Sprintf("%d: %d", u.State.Data.Agent.AgentID, u.State.Data.Revision))
		case u.Watermark != nil:
			s = append(s, fmt.Sprintf("sweep %d", u.Watermark.Sweep))
		case u.Health != nil:
			s = append(s, string(u.Health.State))
		case errors.As(u.Err, new(*MessageError)):
			s = append(s, "message error")
		default:
			s = append(s, "error")
		}
	}
	return s
}

func TestStatesThenChanges(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	w := newWriter(t, url, tenant)
	other := newWriter(t, url, tenant+1)
	w.commit(event(1, 1), event(2, 1), event(large, 1), event(1, 2))
	other.commit()

	f := start(t, url)
	if before := f.anew(); len(before) != 0 {
		t.Errorf("told before the states were all read: %q", said(before))
	}
	f.holds(event(1, 2), event(2, 1), event(large, 1))
	if _, ok := f.Agent(large); !ok {
		t.Error("agent 2^53+1 is unknown")
	}
	if _, ok := f.Agent(large - 1); ok {
		t.Error("agent 2^53 is known")
	}

	other.commit(
		schemas.Event{
			Type: schemas.Online,
			Time: epoch,
			Data: schemas.EventData{Revision: 1, Reason: schemas.Status, Online: true,
				Since: epoch, Agent: schemas.Agent{AgentID: 1, TenantID: tenant + 1}},
		},
	)
	w.commit(event(2, 2), event(3, 1))
	w.sweep++
	if err := w.p.Commit(t.Context(), publisher.Batch{Watermark: complete(w.sweep),
		Health: &schemas.Health{State: schemas.HealthHolding, Since: epoch,
			Reason: schemas.MissingMany}}); err != nil {
		t.Fatal(err)
	}
	f.until(
		"the last watermark",
		func(u Update) bool { return u.Watermark != nil && u.Watermark.Sweep == 3 },
	)
	want := []string{"anew", "2: 1 to 2", "3: 1", "sweep 2", "holding", "sweep 3"}
	if d := cmp.Diff(want, said(f.told)); d != "" {
		t.Errorf("told (-want +got):\n%s", d)
	}
	f.holds(event(1, 2), event(2, 2), event(3, 1), event(large, 1))
	for i, u := range f.told {
		if i == 0 && u.Seq != 0 || i > 0 && u.Seq <= f.told[i-1].Seq {
			t.Errorf("update %d has sequence %d", i, u.Seq)
		}
	}
	if h := f.Trust(epoch).Health; h == nil || h.State != schemas.HealthHolding {
		t.Errorf("health is %+v", h)
	}
}

func TestNothingToRead(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	f := start(t, url)
	u, _ := f.until("an error", func(u Update) bool { return u.Err != nil })
	if !errors.Is(u.Err, jetstream.ErrStreamNotFound) ||
		!strings.Contains(u.Err.Error(), "tenant 886") {
		t.Errorf("without a stream: %v", u.Err)
	}
	if err := f.Trust(epoch).Err(); !errors.Is(err, ErrNotRead) {
		t.Errorf("without a stream: %v", err)
	}
	w := newWriter(t, url, tenant) // makes the stream
	f.anew()
	f.holds([]schemas.Event{}...)
	if err := f.Trust(epoch).Err(); !errors.Is(err, ErrNoSweep) {
		t.Errorf("an empty log: %v", err)
	}
	w.commit(event(1, 1))
	f.swept(1)
	f.holds(event(1, 1))
	if err := f.Trust(epoch).Err(); err != nil {
		t.Error(err)
	}
}

// Whatever interrupts reading: it is told, and then the roster is the log's again. The roster stays
// what it was meanwhile.
func TestInterruptions(t *testing.T) {
	t.Parallel()
	for name, interrupt := range map[string]func(t *testing.T) (urls []string,
		do func(f *follower)){
		"the server is restarted": func(t *testing.T) ([]string, func(*follower)) {
			dir := t.TempDir()
			url, stop := natstest.Start(t, dir)
			newWriter(t, url, tenant).commit(event(1, 1), event(2, 1), event(3, 1))
			return []string{url}, func(*follower) {
				stop()
				natstest.StartAt(t, dir, url)
				newWriter(t, url, tenant).commit(event(1, 2), event(4, 1))
			}
		},
		"the connection is lost": func(t *testing.T) ([]string, func(*follower)) {
			url, _ := natstest.Start(t, "")
			w := newWriter(t, url, tenant)
			w.commit(event(1, 1), event(2, 1), event(3, 1))
			return []string{url}, func(f *follower) {
				if err := f.nc.ForceReconnect(); err != nil {
					t.Error(err)
				}
				w.commit(event(1, 2), event(4, 1))
			}
		},
		"the connection is silent": func(t *testing.T) ([]string, func(*follower)) {
			url, _ := natstest.Start(t, "")
			w := newWriter(t, url, tenant)
			w.commit(event(1, 1), event(2, 1), event(3, 1))
			through, silence := proxy(t, url)
			return []string{through}, func(f *follower) {
				silence(true)
				w.commit(event(1, 2), event(4, 1))
				wait.Eventually(t, "an error", func() bool {
					f.mu.Lock()
					defer f.mu.Unlock()
					return f.told[len(f.told)-1].Err != nil
				})
				f.holds(event(1, 1), event(2, 1), event(3, 1))
				silence(false)
			}
		},
		"the consumer is deleted": func(t *testing.T) ([]string, func(*follower)) {
			url, _ := natstest.Start(t, "")
			w := newWriter(t, url, tenant)
			w.commit(event(1, 1), event(2, 1), event(3, 1))
			return []string{url}, func(*follower) {
				s := stream(t, url)
				for name := range s.ConsumerNames(t.Context()).Name() {
					if err := s.DeleteConsumer(t.Context(), name); err != nil {
						t.Error(err)
					}
				}
				w.commit(event(1, 2), event(4, 1))
			}
		},
		"the log begins anew": func(t *testing.T) ([]string, func(*follower)) {
			url, _ := natstest.Start(t, "")
			w := newWriter(t, url, tenant)
			for range 20 {
				w.commit()
			}
			w.commit(event(1, 1), event(2, 1), event(3, 1), event(5, 1))
			return []string{url}, func(*follower) {
				js := jetStream(t, url)
				if err := js.DeleteStream(t.Context(), schemas.Stream); err != nil {
					t.Error(err)
				}
				newWriter(t, url, tenant).commit(event(1, 2), event(2, 1), event(3, 1), event(4, 1))
			}
		},
		"the server comes back with another store": func(t *testing.T) ([]string, func(*follower)) {
			url, stop := natstest.Start(t, "")
			w := newWriter(t, url, tenant)
			for range 20 {
				w.commit()
			}
			w.commit(event(1, 1), event(2, 1), event(3, 1), event(5, 1))
			return []string{url}, func(*follower) {
				stop()
				natstest.StartAt(t, t.TempDir(), url)
				newWriter(t, url, tenant).commit(event(1, 2), event(2, 1), event(3, 1), event(4, 1))
			}
		},
		"another server, another log": func(t *testing.T) ([]string, func(*follower)) {
			first, stop := natstest.Start(t, "")
			second, _ := natstest.Start(t, "")
			newWriter(t, first, tenant).commit(event(1, 7), event(2, 1), event(3, 1), event(5, 1))
			newWriter(t, second, tenant).commit(event(1, 2), event(2, 1), event(3, 1), event(4, 1))
			return []string{first, second}, func(*follower) { stop() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			urls, do := interrupt(t)
			f := start(t, urls...)
			f.anew()
			do(f)
			_, before := f.until("an interruption", func(u Update) bool { return u.Err != nil })
			if len(before) != 0 && name != "the connection is lost" &&
				name != "the consumer is deleted" {
				t.Errorf("told before the interruption: %q", said(before))
			}
			final := []schemas.Event{event(1, 2), event(2, 1), event(3, 1), event(4, 1)}
			f.until("all of the stream, anew", func(u Update) bool { return u.Anew })
			wait.Eventually(
				t,
				"the roster to be the log's",
				func() bool { return len(f.Agents()) == 4 && f.Agents()[0].Data.Revision == 2 },
			)
			f.holds(final...)

			// And it goes on.
			last := urls[len(urls)-1]
			if name == "the connection is silent" {
				return // its writer is still there
			}
			w := newWriter(t, last, tenant)
			w.commit(event(2, 2))
			f.until("a change after the interruption", func(u Update) bool {
				return u.State != nil && u.State.Data.Revision == 2 &&
					u.State.Data.Agent.AgentID == 2
			})
		})
	}
}

func jetStream(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func stream(t testing.TB, url string) jetstream.Stream {
	t.Helper()
	s, err := jetStream(t, url).Stream(t.Context(), schemas.Stream)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// proxy leads to url. While it is silent it takes everything and passes nothing on.
func proxy(t *testing.T, url string) (through string, silence func(bool)) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var silent atomic.Bool
	var mu sync.Mutex
	var conns []net.Conn
	var copies sync.WaitGroup
	pass := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			for silent.Load() && t.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	copies.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, in, out)
			mu.Unlock()
			copies.Go(func() { pass(out, in) })
			copies.Go(func() { pass(in, out) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		copies.Wait()
	})
	return "nats://" + ln.Addr().String(), silent.Store
}

// raw stores bytes under a subject of the stream, as nobody should.
func raw(t *testing.T, js jetstream.JetStream, subject, body string) {
	t.Helper()
	if _, err := js.Publish(t.Context(), schemas.LogPrefix+strings.TrimPrefix(subject,
		schemas.StoredPrefix), []byte(body)); err != nil {
		t.Fatal(err)
	}
}

func encoded(e schemas.Event) string { return string(e.AppendJSON(nil)) }

// What can't be used is told, costs its own agent only, and hinders nothing; before the states are
// all read and after.
func TestUnusable(t *testing.T) {
	t.Parallel()
	other := event(5, 2)
	other.Data.Agent.TenantID++
	for name, c := range map[string]struct{ subject, body string }{
		"no JSON":  {"agent.state.886.5", "{"},
		"no event": {"agent.state.886.5", "{}"},
		"empty":    {"agent.state.886.5", ""},
		"of a later version": {"agent.state.886.5",
			strings.Replace(encoded(event(5, 2)), "agent-event:v1", "agent-event:v2", 1)},
		"about another agent":  {"agent.state.886.5", encoded(event(6, 2))},
		"about another tenant": {"agent.state.886.5", encoded(other)},
		"an odd id":            {"agent.state.886.x", encoded(event(6, 2))},
		"no watermark":         {"agent.watermark.886", "[]"},
		"another's watermark":  {"agent.watermark.886", `{"tenantId":887,"sweep":9}`},
		"no health":            {"agent.health.886", "null"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := natstest.Start(t, "")
			w := newWriter(t, url, tenant)
			w.commit(event(1, 1), event(5, 1))
			js := jetStream(t, url)
			early := start(t, url)
			early.anew()
			raw(t, js, c.subject, c.body)
			late := start(t, url)
			for _, f := range []*follower{early, late} {
				u, _ := f.until("an error", func(u Update) bool { return u.Err != nil })
				var m *MessageError
				if !errors.As(u.Err, &m) || m.Subject != c.subject || m.Seq != u.Seq || m.Seq == 0 {
					t.Fatalf("%v, %+v", u.Err, m)
				}
			}
			late.anew()
			for _, f := range []*follower{early, late} {
				if _, ok := f.Agent(5); ok == (c.subject == "agent.state.886.5") {
					t.Errorf("agent 5 is known: %t", ok)
				}
				if _, ok := f.Agent(1); !ok {
					t.Error("agent 1 is unknown")
				}
			}
			if w := early.Trust(epoch).Watermark; w == nil || w.Sweep != 1 {
				t.Errorf("the watermark is %+v", w)
			}
			if strings.HasPrefix(c.subject, "agent.watermark") {
				return // the writer is fenced out
			}
			raw(t, js, "agent.state.886.5", encoded(event(5, 3)))
			for _, f := range []*follower{early, late} {
				f.until("agent 5", func(u Update) bool { return u.State != nil })
				f.holds(event(1, 1), event(5, 3))
			}
		})
	}
}

// Version 1 may gain optional fields, and reasons are open.
func TestUnknownFieldsAndReasons(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	w := newWriter(t, url, tenant)
	js := jetStream(t, url)
	odd := event(1, 1)
	odd.Data.Reason = "promoted"
	w.commit(odd)
	more := func(s string) string {
		return strings.NewReplacer(`"specversion"`, `"traceparent":"00-1","specversion"`,
			`"revision"`, `"mood":{"a":[1]},"revision"`).
			Replace(s)
	}
	raw(t, js, "agent.state.886.2", more(encoded(event(2, 1))))
	mark := complete(2)
	mark.TenantID = tenant
	raw(
		t,
		js,
		"agent.watermark.886",
		strings.Replace(string(mark.AppendJSON(nil)), `"sweep"`, `"shards":[1,2],"sweep"`, 1),
	)
	raw(
		t,
		js,
		"agent.health.886",
		`{"tenantId":886,"state":"dreaming","since":"2026-11-22T08:00:00.000Z","reason":"tired",`+
			`"detail":"","depth":3}`,
	)
	f := start(t, url)
	if before := f.anew(); len(before) != 0 {
		t.Errorf("told: %q", said(before))
	}
	f.holds(odd, event(2, 1))
	if tr := f.Trust(epoch); tr.Err() != nil || tr.Watermark.Sweep != 2 ||
		tr.Health.State != "dreaming" {
		t.Errorf("%+v, %v", tr, tr.Err())
	}
}

func TestTrust(t *testing.T) {
	t.Parallel()
	w := complete(10) // begun at 10 s, stale after 25 s
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	soon, late := w, w
	soon.NextBy, late.NextBy = at(20*time.Second), at(time.Minute)
	for name, c := range map[string]struct {
		view view
		read bool
		now  time.Time
		age  time.Duration
		want error
	}{
		"not read": {now: at(0), want: ErrNotRead},
		"not read, in spite of it": {view: view{watermark: &w}, now: at(11 * time.Second),
			age: time.Second, want: ErrNotRead},
		"no watermark": {read: true, now: at(0), want: ErrNoSweep},
		"no complete sweep": {view: view{watermark: &schemas.Watermark{
			InProgress: &schemas.InProgress{Sweep: 1}}}, read: true, now: at(0), want: ErrNoSweep},
		"fresh": {view: view{watermark: &w}, read: true,
			now: at(12 * time.Second), age: 2 * time.Second},
		"by clocks that differ": {view: view{watermark: &w}, read: true,
			now: at(9 * time.Second), age: -time.Second},
		"at the border": {view: view{watermark: &w}, read: true, now: w.StaleAfter,
			age: 15 * time.Second},
		"past it": {view: view{watermark: &w}, read: true,
			now: w.StaleAfter.Add(1), age: 15*time.Second + 1, want: ErrStale},
		"nextBy at the border": {view: view{watermark: &soon}, read: true,
			now: soon.NextBy, age: 10 * time.Second},
		"nextBy has passed": {view: view{watermark: &soon}, read: true,
			now: soon.NextBy.Add(1), age: 10*time.Second + 1, want: ErrStale},
		"nextBy after staleAfter": {view: view{watermark: &late}, read: true,
			now: w.StaleAfter.Add(1), age: 15*time.Second + 1, want: ErrStale},
		"in another zone": {view: view{watermark: &w}, read: true,
			now: w.StaleAfter.In(time.FixedZone("", 8*3600)), age: 15 * time.Second},
	} {
		r := &Roster{tenant: tenant, view: c.view, read: c.read}
		got := r.Trust(c.now)
		if got.Age != c.age || !errors.Is(got.Err(), c.want) {
			t.Errorf("%s: age %v, %v", name, got.Age, got.Err())
		}
	}
	if err := (&Roster{view: view{watermark: &w},
		read: true}).Trust(at(time.Minute)).Err(); err.Error() !=
		"the picture is stale: it is as of 2026-11-22T08:00:10Z, and a newer one was due at "+
			"2026-11-22T08:00:25Z" {
		t.Error(err)
	}
}

func TestTenants(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	js := jetStream(t, url)
	ctx, done := context.WithTimeout(t.Context(), patience)
	defer done()
	if got, err := Tenants(ctx, js); !errors.Is(err, jetstream.ErrStreamNotFound) || got != nil {
		t.Errorf("without a stream: %v, %v", got, err)
	}
	open(t, url, 10)
	if got, err := Tenants(ctx, js); err != nil || len(got) != 0 {
		t.Errorf("an empty log: %v, %v", got, err)
	}
	w := newWriter(t, url, 10)
	w.commit()
	newWriter(t, url, 9).commit()
	w.commit()
	if got, err := Tenants(ctx, js); err != nil || !cmp.Equal(got, []int64{9, 10}) {
		t.Errorf("%v, %v", got, err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := Tenants(over, js); !errors.Is(err, context.Canceled) || got != nil {
		t.Errorf("when its time is over: %v, %v", got, err)
	}
}

// A reader that lags sees an agent's revisions in order and in the end the newest one, whatever it
// skips.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	w := newWriter(t, url, tenant)
	w.commit(event(1, 1))
	js := jetStream(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const newest = 1300 // more than a reader has in store
	behind, proceed, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	roster, last, inside := New(tenant), uint64(0), atomic.Int32{}
	go func() {
		done <- roster.Run(ctx, js, func(u Update) {
			if inside.Add(1) != 1 {
				t.Error("two at a time")
			}
			defer inside.Add(-1)
			e, ok := roster.Agent(1)
			switch {
			case u.Anew && last == 0:
				if !ok || e.Data.Revision != 1 {
					t.Error("the roster does not hold what is being told")
				}
				close(behind)
				<-proceed
			case u.Anew: // who lags too far may have to begin anew
			case u.State == nil:
				return
			case u.State != e:
				t.Errorf("told of revision %d, and the roster is at %d", u.State.Data.Revision,
					e.Data.Revision)
			}
			if e.Data.Revision <= last && !u.Anew {
				t.Errorf("revision %d after %d", e.Data.Revision, last)
			}
			if last = e.Data.Revision; last == newest {
				cancel()
			}
		})
	}()
	<-behind
	for rev := uint64(2); rev <= newest; rev++ {
		e := event(1, rev)
		if _, err := js.PublishAsync(schemas.LogPrefix+"state.886.1",
			e.AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	close(proceed)
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Errorf("the reader stays at revision %d", last)
		cancel()
		<-done
	}
}

// States that are replaced while they are being read don't hold up the others.
func TestReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	newWriter(t, url, tenant)
	js := jetStream(t, url)
	raw(t, js, "agent.health.886", "") // read first, so that the reader is told something
	w := newWriter(t, url, tenant)
	const half = 450
	revise := func(rev uint64) {
		for _, from := range []int64{1, 1 + half} {
			var events []schemas.Event
			for id := range int64(half) {
				events = append(events, event(from+id, rev))
			}
			w.commit(events...)
		}
	}
	revise(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first, proceed, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	roster, once := New(tenant), sync.Once{}
	go func() {
		done <- roster.Run(ctx, js, func(u Update) {
			once.Do(func() { close(first); <-proceed })
		})
	}()
	<-first
	revise(2)
	close(proceed)
	wait.Eventually(t, "the states", func() bool { return roster.Trust(epoch).Err() == nil })
	if all := roster.Agents(); len(all) != 2*half {
		t.Errorf("%d agents", len(all))
	}
	for _, e := range roster.Agents() {
		if e.Data.Revision != 2 {
			t.Fatalf("agent %d is at revision %d", e.Data.Agent.AgentID, e.Data.Revision)
		}
	}
	cancel()
	<-done
}

// Whoever looks while the log is being read and written sees a roster that only ever moves on.
func TestMeanwhile(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	w := newWriter(t, url, tenant)
	const agents = 50
	all := func(rev uint64) (events []schemas.Event) {
		for id := range int64(agents) {
			events = append(events, event(id+1, rev))
		}
		return events
	}
	w.commit(all(1)...)
	f := start(t, url)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			var revisions [agents + 1]uint64
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond): // leave some of the processors to the others
				}
				list := f.Agents()
				if len(list) != agents &&
					(len(list) != 0 || f.Trust(epoch).Err() == nil && len(f.Agents()) != agents) {
					t.Errorf("%d agents", len(list))
				}
				for _, e := range list {
					if id := e.Data.Agent.AgentID; e.Data.Revision < revisions[id] {
						t.Errorf(
							"agent %d went back from %d to %d",
							id,
							revisions[id],
							e.Data.Revision,
						)
					} else {
						revisions[id] = e.Data.Revision
					}
				}
				f.Agent(1)
			}
		})
	}
	for rev := uint64(2); rev <= 40; rev++ {
		w.commit(all(rev)...)
		if rev == 20 {
			if err := f.nc.ForceReconnect(); err != nil {
				t.Error(err)
			}
		}
	}
	wait.Eventually(t, "the last revision", func() bool {
		t := f.Trust(epoch)
		return t.Watermark != nil && t.Watermark.Sweep == 40
	})
	close(stop)
	readers.Wait()
	f.holds(all(40)...)
}

func TestEnd(t *testing.T) {
	t.Parallel()
	url, stop := natstest.Start(t, "")
	newWriter(t, url, tenant).commit(event(1, 1))
	ended := func(f *follower, want error) {
		t.Helper()
		select {
		case err := <-f.err:
			if !errors.Is(err, want) {
				t.Errorf("ended with %v, want %v", err, want)
			}
		case <-time.After(patience):
			t.Error("does not end")
		}
		f.holds(event(1, 1)) // stays
	}

	f := start(t, url)
	f.anew()
	f.end()
	ended(f, context.Canceled)

	f = start(t, url)
	f.anew()
	f.nc.Close()
	ended(f, nats.ErrConnectionClosed)

	f = start(t, url)
	f.anew()
	stop()
	f.until("an error", func(u Update) bool { return u.Err != nil })
	f.end()
	ended(f, context.Canceled)
}

// A roster can be filled again.
func TestRunAgain(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	w := newWriter(t, url, tenant)
	w.commit(event(1, 1))
	js, roster := jetStream(t, url), New(tenant)
	for rev := uint64(1); rev <= 3; rev++ {
		ctx, cancel := context.WithCancel(t.Context())
		err := roster.Run(ctx, js, func(Update) { cancel() })
		if e, ok := roster.Agent(1); !errors.Is(err, context.Canceled) || !ok ||
			e.Data.Revision != rev {
			t.Errorf("%v, %+v", err, e)
		}
		w.commit(event(1, rev+1))
	}
}

// No notify is needed.
func TestNobodyToTell(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	newWriter(t, url, tenant).commit(event(1, 1))
	ctx, cancel := context.WithCancel(t.Context())
	roster, done, js := New(tenant), make(chan error, 1), jetStream(t, url)
	go func() { done <- roster.Run(ctx, js, nil) }()
	wait.Eventually(t, "the states", func() bool { return roster.Trust(epoch).Err() == nil })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// All goes through the agents without a copy, by their types, while the roster changes and is used.
func TestAll(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	w := newWriter(t, url, tenant)
	quality, none := event(2, 2), event(4, 1)
	quality.Data.Agent.Type, none.Data.Agent.Type = new(schemas.TypeQuality), nil
	w.commit(event(3, 1), quality, event(1, 1), none)
	raw(t, jetStream(t, url), schemas.StateSubject(tenant, 5), "{}")
	w.commit()
	f := start(t, url)
	f.anew()
	for _, tc := range []struct {
		types []string
		want  []int64
	}{
		{nil, []int64{1, 2, 3, 4}},
		{[]string{schemas.TypeVideo}, []int64{1, 3}},
		{[]string{schemas.TypeQuality, schemas.NoType}, []int64{2, 4}},
		{[]string{schemas.TypePatrol}, nil},
	} {
		var got []int64
		for e := range f.All(tc.types...) {
			got = append(got, e.Data.Agent.AgentID)
		}
		if slices.Sort(got); !slices.Equal(got, tc.want) {
			t.Errorf("of the types %q: %d", tc.types, got)
		}
	}
	seen := map[int64]bool{}
	for e := range f.All() {
		if len(seen) == 0 { // nobody waits for who goes through them
			w.commit(event(1, 3), event(6, 1))
			f.until("another agent", func(u Update) bool {
				return u.State != nil && u.State.Data.Agent.AgentID == 6
			})
		}
		if id := e.Data.Agent.AgentID; seen[id] {
			t.Errorf("agent %d came twice", id)
		} else if seen[id] = true; len(seen) == 4 {
			break
		}
	}
	for id := int64(1); id <= 4; id++ {
		if !seen[id] {
			t.Errorf("agent %d was left out", id)
		}
	}
}

// That the picture is stale, and that it is fresh again, is told without being asked.
func TestFreshAndStale(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	w := newWriter(t, url, tenant)
	swept := func(until time.Duration) {
		t.Helper()
		w.sweep++
		now := time.Now()
		mark := schemas.Watermark{Sweep: w.sweep, StartedAt: now, CompletedAt: now,
			StaleAfter: now.Add(until), NextBy: now.Add(time.Hour)}
		if err := w.p.Commit(t.Context(), publisher.Batch{Watermark: mark}); err != nil {
			t.Fatal(err)
		}
	}
	swept(time.Hour)
	f := start(t, url)
	for i, until := range []time.Duration{0, time.Millisecond, time.Hour} {
		if i > 0 {
			swept(until)
		}
		wait.Eventually(t, "it to be told", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.turns) > i
		})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := cmp.Diff([]Update{{Fresh: true}, {Stale: true}, {Fresh: true}}, f.turns); d != "" {
		t.Error(d)
	}
}

// Read hands over the messages themselves, by consumers of the names that it is given, anew after
// an interruption.
func TestRead(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	w := newWriter(t, url, tenant)
	w.commit(event(1, 1), event(2, 1))
	type message struct {
		reading int
		body    string
		pending uint64
	}
	var mu sync.Mutex
	var got []message
	begun, interruptions, names := 0, 0, 0
	js := jetStream(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Read(ctx, js, Reading{
			Tenant: tenant,
			Consumer: func() string {
				names++
				return fmt.Sprintf("mine-%d", names)
			},
			Begin: func() func(jetstream.Msg, uint64) {
				begun++
				reading := begun
				return func(m jetstream.Msg, pending uint64) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, message{reading, string(m.Data()), pending})
				}
			},
			Interrupted: func(error) {
				mu.Lock()
				defer mu.Unlock()
				interruptions++
			},
		})
	}()
	read := func(n int) {
		t.Helper()
		wait.Eventually(t, fmt.Sprintf("%d messages", n), func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(got) == n
		})
	}
	read(3)
	for name := range stream(t, url).ConsumerNames(t.Context()).Name() {
		if name != "mine-1" {
			t.Errorf("a consumer %s", name)
		}
	}
	if err := stream(t, url).DeleteConsumer(t.Context(), "mine-1"); err != nil {
		t.Fatal(err)
	}
	read(6)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
	if names != 2 || interruptions != 1 {
		t.Errorf("%d consumers and %d interruptions", names, interruptions)
	}
	for i, m := range got {
		if m.reading != 1+i/3 || m.pending != uint64(2-i%3) ||
			i%3 < 2 && m.body != encoded(event(int64(1+i%3), 1)) {
			t.Errorf("message %d is %+v", i, m)
		}
	}
	var mark schemas.Watermark
	if err := json.Unmarshal([]byte(got[2].body), &mark); err != nil {
		t.Fatal(err)
	}
	if tr := NewTrust(&mark, nil, mark.StartedAt.Add(time.Second)); tr.Err() != nil ||
		tr.Age != time.Second {
		t.Errorf("%+v: %v", tr, tr.Err())
	}
	if err := NewTrust(nil, nil, epoch).Err(); !errors.Is(err, ErrNoSweep) {
		t.Error(err)
	}
}
