// Package followtest is for tests of what reads rollcall's stream: a NATS server within the test's
// process, and a [Hand] that does to the stream what rollcall does when somebody signs in, leaves
// the listing, or can't be asked. What it publishes is formed, committed and stored by rollcall's
// own code, and the server lets the consumer do what rollcall's embedded server lets readers do. So
// a test takes a fraction of a second, without a vendor, a poll interval or a sleep.
//
//	func TestRouter(t *testing.T) {
//		server := followtest.Start(t)
//		hand := server.Tenant(886)
//		hand.SignIn(17813)
//		… start what is tested, with server.URL()
//		hand.GoStale()
//		… see that it stops routing
//	}
//
// It brings nats-server with it: import it from tests only. Packages schemas and follow do without.
package followtest

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	// fresh is for how long what a Hand publishes is to be trusted: longer than any test takes.
	fresh = time.Hour
	// overdue is how soon it is not, once it went stale.
	overdue = time.Millisecond
	// patience is how long anything may take before the test fails.
	patience = 30 * time.Second
)

// A Server is a NATS server with rollcall's stream, empty at first. It ends with the test. Its
// methods, and those of its Hands, may be called from the test's goroutine only: what fails ends
// the test.
type Server struct {
	t     testing.TB
	cfg   natsd.Config
	srv   *natsd.Server
	hands map[int64]*Hand
}

// Start starts a server on a free port of the loopback interface, with its store in a directory of
// the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, hands: make(map[int64]*Hand),
		cfg: natsd.Config{Listen: "127.0.0.1:0", DataDir: t.TempDir()}}
	s.start()
	t.Cleanup(func() {
		for _, h := range s.hands {
			h.nc.Close()
		}
		s.srv.Shutdown()
	})
	return s
}

func (s *Server) start() {
	s.t.Helper()
	srv, err := natsd.Start(s.cfg)
	if err != nil {
		s.t.Fatalf("followtest: %v", err)
	}
	s.srv = srv
}

// URL is where consumers connect, without credentials: "nats://127.0.0.1:40001". It stays when the
// server is restarted.
func (s *Server) URL() string { return s.srv.ClientURL() }

// Connect connects as any consumer may, and closes the connection when the test ends. It is made
// again for as long as it takes when the server is restarted, unless opts say otherwise.
func (s *Server) Connect(opts ...nats.Option) *nats.Conn {
	s.t.Helper()
	again := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond)}
	nc, err := nats.Connect(s.URL(), append(again, opts...)...)
	if err != nil {
		s.t.Fatalf("followtest: connect to %s: %v", s.URL(), err)
	}
	s.t.Cleanup(nc.Close)
	return nc
}

// Restart ends the server and starts it again at the same address, with what was in the stream. Who
// is connected loses the connection.
func (s *Server) Restart() {
	s.t.Helper()
	at, err := url.Parse(s.URL())
	if err != nil {
		s.t.Fatalf("followtest: %v", err)
	}
	for _, h := range s.hands {
		h.nc.Close()
	}
	s.srv.Shutdown()
	s.cfg.Listen = at.Host
	s.start()
	for _, h := range s.hands {
		h.open()
	}
}

// Tenant returns the hand that writes a tenant's part of the stream; for each tenant there is one.
// At first the stream says that rollcall runs and has not read the whole listing yet.
func (s *Server) Tenant(id int64) *Hand {
	s.t.Helper()
	h := s.hands[id]
	if h == nil {
		h = &Hand{s: s, tenant: id, listed: make(map[int64]schemas.Agent),
			roster: diff.NewRoster(diff.Rules{Quiet: schemas.DefaultQuiet, RemoveAfter: 2,
				MaxMissing: 1})}
		h.open()
		s.hands[id] = h
	}
	return h
}

