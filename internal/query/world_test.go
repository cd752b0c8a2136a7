package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = 886

var epoch = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// A world is a server with the stream, into which a test commits, and a clock.
type world struct {
	t   testing.TB
	url string
	nc  *nats.Conn // of the one who asks
	js  jetstream.JetStream
	now atomic.Pointer[time.Time]

	p     *publisher.Publisher
	sweep uint64
	revs  map[int64]uint64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := emptyWorld(t)
	w.open()
	return w
}

// emptyWorld has no stream yet.
func emptyWorld(t *testing.T) *world {
	t.Helper()
	url, _ := natstest.StartOptions(t, &server.Options{MaxPayload: publisher.MinPayload})
	return worldAt(t, url)
}

func worldAt(t testing.TB, url string) *world {
	t.Helper()
	w := &world{t: t, url: url, nc: natstest.Connect(t, url), revs: map[int64]uint64{}}
	var err error
	if w.js, err = jetstream.New(w.nc); err != nil {
		t.Fatal(err)
	}
	w.now.Store(&epoch)
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.p, err = publisher.Open(w.t.Context(), natstest.Connect(w.t, w.url), publisher.Config{
		Tenant: tenant, Instance: "leader", Replicas: 1, Manage: true, EventsMaxAge: time.Hour,
		MaxBytes: 64 << 20, LeaseTTL: 10 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.p.TakeOver(w.t.Context(), func(*packed.State) {},
		func(*publisher.Recovered) (first schemas.Watermark, lapsed bool) {
			return first, false
		})
	if err != nil {
		w.t.Fatal(err)
	}
}

// An option is one thing that is special about an agent.
type option func(*schemas.Event)

func typed(t string) option { return func(e *schemas.Event) { e.Data.Agent.Type = &t } }
func in(area string) option { return func(e *schemas.Event) { e.Data.Agent.AreaName = &area } }
func room(n int64) option   { return func(e *schemas.Event) { e.Data.Agent.Capacity = &n } }
func away(e *schemas.Event) { e.Data.Online, e.Data.Agent.OnlineStatus = false, 0 }
func gone(e *schemas.Event) { away(e); e.Data.Reason = schemas.Removed }
func name(s string) option  { return func(e *schemas.Event) { e.Data.Agent.AgentName = &s } }

// agent is the next event of an agent, who is online unless an option says otherwise.
func (w *world) agent(id int64, options ...option) schemas.Event {
	w.revs[id]++
	e := schemas.Event{Type: schemas.Updated, Time: *w.now.Load(), Data: schemas.EventData{
		Revision: w.revs[id], Reason: schemas.Status, Sweep: w.sweep + 1, Online: true,
		Since: *w.now.Load(), Agent: schemas.Agent{AgentID: id, TenantID: tenant, OnlineStatus: 1}}}
	for _, o := range options {
		o(&e)
	}
	return e
}

// commit writes events, and the watermark of the next complete sweep, which begins now.
func (w *world) commit(events ...schemas.Event) {
	w.t.Helper()
	w.sweep++
	at := *w.now.Load()
	mark := schemas.Watermark{Sweep: w.sweep, StartedAt: at, CompletedAt: at,
		StaleAfter: at.Add(15 * time.Second), NextBy: at.Add(20 * time.Second)}
	for len(events) > publisher.MaxChanges {
		err := w.p.Commit(w.t.Context(), publisher.Batch{Events: events[:publisher.MaxChanges],
			Watermark: mark})
		if err != nil {
			w.t.Fatal(err)
		}
		events = events[publisher.MaxChanges:]
	}
	err := w.p.Commit(w.t.Context(), publisher.Batch{Events: events, Watermark: mark})
	if err != nil {
		w.t.Fatal(err)
	}
}

// replica is a replica that answers until the test ends, or until it is stopped.
func (w *world) replica(instance string, options ...func(*Service)) (s *Service, stop func()) {
	w.t.Helper()
	return w.replicaOf(tenant, instance, options...)
}

func (w *world) replicaOf(tenant int64, instance string, options ...func(*Service)) (
	s *Service, stop func(),
) {
	w.t.Helper()
	nc, err := nats.Connect(w.url) // w.t's end would close it too early
	if err != nil {
		w.t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		w.t.Fatal(err)
	}
	s = New(Config{Tenant: tenant, JetStream: js, Instance: instance, Version: "v1.2.3",
		Now: func() time.Time { return *w.now.Load() }})
	s.patience = wait.Patience
	for _, o := range options {
		o(s)
	}
	second, err := nats.Connect(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	err = errors.Join(s.Answer(nc), s.Refuse(second), nc.Flush(), second.Flush())
	if err != nil { // else the subscriptions are in place
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	closed := nc.StatusChanged(nats.CLOSED)
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		if err := nc.Drain(); err != nil {
			w.t.Error(err)
		}
		<-closed
		second.Close()
	})
	w.t.Cleanup(stop)
	return s, stop
}

// An answer is what a reply may have.
type answer struct {
	AsOf    *schemas.Watermark
	Trusted *bool
	Reason  string
	Agents  json.RawMessage
	Omitted []string
	Next    string

	Online, Capacity *int64
	Types, Areas     map[string]map[string]int64

	body string
}

// ids are the agents of a roster.
func (a *answer) ids(t testing.TB) []int64 {
	t.Helper()
	var events []schemas.Event
	if err := json.Unmarshal(a.Agents, &events); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	ids := []int64{}
	for _, e := range events {
		ids = append(ids, e.Data.Agent.AgentID)
	}
	return ids
}

func parse(t testing.TB, body []byte) *answer {
	t.Helper()
	a := &answer{body: string(body)}
	if err := json.Unmarshal(body, a); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return a
}

// ask asks over NATS, and wants no error.
func (w *world) ask(question, request string) *answer {
	w.t.Helper()
	m := w.request(schemas.QuerySubject(tenant, question), request)
	if len(m.Header) > 0 {
		w.t.Fatalf("%s %s: %v", question, request, m.Header)
	}
	return parse(w.t, m.Data)
}

func (w *world) request(subject, request string) *nats.Msg {
	w.t.Helper()
	m, err := w.nc.Request(subject, []byte(request), wait.Patience)
	if err != nil {
		w.t.Fatalf("%s %s: %v", subject, request, err)
	}
	return m
}

// state is an agent's state as it stands in the stream.
func (w *world) state(id int64) string { return w.last(schemas.StateSubject(tenant, id)) }

func (w *world) last(subject string) string {
	w.t.Helper()
	s, err := w.js.Stream(w.t.Context(), schemas.Stream)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(w.t.Context(), subject)
	if err != nil {
		w.t.Fatal(fmt.Errorf("%s: %w", subject, err))
	}
	return string(m.Data)
}
