package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/schemas"
)

const tenant = 886

func config() Config {
	return Config{Tenant: tenant, Instance: "test-1", Replicas: 1, Manage: true,
		EventsMaxAge: time.Hour, MaxBytes: 64 << 20, LeaseTTL: 10 * time.Second}
}

var epoch = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// event is revision rev of an agent: odd revisions online, even ones offline.
func event(id int64, rev uint64) schemas.Event {
	kind, reason := schemas.Online, schemas.Status
	if rev%2 == 0 {
		kind = schemas.Offline
	}
	typ := "10"
	at := epoch.Add(time.Duration(rev) * time.Second)
	return schemas.Event{Type: kind, Time: at, Data: schemas.EventData{
		Revision: rev, Reason: reason, Sweep: rev, Online: rev%2 == 1, Since: at,
		Agent: schemas.Agent{AgentID: id, TenantID: tenant, OnlineStatus: int64(rev % 2),
			Type: &typ},
	}}
}

// complete is the watermark of a complete sweep; 0: of none.
func complete(sweep uint64) schemas.Watermark {
	if sweep == 0 {
		return schemas.Watermark{}
	}
	at := epoch.Add(time.Duration(sweep) * time.Second)
	return schemas.Watermark{Sweep: sweep, StartedAt: at, CompletedAt: at.Add(time.Second),
		StaleAfter: at.Add(15 * time.Second)}
}

func open(t *testing.T, nc *nats.Conn) *Publisher {
	t.Helper()
	p, err := Open(t.Context(), nc, config())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// recovered is a publisher that has read the stream, and what it read.
func recovered(t *testing.T, nc *nats.Conn) (*Publisher, *Recovered, map[int64]uint64) {
	t.Helper()
	p := open(t, nc)
	revisions := make(map[int64]uint64)
	r, err := p.recover(t.Context(), func(s *packed.State) {
		revisions[s.Agent.AgentID()] = s.Revision
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, r, revisions
}

func commit(t *testing.T, p *Publisher, sweep uint64, events ...schemas.Event) {
	t.Helper()
	if err := p.Commit(t.Context(), Batch{Events: events, Watermark: complete(sweep)}); err != nil {
		t.Fatal(err)
	}
}

// logged is every message of the stream, as "subject" or "subject revision".
func logged(t *testing.T, nc *nats.Conn) []string {
	t.Helper()
	js, _ := jetstream.New(nc)
	s, err := js.Stream(t.Context(), schemas.Stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		line := m.Subject
		var e schemas.Event
		if json.Unmarshal(m.Data, &e) == nil {
			line += fmt.Sprint(" ", e.Data.Revision)
		}
		out = append(out, line)
	}
	return out
}

func TestCommit(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	live, err := nc.SubscribeSync("agent.>")
	if err != nil {
		t.Fatal(err)
	}
	p, r, _ := recovered(t, nc)
	if r.Watermark != nil || r.LastSweep != 0 {
		t.Fatalf("an empty stream says %+v", r)
	}
	if err := p.shutOut(t.Context(), r, Batch{Watermark: schemas.Watermark{
		InProgress: &schemas.InProgress{Sweep: 1}}}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 1, event(1, 1), event(2, 1), event(1, 2))
	if err := p.Commit(t.Context(), Batch{Health: &schemas.Health{State: schemas.HealthOK,
		Since: epoch}, Watermark: complete(2)}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 3)
	want := []string{
		"agent.online.886.10.1 1", "agent.online.886.10.2 1", "agent.offline.886.10.1 2",
		"agent.state.886.2 1", "agent.state.886.1 2", "agent.health.886", "agent.watermark.886",
	}
	if got := logged(t, nc); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("the stream holds\n%s\nwant\n%s", strings.Join(got, "\n"),
			strings.Join(want, "\n"))
	}

	// Plain subscribers saw all of it, in order, watermarks included.
	want = []string{
		"agent.watermark.886",
		"agent.online.886.10.1", "agent.online.886.10.2", "agent.offline.886.10.1",
		"agent.state.886.2", "agent.state.886.1", "agent.watermark.886",
		"agent.health.886", "agent.watermark.886", "agent.watermark.886",
	}
	for i, w := range want {
		m, err := live.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatalf("live message %d: %v", i, err)
		}
		if m.Subject != w || m.Header.Get("Nats-Sequence") == "" {
			t.Errorf("live message %d is %s (sequence %q), want %s", i, m.Subject,
				m.Header.Get("Nats-Sequence"), w)
		}
		if strings.HasPrefix(w, "agent.online") &&
			(m.Header.Get("Nats-TTL") != "3600" ||
				m.Header.Get("Content-Type") != schemas.ContentTypeEvent) {
			t.Errorf("headers of %s: %v", w, m.Header)
		}
	}

	_, r, revisions := recovered(t, nc)
	if r.LastSweep != 3 || r.Watermark.Commit.Messages != 1 || r.Watermark.Instance != "test-1" ||
		r.Health.State != schemas.HealthOK || len(revisions) != 2 {
		t.Errorf("recovered %+v, watermark %+v, health %+v", r, r.Watermark, r.Health)
	}
	if revisions[1] != 2 || revisions[2] != 1 {
		t.Errorf("recovered revisions %v", revisions)
	}
}

func TestFence(t *testing.T) {
	url, _ := natstest.Start(t, "")
	first, r, _ := recovered(t, natstest.Connect(t, url))
	if err := first.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	commit(t, first, 1, event(1, 1))
	nc := natstest.Connect(t, url)
	second, r, _ := recovered(t, nc)
	if err := second.shutOut(t.Context(), r, Batch{Watermark: complete(1)}); err != nil {
		t.Fatal(err)
	}
	before := logged(t, nc)
	for name, b := range map[string]Batch{
		"a batch":           {Events: []schemas.Event{event(1, 2)}},
		"a watermark alone": {},
	} {
		if err := first.Commit(t.Context(), b); !errors.Is(err, ErrSuperseded) {
			t.Errorf("%s of the first writer: %v, want %v", name, err, ErrSuperseded)
		}
	}
	if after := logged(t, nc); strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("the first writer changed the stream from %v to %v", before, after)
	}
	commit(t, second, 2, event(1, 2))
}