// A Hand publishes as rollcall does. Each method changes what the vendor's listing shows, sweeps it
// as a whole, and returns when everything that follows from that is in the stream, with a watermark
// that is fresh for an hour. A consumer has it an instant later.
type Hand struct {
	s      *Server
	tenant int64
	nc     *nats.Conn
	pub    *publisher.Publisher
	roster *diff.Roster

	listed map[int64]schemas.Agent // what the listing shows
	number uint64                  // of the last sweep

	reason   schemas.HealthReason // that Health gave last
	reasonAt uint64               // after which sweep
}

// List lists agents, new ones and such as were listed before, which then look as given. Their
// tenant is the hand's, whatever they say. A deleted one (DeleteFlag 1) is removed.
func (h *Hand) List(agents ...schemas.Agent) {
	h.s.t.Helper()
	for _, a := range agents {
		a.TenantID = h.tenant
		h.listed[a.AgentID] = a
	}
	h.Sweep()
}

// SignIn signs agents in. Who is not listed is listed for that, as a video-call agent (type 10)
// with a name and a capacity of 1.
func (h *Hand) SignIn(ids ...int64) { h.s.t.Helper(); h.sign(1, ids) }

// SignOut signs agents out, as SignIn does.
func (h *Hand) SignOut(ids ...int64) { h.s.t.Helper(); h.sign(0, ids) }

func (h *Hand) sign(status int64, ids []int64) {
	h.s.t.Helper()
	for _, id := range ids {
		a, ok := h.listed[id]
		if !ok {
			a = schemas.Agent{AgentID: id, TenantID: h.tenant, Type: new("10"),
				AgentName: new(fmt.Sprintf("Agent %d", id)), Capacity: new(int64(1))}
		}
		a.OnlineStatus = status
		h.listed[id] = a
	}
	h.Sweep()
}

// Remove takes agents out of the listing. They are missing from one sweep, and removed by the next,
// which takes those out too that Miss had taken out before.
func (h *Hand) Remove(ids ...int64) {
	h.s.t.Helper()
	h.Miss(ids...)
	h.Sweep()
}

// Miss takes agents out of the listing for one sweep: the watermark counts them as missing, and
// they are not removed yet. List, SignIn and SignOut bring back those that they name; any further
// sweep removes the others.
func (h *Hand) Miss(ids ...int64) {
	h.s.t.Helper()
	for _, id := range ids {
		if _, ok := h.listed[id]; !ok {
			h.s.t.Fatalf("followtest: agent %d is not listed", id)
		}
		delete(h.listed, id)
	}
	h.Sweep()
}

// Sweep sweeps a listing that has not changed: the next watermark comes, fresh again.
func (h *Hand) Sweep() {
	h.s.t.Helper()
	h.sweep(fresh)
	h.commit(nil, fresh)
}

// GoStale has one more sweep published, whose watermark is overdue at once, and returns when it is:
// from then on nobody knows who is on duty. The next sweep, with any other method but Health, makes
// the picture fresh again, and says with [schemas.Unobserved] from when to when nobody knew.
func (h *Hand) GoStale() {
	h.s.t.Helper()
	h.sweep(overdue)
	w := h.commit(nil, overdue)
	time.Sleep(time.Until(w.TrustedUntil()) + time.Millisecond)
}

// Health publishes how reading the listing fares: [schemas.HealthOK] and no reason, or one of the
// others with its reason. It is not what makes the picture stale; see GoStale.
func (h *Hand) Health(state schemas.HealthState, reason schemas.HealthReason) {
	h.s.t.Helper()
	h.reason, h.reasonAt = reason, h.number
	h.commit(&schemas.Health{TenantID: h.tenant, State: state, Reason: reason,
		Since: schemas.CeilTime(time.Now())}, fresh)
}

// Watermark is the last one in the stream. A consumer that has it, which shows in its Commit, has
// all that the hand has published.
func (h *Hand) Watermark() *schemas.Watermark {
	h.s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w, _, err := h.pub.Watermark(ctx)
	if err != nil || w == nil {
		h.s.t.Fatalf("followtest: read the watermark: %v, %v", w, err)
	}
	return w
}