// Before the first commit after a sleep the stream is looked at: the monotonic clock stood still,
// and the lease may have run out.
func TestLooksAfterSleep(t *testing.T) {
	url, _ := natstest.Start(t, "")
	first, r, _ := recovered(t, natstest.Connect(t, url))
	if err := first.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	commit(t, first, 1, event(1, 1))
	second, r, _ := recovered(t, natstest.Connect(t, url))
	if err := second.shutOut(t.Context(), r, Batch{Watermark: complete(1)}); err != nil {
		t.Fatal(err)
	}
	first.checked = first.checked.Round(0).Add(-time.Hour) // it slept since
	err := first.Commit(t.Context(), Batch{Events: []schemas.Event{event(1, 2)}})
	if !errors.Is(err, ErrSuperseded) || !strings.Contains(err.Error(), "since we last looked") {
		t.Errorf("after an hour's sleep: %v", err)
	}
}

// A commit whose acknowledgement is lost is found in the stream, and not written twice; one that
// never arrived is sent again.
func TestLostAcknowledgement(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		url, _ := natstest.Start(t, "")
		nc := natstest.Connect(t, url)
		p, r, _ := recovered(t, nc)
		if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
			t.Fatal(err)
		}
		var events []schemas.Event
		for i := range n {
			events = append(events, event(int64(i), 1))
		}
		msgs, id := p.messages(Batch{Events: events}, nil)
		// its answer is never looked at
		if _, err := p.send(t.Context(), msgs, ackTimeout); err != nil {
			t.Fatal(err)
		}
		before := logged(t, nc)
		if err := p.commit(t.Context(), msgs, id); err != nil {
			t.Fatalf("%d events: %v", n, err)
		}
		if after := logged(t, nc); strings.Join(before, " ") != strings.Join(after, " ") {
			t.Errorf("%d events: the stream went from %v to %v", n, before, after)
		}
		commit(t, p, 2, event(9, 1))
	}
}

// A watermark that comes after the nextBy of the one before it is late, for its writer and for
// whoever takes over, unless its own commit tells of it. Before any complete sweep none is.
func TestLate(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p, r, _ := recovered(t, nc)
	passed, far := time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	due := func(sweep uint64, nextBy time.Time) Batch {
		w := complete(sweep)
		w.NextBy = nextBy
		return Batch{Watermark: w}
	}
	if err := p.shutOut(t.Context(), r, due(0, passed)); err != nil {
		t.Fatal(err)
	}
	with := func(b Batch, change func(*Batch)) Batch {
		change(&b)
		return b
	}
	interval := func(types ...string) func(*Batch) {
		return func(b *Batch) { b.Unobserved = &schemas.Unobserved{Sweep: 4, Types: types} }
	}
	for _, c := range []struct {
		what         string
		b            Batch
		late, lapsed bool
	}{
		{"the first complete sweep", due(1, far), false, false},
		{"in time", due(2, passed), false, false},
		{"late", due(3, passed), true, true},
		{"late, and told", with(due(4, passed), interval()), false, false},
		{"late, and something else told", with(due(5, far), interval("10")), true, true},
		{"in time, again", due(6, far), false, false},
		{"an earlier one was late",
			with(due(7, far), func(b *Batch) { b.Lapsed = true }), false, true},
		{"in time, with events", with(due(8, passed), func(b *Batch) {
			b.Events = []schemas.Event{event(1, 1)}
		}), false, false},
		{"late, with events", with(due(9, passed), func(b *Batch) {
			b.Events = []schemas.Event{event(1, 2)}
		}), true, true},
	} {
		if err := p.Commit(t.Context(), c.b); err != nil || p.Late() != c.late {
			t.Errorf("%s: %v, late %t", c.what, err, p.Late())
		}
		if _, r, _ := recovered(t, nc); r.Lapsed != c.lapsed {
			t.Errorf("%s: whoever takes over finds lapsed %t, want %t", c.what, r.Lapsed, c.lapsed)
		}
	}
	// The first watermark of whoever takes over.
	p, r, _ = recovered(t, nc)
	if err := p.shutOut(t.Context(), r, due(9, far)); err != nil || !p.Late() {
		t.Errorf("taken over late: %v, late %t", err, p.Late())
	}
	if p, r, _ = recovered(t, nc); !r.Lapsed {
		t.Error("the next one finds no lapse")
	}
	if err := p.shutOut(t.Context(), r, due(9, far)); err != nil || p.Late() {
		t.Errorf("taken over in time: %v, late %t", err, p.Late())
	}
}

// What a sweep ends that nobody could tell goes with its watermark, and is kept as events are.
func TestUnobserved(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p, r, _ := recovered(t, nc)
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 1, event(1, 1))
	at := time.Date(2026, 11, 22, 8, 4, 5, 0, time.UTC)
	u := schemas.Unobserved{From: at, To: at.Add(time.Hour), Sweep: 2,
		Health: schemas.Credentials}
	if err := p.Commit(t.Context(), Batch{Events: []schemas.Event{event(1, 2)}, Unobserved: &u,
		Health: &schemas.Health{State: schemas.HealthOK}, Watermark: complete(2)}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 3, event(1, 3)) // and all that follows leaves it there
	js, _ := jetstream.New(nc)
	s, err := js.Stream(t.Context(), schemas.Stream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), schemas.UnobservedSubject(tenant))
	if err != nil {
		t.Fatal(err)
	}
	u.TenantID = tenant
	if got := string(m.Data); got != string(u.AppendJSON(nil)) ||
		m.Header.Get(jetstream.MsgTTLHeader) == "" ||
		m.Header.Get("Content-Type") != schemas.ContentTypeJSON {
		t.Errorf("it is %s, with %v", got, m.Header)
	}
	id, place := m.Header.Get(jetstreamext.BatchIDHeader), m.Header.Get(jetstreamext.BatchSeqHeader)
	if id == "" || place != "4" { // behind the event, its state, and health
		t.Errorf("it is message %s of the batch %q", place, id)
	}
	// Somebody else's is noticed.
	forge(t, nc, schemas.UnobservedSubject(tenant), string(m.Data))
	if err := p.Commit(t.Context(), Batch{Watermark: complete(4)}); !errors.Is(err, ErrTampered) {
		t.Errorf("a forged one: %v", err)
	}
}