// LoseStream has the server lose the stream, and rollcall begin it anew, above every revision that
// was used, as it does when a store is lost.
func (h *Hand) LoseStream() {
	h.s.t.Helper()
	js, err := jetstream.New(h.nc)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = js.DeleteStream(ctx, schemas.Stream)
	}
	if err != nil {
		h.s.t.Fatalf("followtest: lose the stream: %v", err)
	}
	for _, other := range h.s.hands {
		other.takeOver()
		other.Sweep()
	}
}

// open connects, and takes the stream over.
func (h *Hand) open() {
	h.s.t.Helper()
	nc, err := h.s.srv.Connect(nats.Name("followtest"))
	if err != nil {
		h.s.t.Fatalf("followtest: connect: %v", err)
	}
	h.nc = nc
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h.pub, err = publisher.Open(ctx, nc, publisher.Config{Tenant: h.tenant, Instance: "followtest",
		Replicas: 1, Manage: true, EventsMaxAge: 7 * 24 * time.Hour, MaxBytes: 1 << 30,
		LeaseTTL: 10 * time.Second})
	if err != nil {
		h.s.t.Fatalf("followtest: %v", err)
	}
	h.takeOver()
}

// takeOver reads what the stream says and writes the first watermark. A stream that was just
// deleted can't be made again at once.
func (h *Hand) takeOver() {
	h.s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		states := make(map[int64]*packed.State)
		var first diff.First
		r, err := h.pub.TakeOver(ctx, func(s *packed.State) { states[s.Agent.AgentID()] = s },
			func(r *publisher.Recovered) (schemas.Watermark, bool) {
				now := time.Now()
				first = diff.TakeOver(states, r.Watermark, r.Lapsed, nil,
					max(r.LastSweep+1, h.number), now, schemas.CeilTime(now.Add(fresh)))
				return first.Watermark, first.Lapsed
			})
		if err == nil {
			h.roster.Load(states, r.Watermark, first.Watermark.LastSweep())
			h.roster.Resume(first)
			h.number = max(h.number, r.LastSweep)
			return
		}
		select {
		case <-ctx.Done():
			h.s.t.Fatalf("followtest: take the stream over: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// sweep reads the listing. The next sweep is overdue when so much time has passed.
func (h *Hand) sweep(overdueIn time.Duration) {
	h.number++
	began := schemas.FloorTime(time.Now())
	var rows []packed.Agent
	for _, id := range slices.Sorted(maps.Keys(h.listed)) {
		a := h.listed[id]
		rows = append(rows, packed.Pack(&a))
	}
	read := schemas.CeilTime(time.Now())
	h.roster.Observe(h.number, &listing.Page{Sent: began, Read: read, Agents: rows,
		Total: len(rows)})
	h.roster.Complete(h.number, &listing.Verdict{Complete: true, StartedAt: began, EndedAt: read,
		Pages: 1, Agents: len(rows)}, read.Add(overdueIn))
}

// commit publishes what has changed, and returns the last watermark.
func (h *Hand) commit(health *schemas.Health, nextIn time.Duration) (last schemas.Watermark) {
	h.s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	fits := func(e *schemas.Event) bool {
		return len(e.AppendJSON(nil)) <= publisher.MaxBody(h.nc)
	}
	for health != nil || !h.roster.Idle() {
		c := h.roster.Next(h.number, publisher.MaxChanges, fits)
		if len(c.TooLarge) > 0 {
			h.s.t.Fatalf("followtest: agents too large for a message: %d", c.TooLarge)
		}
		if c.Empty() && health == nil {
			h.roster.Skip(c)
			continue
		}
		now := time.Now()
		h.roster.Form(c, now, schemas.CeilTime(now.Add(nextIn)))
		if c.Unobserved != nil && h.reasonAt+1 == h.number {
			c.Unobserved.Health = h.reason
		}
		err := h.pub.Commit(ctx, publisher.Batch{Events: c.Events, Health: health,
			Unobserved: c.Unobserved, Watermark: c.Watermark, Lapsed: c.Lapsed})
		if err != nil {
			h.s.t.Fatalf("followtest: %v", err)
		}
		h.roster.Committed(c)
		health, last = nil, c.Watermark
	}
	return last
}