// While the broker is away a commit waits, and goes in when it is back.
func TestBrokerAway(t *testing.T) {
	dir := t.TempDir()
	url, stop := natstest.Start(t, dir)
	nc := natstest.Connect(t, url)
	p, r, _ := recovered(t, nc)
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	stop()
	done := make(chan error, 1)
	go func() {
		done <- p.Commit(context.WithoutCancel(t.Context()),
			Batch{Events: []schemas.Event{event(1, 1)}, Watermark: complete(1)})
	}()
	natstest.StartAt(t, dir, url)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := logged(t, nc); len(got) != 3 {
		t.Errorf("the stream holds %v", got)
	}
}

// purge removes the messages of a subject, as the cut-off end of a store would.
func purge(t *testing.T, nc *nats.Conn, subject string) {
	t.Helper()
	js, _ := jetstream.New(nc)
	s, err := js.Stream(t.Context(), schemas.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), jetstream.WithPurgeSubject(subject)); err != nil {
		t.Fatal(err)
	}
}

// forge stores a message as somebody does who may publish on rollcall.log.
func forge(t *testing.T, nc *nats.Conn, subject, body string) {
	t.Helper()
	m := nats.NewMsg(publishSubject(subject))
	m.Data = []byte(body)
	m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	if _, err := nc.RequestMsg(m, 5*time.Second); err != nil {
		t.Fatal(err)
	}
}

// A store that lost its end: the events of the last commit are there, but neither all states nor
// the watermark.
func TestTornTail(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p, r, _ := recovered(t, nc)
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 1, event(1, 1), event(2, 1))
	commit(t, p, 2, event(1, 2), event(3, 1))
	purge(t, nc, schemas.WatermarkSubject(tenant))
	purge(t, nc, schemas.StateSubject(tenant, 1))
	purge(t, nc, schemas.StateSubject(tenant, 3))
	p, r, revisions := recovered(t, nc)
	if len(r.behind) != 2 || r.LastSweep != 2 || revisions[1] != 2 || revisions[2] != 1 ||
		revisions[3] != 1 {
		t.Fatalf("recovered %v, lacking %d states, last sweep %d", revisions, len(r.behind),
			r.LastSweep)
	}
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	if _, r, revisions = recovered(t, nc); len(r.behind) != 0 || revisions[1] != 2 ||
		revisions[3] != 1 {
		t.Errorf("after the repair: %v, lacking %d states", revisions, len(r.behind))
	}
}

// The watermark of a commit of which a part is missing vouches for nothing.
func TestTornWatermark(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p, r, _ := recovered(t, nc)
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 6, event(1, 1), event(2, 1))
	msgs, _ := p.messages(Batch{Events: []schemas.Event{event(1, 2), event(2, 2)},
		Watermark: complete(7)}, nil)
	torn := []*nats.Msg{msgs[1], msgs[4]} // one of the events, and the watermark
	if _, err := p.send(t.Context(), torn, ackTimeout); err != nil {
		t.Fatal(err)
	}
	p, r, revisions := recovered(t, nc)
	if r.Watermark != nil || r.LastSweep != 7 || revisions[1] != 1 || revisions[2] != 2 {
		t.Fatalf("recovered %+v, %v", r, revisions)
	}
	if err := p.shutOut(t.Context(), r, Batch{Watermark: schemas.Watermark{
		InProgress: &schemas.InProgress{Sweep: 8}}}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 8, event(1, 2))
}

// What was not written by a commit is noticed, and put right from the agents' last events.
func TestForgeries(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p, r, _ := recovered(t, nc)
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 7, event(1, 1), event(2, 1))
	forgery, unreadable := event(1, 1000), "{}"
	for name, act := range map[string]func(){
		"a watermark": func() { forge(t, nc, "agent.watermark.886", "not a watermark") },
		"a state":     func() { forge(t, nc, "agent.state.886.2", unreadable) },
		"an event":    func() { forge(t, nc, forgery.Subject(), string(forgery.AppendJSON(nil))) },
		"a good state": func() {
			forge(t, nc, "agent.state.886.1", string(forgery.AppendJSON(nil)))
		},
		"health": func() { forge(t, nc, "agent.health.886", "ill") },
		"a watermark without times": func() {
			forge(t, nc, "agent.watermark.886",
				`{"tenantId":886,"sweep":5,"commit":{"id":"x","messages":1}}`)
		},
		"a watermark and a state": func() {
			forge(t, nc, "agent.state.886.1", string(forgery.AppendJSON(nil)))
			forge(t, nc, "agent.watermark.886", `{"tenantId":886,"sweep":99}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			act()
			err := p.Commit(t.Context(), Batch{Watermark: complete(8)})
			if !errors.Is(err, ErrSuperseded) && !errors.Is(err, ErrTampered) {
				t.Errorf("the next commit does not notice: %v", err)
			}
			var revisions map[int64]uint64
			p, r, revisions = recovered(t, nc)
			if len(revisions) != 2 || revisions[1] != 1 || revisions[2] != 1 {
				t.Errorf("recovered %v", revisions)
			}
			if strings.HasPrefix(name, "a watermark") &&
				(r.Watermark != nil || r.LastSweep <= 1000) {
				t.Errorf("recovered %+v and sweep %d: sweep numbers would be used again",
					r.Watermark, r.LastSweep)
			}
			if err := p.shutOut(t.Context(), r, Batch{Watermark: complete(8)}); err != nil {
				t.Fatal(err)
			}
			if _, r, _ := recovered(t, nc); len(r.behind) != 0 {
				t.Errorf("%d states still lack", len(r.behind))
			}
			commit(t, p, 9)
		})
	}
}

// Another tenant's commits in between are nobody's business.
func TestTwoTenants(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p, r, _ := recovered(t, nc)
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	cfg := config()
	cfg.Tenant = 887
	other, err := Open(t.Context(), nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = other.recover(t.Context(), func(*packed.State) {}); err != nil {
		t.Fatal(err)
	}
	if err := other.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	for rev := range uint64(3) {
		commit(t, p, rev, event(1, rev+1))
		e := event(1, rev+1)
		e.Data.Agent.TenantID = 887
		commit(t, other, rev, e)
	}
}

// A broker that has lost everything gets its stream and its bucket again.
func TestStreamGone(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p, r, _ := recovered(t, nc)
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 1, event(1, 1))
	js, _ := jetstream.New(nc)
	for _, stream := range []string{schemas.Stream, BucketStream} {
		if err := js.DeleteStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Commit(t.Context(), Batch{Events: []schemas.Event{event(1, 2)}}); !errors.Is(err,
		ErrSuperseded) {
		t.Fatalf("commit without a stream: %v", err)
	}
	again := func() (err error) {
		r, err = p.recover(t.Context(), func(s *packed.State) { t.Errorf("recovered %v", s) })
		return err
	}
	err := again()
	// The server clears a deleted stream's store away in its own time, and refuses to make one of
	// that name meanwhile (10049).
	for deadline := time.Now().Add(10 * time.Second); err != nil &&
		strings.Contains(err.Error(), "10049") && time.Now().Before(deadline); err = again() {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	commit(t, p, 1, event(1, 3))
}

func TestForeignStream(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	js, _ := jetstream.New(nc)
	theirs, err := js.CreateStream(t.Context(),
		jetstream.StreamConfig{Name: schemas.Stream, Subjects: []string{"orders.>"},
			MaxAge: time.Hour, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), nc, config())
	var setup *SetupError
	if !errors.As(err, &setup) {
		t.Fatalf("Open: %v, want a SetupError", err)
	}
	for _, want := range []string{"subjects", "transform", "republish", "discard", "max age",
		"size limit", "atomic publish", "rollup", "message TTL", "direct get", "deny delete"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in the error: %v", want, err)
		}
	}
	info, err := theirs.Info(t.Context())
	if err != nil || info.Config.Subjects[0] != "orders.>" || info.Config.MaxAge != time.Hour {
		t.Errorf("the stream was altered: %+v, %v", info, err)
	}
}

func TestManageFalse(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	cfg := config()
	cfg.Manage = false
	if _, err := Open(t.Context(), nc, cfg); err == nil ||
		!strings.Contains(err.Error(), "Manage") {
		t.Fatalf("Open on an empty server without managing: %v", err)
	}
	js, _ := jetstream.New(nc)
	if _, err := js.Stream(t.Context(), schemas.Stream); !errors.Is(err,
		jetstream.ErrStreamNotFound) {
		t.Fatalf("the stream was created all the same: %v", err)
	}
	open(t, nc)
	if _, err := Open(t.Context(), nc, cfg); err != nil {
		t.Fatalf("Open on what another one has made: %v", err)
	}
}

// What somebody makes by hand may have limits under which rollcall could start, and not work.
func TestLimitsByHand(t *testing.T) {
	url, _ := natstest.Start(t, "")
	js, _ := jetstream.New(natstest.Connect(t, url))
	cfg := config()
	cfg.Manage = false
	look := func(what string) {
		t.Helper()
		_, err := Open(t.Context(), natstest.Connect(t, url), cfg)
		if what == "" && err != nil || what != "" &&
			(!errors.As(err, new(*SetupError)) || !strings.Contains(err.Error(), what)) {
			t.Errorf("Open says %v, want %q", err, what)
		}
	}
	stream := streamConfig(cfg)
	bucket := jetstream.KeyValueConfig{Bucket: schemas.Bucket, LimitMarkerTTL: leaseMarkerTTL}
	put := func() {
		t.Helper()
		_, err := js.CreateOrUpdateStream(t.Context(), stream)
		if err == nil {
			_, err = js.CreateOrUpdateKeyValue(t.Context(), bucket)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put()
	look("")
	bucket.TTL = cfg.LeaseTTL - time.Second
	put()
	look("its TTL is")
	bucket.TTL = cfg.LeaseTTL
	stream.ConsumerLimits.InactiveThreshold = inactive - time.Second
	put()
	look("inactive threshold")
	stream.ConsumerLimits.InactiveThreshold = inactive
	put()
	look("")
}

func TestVersion(t *testing.T) {
	for v, ok := range map[string]bool{
		"2.12.8": true, "2.12.15": true, "2.14.10": true, "2.15.2": true, "2.100.0": true,
		"3.0.0": true, "v2.12.9": true,
		// later than 2.12.8, as semantic versions go
		"2.12.8+build.7": true, "2.13.0-beta": true, "2.12.9-RC.1": true,
		"2.12.7": false, "2.12.0": false, "2.12.8-RC.1": false, "2.12.8-dev": false,
		"v2.12.7": false, "2.11.9": false, "2.2.100": false,
		"1.4.1": false, "2.12": false, "2": false, "": false, "x.y": false, "2.12.x": false,
	} {
		if err := CheckVersion(v); (err == nil) != ok {
			t.Errorf("version %q: %v", v, err)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := config().Validate(); err != nil {
		t.Errorf("a good config: %v", err)
	}
	err := Config{EventsMaxAge: 1500 * time.Millisecond, LeaseTTL: time.Second,
		Replicas: 6}.Validate()
	for _, field := range []string{"Instance", "Replicas", "EventsMaxAge", "LeaseTTL", "MaxBytes"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named: %v", field, err)
		}
	}
}

// A broker that is away while the stream is to be read is no reason to give up.
func TestRecoverWhileAway(t *testing.T) {
	url, stop := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p := open(t, nc)
	stop()
	for nc.IsConnected() {
		time.Sleep(time.Millisecond)
	}
	_, err := p.recover(t.Context(), func(*packed.State) {})
	var setup *SetupError
	if err == nil || errors.As(err, &setup) {
		t.Errorf("Recover without a connection: %v, want an error that may pass", err)
	}
}
