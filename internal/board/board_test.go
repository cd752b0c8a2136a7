package board

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	tenant   = 886
	patience = 20 * time.Second
	large    = 1<<53 + 1 // beyond what a JavaScript number can hold
	hostile  = "</script><img src=x onerror=alert(1)>\u202e evil \u2028 & \"'"
)

var epoch = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// state is revision rev of an agent: odd ones online, even ones offline; the first is the baseline.
func state(id int64, rev uint64, name string) schemas.Event {
	kind, reason, at, typ := schemas.Online, schemas.Status,
		epoch.Add(time.Duration(rev)*time.Second), "10"
	if rev%2 == 0 {
		kind = schemas.Offline
	}
	if rev == 1 {
		reason = schemas.Baseline
	}
	var notBefore time.Time
	if rev > 1 {
		notBefore = at.Add(-time.Second)
	}
	return schemas.Event{Type: kind, Time: at, Data: schemas.EventData{
		Revision: rev, Reason: reason, Sweep: rev, Online: rev%2 == 1, Since: at,
		NotBefore: notBefore,
		Agent: schemas.Agent{AgentID: id, TenantID: tenant, OnlineStatus: int64(rev % 2),
			Type: &typ, AgentName: &name},
	}}
}

// A rig is a log on a nats-server, who writes it, and a board that is served.
type rig struct {
	t     *testing.T
	dir   string
	url   string
	stop  func() // the nats-server
	w     *publisher.Publisher
	sweep uint64
	board *Board
	srv   *httptest.Server
	end   func() // the board's Run
}

func newRig(t *testing.T, change func(*Config, *paces)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.url, r.stop = natstest.Start(t, r.dir)
	var err error
	r.w, err = publisher.Open(t.Context(), natstest.Connect(t, r.url), publisher.Config{
		Tenant: tenant, Instance: "one", Replicas: 1, Manage: true, EventsMaxAge: time.Hour,
		MaxBytes: 64 << 20, LeaseTTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.w.TakeOver(t.Context(), func(*packed.State) {},
		func(*publisher.Recovered) (w schemas.Watermark, lapsed bool) { return }); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(natstest.Connect(t, r.url))
	if err != nil {
		t.Fatal(err)
	}
	cfg, pace := Config{Tenant: tenant, JetStream: js, Instance: "two"},
		paces{gap: 2 * time.Millisecond, beat: 30 * time.Millisecond, linger: time.Hour,
			stall: patience}
	if change != nil {
		change(&cfg, &pace)
	}
	r.board = New(cfg)
	r.board.paces = pace
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.board.Run(ctx) }()
	r.end = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		ended <- nil
	}
	r.srv = httptest.NewServer(r.board)
	t.Cleanup(func() {
		r.end()
		r.srv.Close() // would hang if a stream went on
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

// commit writes events and the watermark of a complete sweep.
func (r *rig) commit(events ...schemas.Event) {
	r.t.Helper()
	r.sweep++
	at := epoch.Add(time.Duration(r.sweep) * time.Second)
	w := schemas.Watermark{Sweep: r.sweep, StartedAt: at, CompletedAt: at.Add(time.Second),
		StaleAfter: at.Add(15 * time.Second)}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if err := r.w.Commit(ctx, publisher.Batch{Events: events, Watermark: w}); err != nil {
		r.t.Fatal(err)
	}
}

// A told is a message as a page reads it.
type told struct {
	Now    int64
	Begin  bool
	Ready  bool
	Full   int
	Trust  *trust
	Rows   [][]any
	Events []event
}

// A tab is a page that has been opened: its stream.
type tab struct {
	t     *testing.T
	body  io.Closer
	lines *bufio.Scanner
	trust *trust
}

func (r *rig) open() *tab {
	r.t.Helper()
	return openAt(r.t, r.srv.URL)
}

func openAt(t *testing.T, url string) *tab {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); res.Body.Close() })
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("the stream: %s %s", res.Status, got)
	}
	s := bufio.NewScanner(res.Body)
	s.Buffer(nil, 1<<20)
	return &tab{t: t, body: res.Body, lines: s}
}

// next is the next message; false at the end of the stream.
func (p *tab) next() (m told, ok bool) {
	p.t.Helper()
	for p.lines.Scan() {
		data, isData := strings.CutPrefix(p.lines.Text(), "data: ")
		if !isData {
			if p.lines.Text() != "" {
				p.t.Fatalf("a line that is no message: %q", p.lines.Text())
			}
			continue
		}
		d := json.NewDecoder(strings.NewReader(data))
		d.UseNumber()
		if err := d.Decode(&m); err != nil {
			p.t.Fatalf("%v: %s", err, data)
		}
		if m.Trust != nil {
			p.trust = m.Trust
		}
		return m, true
	}
	return m, false
}

// until reads on to a message that is as wanted, and returns it with those before.
func (p *tab) until(what string, want func(told) bool) (m told, before []told) {
	p.t.Helper()
	for {
		m, ok := p.next()
		if !ok {
			p.t.Fatalf("the stream ended (%v) before %s", p.lines.Err(), what)
		}
		if want(m) {
			return m, before
		}
		before = append(before, m)
	}
}

// whole reads the state: the agents by id, from Begin to Ready.
func (p *tab) whole() map[string][]any {
	p.t.Helper()
	m, before := p.until("the beginning", func(m told) bool { return m.Begin })
	for _, b := range before {
		if len(b.Rows) > 0 || len(b.Events) > 0 {
			p.t.Errorf("agents or events before the state: %+v", b)
		}
	}
	agents := map[string][]any{}
	for {
		for _, row := range m.Rows {
			agents[row[0].(string)] = row
		}
		if m.Ready {
			return agents
		}
		var ok bool
		if m, ok = p.next(); !ok {
			p.t.Fatal("the stream ended within the state")
		}
	}
}

func (p *tab) row(id string, revision string) []any {
	p.t.Helper()
	m, _ := p.until("revision "+revision+" of "+id, func(m told) bool {
		return hasRow(m, id, revision)
	})
	return m.Rows[slices.IndexFunc(m.Rows, func(r []any) bool { return r[0] == id })]
}

func hasRow(m told, id, revision string) bool {
	return slices.ContainsFunc(m.Rows, func(r []any) bool {
		return r[0] == id && (len(r) == 1 && revision == "" || len(r) > 8 &&
			fmt.Sprint(r[8]) == revision)
	})
}

func TestStateThenChanges(t *testing.T) {
	r := newRig(t, nil)
	r.commit(state(1, 1, "陈芳"), state(2, 1, "b"), state(large, 1, hostile))
	r.commit(state(2, 2, "b"))
	p := r.open()
	agents := p.whole()
	if len(agents) != 3 {
		t.Fatalf("%d agents: %v", len(agents), agents)
	}
	want := []any{"9007199254740993", hostile, nil, "10", nil, nil, json.Number("1"),
		json.Number(fmt.Sprint(epoch.Add(time.Second).UnixMilli())), json.Number("1"),
		json.Number("1")}
	if d := cmp.Diff(want, agents["9007199254740993"]); d != "" {
		t.Errorf("the row of the agent with the large id:\n%s", d)
	}
	if got := agents["2"][6]; got != json.Number("0") {
		t.Errorf("agent 2 signed out, and its state is %v", got)
	}
	if !p.trust.Reading || p.trust.Self != "two" || p.trust.Watermark.Instance != "one" ||
		p.trust.Watermark.Sweep != 2 ||
		p.trust.Watermark.Until != epoch.Add(17*time.Second).UnixMilli() ||
		p.trust.Health != nil {
		t.Errorf("trust: %+v %+v", p.trust, p.trust.Watermark)
	}

	e := state(1, 2, "陈芳")
	e.Data.Since, e.Data.PreviousSince = e.Time, epoch
	e.Data.Changes = []schemas.Change{{Field: "areaName", From: nil,
		To: json.RawMessage(`"` + strings.Repeat("东", 400) + `"`)},
		{Field: "lastUpdateTimestamp", From: json.RawMessage("1"), To: json.RawMessage("2")},
		{Field: "onlineStatus", From: json.RawMessage("1"), To: json.RawMessage("0")},
		{Field: "ext", To: json.RawMessage(`{"a":1}`)}}
	r.commit(e)
	m, _ := p.until("the event", func(m told) bool { return len(m.Events) > 0 })
	if !hasRow(m, "1", "2") {
		t.Errorf("the event came without its agent's state: %+v", m)
	}
	got := m.Events[0]
	long := strings.Repeat("东", 300) + "…"
	name := "陈芳"
	if d := cmp.Diff(event{ID: "886-1-2", Agent: "1", Name: &name, Type: "agent.offline",
		Reason: "status", Time: e.Time.UnixMilli(), NotBefore: e.Data.NotBefore.UnixMilli(),
		Since: e.Time.UnixMilli(), Previous: epoch.UnixMilli(), AtLeast: true, Revision: 2,
		Changes: [][4]any{{"areaName", nil, long, false}, {"onlineStatus", "1", "0", false}},
	}, got); d != "" {
		t.Errorf("the event:\n%s", d)
	}
	if p.trust.Watermark.Sweep != 3 {
		p.until("the watermark", func(m told) bool {
			return m.Trust != nil && m.Trust.Watermark.Sweep == 3
		})
	}

	// Who comes later gets what has just happened with the state, but no baseline.
	q := r.open()
	q.until("the end of the state", func(m told) bool {
		if m.Ready && (len(m.Events) != 2 || m.Events[0].ID != "886-2-2" ||
			m.Events[1].ID != "886-1-2") {
			t.Errorf("what has just happened: %+v", m.Events)
		}
		return m.Ready
	})
}

// What was only found at a first reading, or while nobody looked, is not told as if it had begun
// then: not in the list, not where the state ends, and not after a later event that hides it.
func TestAtLeast(t *testing.T) {
	at := func(minutes int) time.Time { return epoch.Add(time.Duration(minutes) * time.Minute) }
	event := func(id int64, rev uint64, reason schemas.Reason, minute int) schemas.Event {
		e := state(id, rev, "a")
		e.Time, e.Data.Since, e.Data.Reason = at(minute), at(minute), reason
		e.Data.NotBefore = at(minute).Add(-time.Second)
		return e
	}
	baseline := event(1, 1, schemas.Baseline, 0)
	baseline.Data.NotBefore = time.Time{}
	signedOut := event(1, 2, schemas.Status, 100)
	signedOut.Data.PreviousSince = at(0)
	signedIn := event(1, 3, schemas.Status, 110)
	signedIn.Data.PreviousSince = at(100)
	edited := signedIn
	edited.Type, edited.Data.Reason, edited.Data.Revision = schemas.Updated, schemas.Fields, 4
	edited.Time, edited.Data.PreviousSince = at(120), time.Time{}
	left := event(1, 5, schemas.Removed, 130)
	left.Type, left.Data.Online, left.Data.PreviousSince = schemas.Offline, false, at(110)
	back := event(1, 6, schemas.Appeared, 140)
	back.Type, back.Data.Online, back.Data.PreviousSince = schemas.Online, true, at(130)
	unseen := event(1, 7, schemas.Status, 1000) // nobody looked in the meantime
	unseen.Type, unseen.Data.Online = schemas.Offline, false
	unseen.Data.NotBefore, unseen.Data.PreviousSince = at(150), at(140)

	all := []schemas.Event{baseline, signedOut, signedIn, edited, left, back, unseen}
	state := []bool{true, false, false, false, false, true, true}
	ended := []bool{false, true, false, false, false, false, true}
	var known begun
	for i, e := range all {
		if got := known.endedAtLeast(&e); got != ended[i] {
			t.Errorf("%s, revision %d: the state before lasted at least so long: %t", e.Data.Reason,
				e.Data.Revision, got)
		}
		known = known.after(&e)
		if known.atLeast != state[i] {
			t.Errorf("%s, revision %d: the state lasts at least so long: %t", e.Data.Reason,
				e.Data.Revision, known.atLeast)
		}
	}
	// Who has only the last event knows no more than that.
	for _, e := range []schemas.Event{edited, signedOut} {
		if e.Data.PreviousSince.IsZero() == (begun{}).endedAtLeast(&e) {
			t.Errorf("revision %d: what is not known is said", e.Data.Revision)
		}
	}
	if !(begun{}).after(&edited).atLeast {
		t.Error("an edited agent whose sign-in was not read is said to have begun then")
	}

	// The same from the stream: whoever saw the sign-in remembers it, who comes later does not.
	r := newRig(t, nil)
	r.commit(baseline)
	p := r.open()
	p.whole()
	told := func(row []any) []any { return row[6:] }
	want := func(state int, since time.Time, rev, atLeast int) []any {
		n := func(v any) json.Number { return json.Number(fmt.Sprint(v)) }
		return []any{n(state), n(since.UnixMilli()), n(rev), n(atLeast)}
	}
	r.commit(signedOut)
	p.row("1", "2")
	r.commit(signedIn)
	p.row("1", "3")
	r.commit(edited)
	if d := cmp.Diff(want(on, at(110), 4, 0), told(p.row("1", "4"))); d != "" {
		t.Errorf("after the edit:\n%s", d)
	}
	r.commit(left)
	if d := cmp.Diff(want(removed, at(130), 5, 0), told(p.row("1", "5"))); d != "" {
		t.Errorf("after the removal:\n%s", d)
	}
	gone := baseline // off duty for an hour when it was removed: that is no beginning either
	gone.Data.Agent.AgentID, gone.Data.Revision = 2, 2
	gone.Type, gone.Data.Online, gone.Data.Reason = schemas.Updated, false, schemas.Removed
	gone.Time = at(60)
	found := gone
	found.Time, found.Data.Revision, found.Data.Reason = at(0), 1, schemas.Baseline
	r.commit(found, gone)
	if d := cmp.Diff(want(removed, at(60), 2, 0), told(p.row("2", "2"))); d != "" {
		t.Errorf("after the removal of who was not on duty:\n%s", d)
	}
}

func TestHealth(t *testing.T) {
	r := newRig(t, nil)
	r.commit(state(1, 1, "a"))
	p := r.open()
	p.whole()
	w := schemas.Watermark{Sweep: 1, StartedAt: epoch, CompletedAt: epoch, StaleAfter: epoch}
	if err := r.w.Commit(t.Context(),
		publisher.Batch{Watermark: w, Health: &schemas.Health{State: schemas.HealthFailing,
			Reason: schemas.Credentials, Since: epoch, Detail: "d"}}); err != nil {
		t.Fatal(err)
	}
	m, _ := p.until("the health", func(m told) bool {
		return m.Trust != nil && m.Trust.Health != nil
	})
	if d := cmp.Diff(&health{"failing", "credentials", "d", epoch.UnixMilli()},
		m.Trust.Health); d != "" {
		t.Error(d)
	}
}

// The page gets one time at which the state is stale, and a glance only where it tells something.
func TestWatermark(t *testing.T) {
	at := func(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }
	w := schemas.Watermark{Sweep: 7, StartedAt: at(0), CompletedAt: at(200), StaleAfter: at(800)}
	for name, c := range map[string]struct {
		nextBy, glanced time.Time
		until, shown    int64
	}{
		"nextBy is absent":   {until: at(800).UnixMilli()},
		"nextBy comes first": {nextBy: at(215), until: at(215).UnixMilli()},
		"staleAfter does":    {nextBy: at(801), until: at(800).UnixMilli()},
		"a glance of the sweep": {glanced: at(150), until: at(800).UnixMilli(),
			shown: at(150).UnixMilli()},
		"one before it": {glanced: at(-1), until: at(800).UnixMilli()},
	} {
		w := w
		w.NextBy, w.GlancedAt = c.nextBy, c.glanced
		if got := encodeWatermark(&w); got.Until != c.until || got.GlancedAt != c.shown {
			t.Errorf("%s: %+v, want until %d, glanced %d", name, got, c.until, c.shown)
		}
	}
}

// More agents than fit in a message.
func TestManyAgents(t *testing.T) {
	r := newRig(t, nil)
	var events []schemas.Event
	for id := range int64(2*chunk + 10) {
		events = append(events, state(id+1, 1, "x"))
		if len(events) == 400 {
			r.commit(events...)
			events = nil
		}
	}
	r.commit(events...)
	p := r.open()
	if n := len(p.whole()); n != 2*chunk+10 {
		t.Errorf("%d agents", n)
	}
}

func TestBrokerRestarts(t *testing.T) {
	r := newRig(t, nil)
	r.commit(state(1, 1, "a"), state(2, 1, "b"), state(3, 1, "c"))
	p := r.open()
	p.whole()
	s, err := r.board.cfg.JetStream.Stream(t.Context(), schemas.Stream)
	if err != nil {
		t.Fatal(err)
	}
	// by hand, and nobody is told
	if err := s.Purge(t.Context(), jetstream.WithPurgeSubject(schemas.StateSubject(tenant,
		3))); err != nil {
		t.Fatal(err)
	}
	r.stop()
	p.until("word that the stream can't be read", func(m told) bool {
		return m.Trust != nil && !m.Trust.Reading
	})
	r.stop = natstest.StartAt(t, r.dir, r.url)
	r.commit(state(1, 2, "a"))
	// The page is not sent everything again: the state was as it was but for agent 1.
	m, before := p.until("the change", func(m told) bool { return hasRow(m, "1", "2") })
	for _, b := range append(before, m) {
		if b.Begin || hasRow(b, "2", "1") {
			t.Errorf("an open page was sent what it had: %+v", b)
		}
	}
	if !slices.ContainsFunc(append(before, m), func(m told) bool { return hasRow(m, "3", "") }) {
		p.row("3", "")
	}
	if !p.trust.Reading {
		p.until("word that the stream is read again", func(m told) bool {
			return m.Trust != nil && m.Trust.Reading
		})
	}
}

// An agent whose state can't be used is shown no more, and again when there is one that can.
func TestUnusableState(t *testing.T) {
	r := newRig(t, nil)
	r.commit(state(1, 1, "a"))
	p := r.open()
	p.whole()
	nc := natstest.Connect(t, r.url)
	m := nats.NewMsg("rollcall.log.state.886.1")
	m.Header.Set("Nats-Rollup", "sub")
	m.Data = []byte("{}")
	if err := nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	p.row("1", "")
	if agents := r.open().whole(); len(agents) != 0 {
		t.Errorf("a new page is shown %v", agents)
	}
}

// A page that does not read for a while is told the newest state of every agent once, not each
// change.
func TestSlowPage(t *testing.T) {
	r := newRig(t, func(_ *Config, p *paces) { p.gap = 0 })
	name := strings.Repeat("很", 150)
	r.commit(state(1, 1, name), state(2, 1, name))

	slow := r.open()
	slow.whole()
	const revisions = 20_000 // more than the sockets' buffers hold
	h := r.board.hub
	for rev := uint64(2); rev <= revisions; rev++ { // the stream itself would take minutes
		e := state(1, rev, name)
		h.mu.Lock()
		if before, changed := h.put(&e); changed {
			h.addRecent(&e, before)
		}
		h.mu.Unlock()
		h.flush()
	}
	_, before := slow.until("the newest revision", func(m told) bool {
		return hasRow(m, "1", fmt.Sprint(revisions))
	})
	if len(before) == revisions-2 {
		t.Error("the page was told every revision, so it was never slow")
	}
	last := uint64(1)
	for _, b := range before {
		for _, row := range b.Rows {
			n, _ := row[8].(json.Number).Int64()
			if row[0] == "1" && uint64(n) < last {
				t.Fatalf("revision %d after %d", n, last)
			}
			last = uint64(n)
		}
	}
	h.mu.Lock()
	if len(h.agents) != 2 || len(h.recent) != maxRecent {
		t.Errorf("the board holds %d rows and %d events", len(h.agents), len(h.recent))
	}
	h.mu.Unlock()
}

// A page that takes nothing at all is dropped.
func TestStalledPage(t *testing.T) {
	r := newRig(t, func(_ *Config, p *paces) { p.stall = 200 * time.Millisecond })
	r.commit(state(1, 1, "a"))
	count := func() int {
		r.board.mu.Lock()
		defer r.board.mu.Unlock()
		return r.board.pages
	}
	p := r.open()
	p.whole()
	p.body.Close()
	wait.Eventually(t, "the first page to leave", func() bool { return count() == 0 })
	h := r.board.hub
	h.mu.Lock()
	for id := range int64(30_000) { // more than the sockets' buffers hold
		e := state(id+1, 1, strings.Repeat("很", 190))
		h.put(&e)
	}
	h.mu.Unlock()
	conn, err := net.Dial("tcp", r.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	wait.Eventually(t, "the page to be counted", func() bool { return count() == 1 })
	wait.Eventually(t, "the page to be dropped", func() bool { return count() == 0 })
}

func TestTooManyPages(t *testing.T) {
	r := newRig(t, func(c *Config, _ *paces) { c.MaxPages = 2 })
	r.commit(state(1, 1, "a"))
	first := r.open()
	first.whole()
	r.open().whole()
	third := r.open()
	if m, ok := third.next(); !ok || m.Full != 2 {
		t.Errorf("the third page: %+v %t", m, ok)
	}
	if m, ok := third.next(); ok {
		t.Errorf("the third page goes on: %+v", m)
	}
	first.body.Close()
	wait.Eventually(t, "a place", func() bool {
		m, ok := r.open().next()
		return ok && m.Full == 0
	})
}

// While nobody looks, nothing is read and nothing is kept.
func TestNobodyLooks(t *testing.T) {
	r := newRig(t, func(_ *Config, p *paces) { p.linger = 50 * time.Millisecond })
	r.commit(state(1, 1, "a"))
	consumers := func() int {
		s, err := r.board.cfg.JetStream.Stream(t.Context(), schemas.Stream)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.Consumers
	}
	if n := consumers(); n != 0 {
		t.Errorf("%d consumers before anybody has looked", n)
	}
	p := r.open()
	p.whole()
	if n := consumers(); n != 1 {
		t.Errorf("%d consumers for an open page", n)
	}
	p.body.Close()
	wait.Eventually(t, "the board to forget", func() bool {
		r.board.mu.Lock()
		defer r.board.mu.Unlock()
		return !r.board.following && len(r.board.hub.agents) == 0
	})
	r.commit(state(1, 2, "a"))
	if agents := r.open().whole(); fmt.Sprint(agents["1"][8]) != "2" {
		t.Errorf("who looks again sees %v", agents)
	}
}

// A server's limits on a request and its answer are none on how long a page stays open.
func TestServerTimeouts(t *testing.T) {
	r := newRig(t, nil)
	r.commit(state(1, 1, "a"))
	srv := httptest.NewUnstartedServer(r.board)
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	srv.Start()
	p := openAt(t, srv.URL)
	t.Cleanup(func() { p.body.Close(); srv.Close() })
	p.whole()
	first, _ := p.next()
	p.until("a message after many timeouts", func(m told) bool { return m.Now > first.Now+500 })
}

func TestEndOfRun(t *testing.T) {
	r := newRig(t, nil)
	r.commit(state(1, 1, "a"))
	p := r.open()
	p.whole()
	r.end()
	for {
		if _, ok := p.next(); !ok {
			break
		}
	}
	if err := p.lines.Err(); err != nil {
		t.Errorf("the stream's end: %v", err)
	}
	res, err := http.Get(r.srv.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a page after the end: %s", res.Status)
	}
}

func TestConnectionClosed(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	b := New(Config{Tenant: tenant, JetStream: js})
	_, leave, _ := b.enter()
	defer leave()
	nc.Close()
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(),
		nats.ErrConnectionClosed.Error()) {
		t.Errorf("Run on a closed connection: %v", err)
	}
}

func TestHistory(t *testing.T) {
	r := newRig(t, nil)
	var events []schemas.Event
	for rev := uint64(1); rev <= 70; rev++ {
		e := state(1, rev, hostile)
		e.Data.Changes = []schemas.Change{{Field: "lastUpdateTimestamp", From: json.RawMessage("1"),
			To: json.RawMessage("9007199254740993")}}
		e.Data.PreviousSince = e.Time.Add(-time.Second)
		if rev == 1 {
			e.Data.Changes = nil
		}
		events = append(events, e)
	}
	r.commit(events[:40]...)
	r.commit(events[40:]...)
	r.commit(state(2, 1, "b"), state(11, 1, "c"), state(large, 1, "d"))

	type answer struct {
		Events []event
		More   bool
	}
	ask := func(id string) (a answer) {
		t.Helper()
		res, err := http.Get(r.srv.URL + "/agents/" + id + "/history")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			t.Fatalf("%s: %s", id, res.Status)
		}
		if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := ask("1")
	if len(a.Events) != maxHistory || !a.More || a.Events[0].Revision != 70 ||
		a.Events[maxHistory-1].Revision != 70-maxHistory+1 {
		t.Errorf("%d events from %d to %d, more: %t", len(a.Events), a.Events[0].Revision,
			a.Events[len(a.Events)-1].Revision, a.More)
	}
	if d := cmp.Diff([][4]any{{"lastUpdateTimestamp", "1", "9007199254740993", true}},
		a.Events[0].Changes); d != "" {
		t.Error(d)
	}
	if last := a.Events[0]; last.Previous == 0 || last.AtLeast {
		t.Errorf("a state of which the history has the beginning: %+v", last)
	}
	if a := ask("9007199254740993"); len(a.Events) != 1 || a.More ||
		a.Events[0].Agent != "9007199254740993" {
		t.Errorf("the agent with the large id: %+v", a)
	}
	if a := ask("3"); len(a.Events) != 0 || a.More {
		t.Errorf("an agent that there is not: %+v", a)
	}
	// Of many events, the latest: also where none of them is of the last minutes.
	var many []schemas.Event
	for rev := uint64(1); rev <= maxRead+maxHistory; rev++ {
		many = append(many, state(4, rev, "e"))
	}
	r.commit(many[:maxRead/2]...)
	r.commit(many[maxRead/2 : maxRead]...)
	time.Sleep(300 * time.Millisecond) // the server's time is what they are read by
	r.commit(many[maxRead:]...)
	if a := ask("4"); len(a.Events) != maxHistory || !a.More ||
		a.Events[0].Revision != maxRead+maxHistory {
		t.Errorf("of many events: %d, the latest of revision %d", len(a.Events),
			a.Events[0].Revision)
	}
	for _, id := range []string{"x", "*", "%3E", "01", "1.2", "99999999999999999999", "+1"} {
		res, err := http.Get(r.srv.URL + "/agents/" + id + "/history")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("agent %q: %s", id, res.Status)
		}
	}
}

func TestRequests(t *testing.T) {
	b := New(Config{Tenant: tenant})
	for _, c := range []struct {
		method, target, host, local, fetchSite string
		want                                   int
	}{
		{"GET", "/", "localhost", "", "", 200},
		{"HEAD", "/", "localhost", "", "", 200},
		{"HEAD", "/events", "localhost", "", "", 200},
		{"GET", "/worker.js", "127.0.0.1:8080", "", "", 200},
		{"GET", "/worker.js?build=another", "127.0.0.1:8080", "", "", 200},
		{"GET", "/rollcall/", "127.0.0.1:8080", "", "", 404},
		{"POST", "/nothing", "127.0.0.1:8080", "", "", 405},
		{"GET", "/nothing", "127.0.0.1:8080", "", "", 404},
		{"POST", "/", "localhost", "", "", 405},
		{"PUT", "/events", "localhost", "", "", 405},
		{"DELETE", "/agents/1/history", "localhost", "", "", 405},
		{"GET", "/", "LOCALHOST:80", "127.0.0.1:8080", "", 200},
		{"GET", "/", "[::1]:8080", "[::1]:8080", "", 200},
		{"GET", "/", "127.8.8.8", "127.0.0.1:8080", "", 200},
		{"GET", "/", "evil.example", "127.0.0.1:8080", "", 421},
		{"GET", "/", "evil.example:8080", "[::ffff:127.0.0.1]:8080", "", 421},
		{"GET", "/", "localhost.evil.example", "127.0.0.1:8080", "", 421},
		{"GET", "/", "192.168.1.1", "127.0.0.1:8080", "", 421},
		{"GET", "/", "", "127.0.0.1:8080", "", 421},
		{"GET", "/", "board.example", "192.168.1.1:8080", "", 200},
		{"GET", "/", "localhost", "", "none", 200},
		{"GET", "/", "localhost", "", "cross-site", 403},
		{"GET", "/events", "localhost", "", "cross-site", 403},
		{"HEAD", "/events", "localhost", "", "same-origin", 200},
	} {
		req := httptest.NewRequest(c.method, c.target, nil)
		req.Host = c.host
		if c.fetchSite != "" {
			req.Header.Set("Sec-Fetch-Site", c.fetchSite)
		}
		if c.local != "" {
			addr, err := net.ResolveTCPAddr("tcp", c.local)
			if err != nil {
				t.Fatal(err)
			}
			req = req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, addr))
		}
		w := httptest.NewRecorder()
		b.ServeHTTP(w, req)
		if w.Code != c.want {
			t.Errorf("%+v: %d", c, w.Code)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "Content-Security-Policy": b.site.policy} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%+v: %s: %q", c, name, got)
			}
		}
		if w.Code == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%+v: no Allow", c)
		}
		for code, want := range map[int][]string{
			421: {fmt.Sprintf("%q", c.host), "Host localhost"},
			404: {fmt.Sprintf("%q", c.target), "cut off"},
		} {
			for _, what := range want {
				if w.Code == code && !strings.Contains(w.Body.String(), what) {
					t.Errorf("%+v: the answer lacks %q: %s", c, what, w.Body)
				}
			}
		}
	}
}

func TestLanguages(t *testing.T) {
	b := New(Config{Tenant: tenant})
	for _, c := range []struct{ query, accept, want string }{
		{"", "", "en"},
		{"", "zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"},
		{"", "zh", "zh-CN"},
		{"", "zh-TW", "zh-CN"},
		{"", "de-DE,de;q=0.9,en;q=0.5,zh;q=0.4", "en"},
		{"", "de-DE,zh;q=0.4", "zh-CN"},
		{"", "en;q=0.5, ZH-hans;q=0.6", "zh-CN"},
		{"", "zh,en", "zh-CN"},
		{"", "en,zh", "en"},
		{"", "zh;q=0", "en"},
		{"", "zh;q=x,en;q=0.1", "en"},
		{"", "zhx", "en"},
		{"zh", "en", "zh-CN"},
		{"zh-CN", "en", "zh-CN"},
		{"en", "zh", "en"},
		{"de", "zh", "zh-CN"},
	} {
		req := httptest.NewRequest("GET", "/?lang="+c.query, nil)
		req.Host = "localhost"
		req.Header.Set("Accept-Language", c.accept)
		w := httptest.NewRecorder()
		b.ServeHTTP(w, req)
		if got := w.Header().Get("Content-Language"); got != c.want ||
			!strings.Contains(w.Body.String(), `<html lang="`+c.want+`" `) {
			t.Errorf("%+v: %q", c, got)
		}
		if !slices.Contains(w.Header().Values("Vary"), "Accept-Language") {
			t.Errorf("%+v: Vary is %q", c, w.Header().Values("Vary"))
		}
	}
}

func TestCompressed(t *testing.T) {
	b := New(Config{Tenant: tenant})
	for _, target := range []string{"/", "/worker.js?build=" + b.site.build} {
		get := func(accept string) *httptest.ResponseRecorder {
			req := httptest.NewRequest("GET", target, nil)
			req.Host = "localhost"
			req.Header.Set("Accept-Encoding", accept)
			w := httptest.NewRecorder()
			b.ServeHTTP(w, req)
			return w
		}
		plain, zipped := get("gzip; q=0.0"), get("br, gzip;q=0.5")
		if plain.Header().Get("Content-Encoding") != "" ||
			zipped.Header().Get("Content-Encoding") != "gzip" {
			t.Fatalf("%s: encoded %q and %q", target, plain.Header().Get("Content-Encoding"),
				zipped.Header().Get("Content-Encoding"))
		}
		z, err := gzip.NewReader(zipped.Body)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(z); err != nil || !bytes.Equal(body, plain.Body.Bytes()) {
			t.Errorf("%s: the compressed body is another (%v)", target, err)
		}
	}
}

// The same stream is sent as it is and compressed, the second in far fewer bytes. A page that is
// told all of it and one that joins later can read it to its end.
func TestEventsCompressed(t *testing.T) {
	r := newRig(t, nil)
	var many []schemas.Event
	for id := range int64(400) {
		many = append(many, state(id+1, 1, fmt.Sprintf("王建国 %d", id+1)))
	}
	r.commit(many...)
	type counted struct {
		*tab
		wire *counter
	}
	open := func(encoding string) counted {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.srv.URL+"/events",
			nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", encoding)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		wire := &counter{Reader: res.Body}
		var body io.Reader = wire
		if got := res.Header.Get("Content-Encoding"); got != strings.TrimPrefix(encoding,
			"identity") {
			t.Fatalf("asked for %s, got %q", encoding, got)
		} else if got != "" {
			if body, err = gzip.NewReader(wire); err != nil {
				t.Fatal(err)
			}
		}
		s := bufio.NewScanner(body)
		s.Buffer(nil, 1<<20)
		return counted{&tab{t: t, body: res.Body, lines: s}, wire}
	}
	pages := []counted{open("identity"), open("gzip")}
	for _, p := range pages {
		if got := len(p.whole()); got != len(many) {
			t.Fatalf("%d agents of %d", got, len(many))
		}
	}
	r.commit(state(1, 2, "a"))
	for _, p := range pages {
		p.row("1", "2")
	}
	late := open("gzip")
	if got := late.whole()["1"]; got[8] != json.Number("2") {
		t.Errorf("who joins later is told %v", got)
	}
	pages = append(pages, late)
	r.commit(state(2, 2, "b"))
	for _, p := range pages {
		p.row("2", "2")
	}
	r.end()
	for i, p := range pages {
		for ok := true; ok; {
			_, ok = p.next()
		}
		if err := p.lines.Err(); err != nil {
			t.Errorf("page %d: the end: %v", i, err)
		}
	}
	if plain, zipped := pages[0].wire.n, pages[1].wire.n; zipped > plain/3 {
		t.Errorf("%d bytes compressed, %d not", zipped, plain)
	}
}

// A counter counts what is read.
type counter struct {
	io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// The policy lets the page run what it holds, and nothing else.
func TestPolicy(t *testing.T) {
	b := New(Config{Tenant: tenant})
	for lang, page := range b.site.pages {
		var want strings.Builder
		want.WriteString("default-src 'none'; ")
		for _, c := range []struct{ directive, tag string }{
			{"script-src", `<script type="module">`}, {"style-src", "<style>"},
		} {
			_, rest, ok := strings.Cut(string(page.plain), c.tag)
			inline, rest, closed := strings.Cut(rest, "</"+c.tag[1:len("<style")])
			if !ok || !closed || strings.Contains(rest, c.tag) {
				t.Fatalf("%s: not one %s", lang, c.tag)
			}
			if strings.Contains(inline, "<!--") || strings.Contains(inline, "<script") {
				t.Errorf("%s: a browser reads %s otherwise", lang, c.tag)
			}
			sum := sha256.Sum256([]byte(inline))
			fmt.Fprintf(&want, "%s 'sha256-%s'; ", c.directive,
				base64.StdEncoding.EncodeToString(sum[:]))
		}
		want.WriteString("worker-src 'self'; connect-src 'self'; img-src data:; " +
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		if d := cmp.Diff(want.String(), b.site.policy); d != "" {
			t.Errorf("%s: the policy:\n%s", lang, d)
		}
		for _, bad := range []string{` style="`, "javascript:", "http:", "https:", ` src="/`,
			` href="/`, "url("} {
			if bytes.Contains(page.plain, []byte(bad)) {
				t.Errorf("%s: the page has %q", lang, bad)
			}
		}
		markup := regexp.MustCompile(`(?s)<script.*?</script>`).ReplaceAll(page.plain, nil)
		if found := regexp.MustCompile(`<[^>]* on[a-z]+=`).Find(markup); found != nil {
			t.Errorf("%s: the page has a handler in its markup: %s", lang, found)
		}
	}
	for _, name := range glob(t, "assets/*.js") {
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML",
			"document.write", "eval(", "new Function", "setAttribute('style'"} {
			if bytes.Contains(read(name), []byte(bad)) {
				t.Errorf("%s has %q", name, bad)
			}
		}
	}
}

// A build is told by what pages are made of, and the worker says of which it is.
func TestBuild(t *testing.T) {
	one := newSite(tenant, read)
	for _, name := range append(glob(t, "assets/*.*"), glob(t, "words/*.json")...) {
		other := newSite(tenant, func(asked string) []byte {
			body := read(asked)
			if asked == name {
				body = append(slices.Clone(body), '\n')
			}
			return body
		})
		if other.build == one.build {
			t.Errorf("the build is the same with another %s", name)
		}
		said := fmt.Sprintf("const build = '%s'\n", other.build)
		if !bytes.Contains(other.worker.plain, []byte(said)) ||
			!bytes.Contains(other.pages["en"].plain, []byte(` data-build="`+other.build+`"`)) {
			t.Errorf("%s: the page or the worker does not say its build", name)
		}
	}
}

// What can't be bundled is noticed when the tests run, not by a browser.
func TestBundle(t *testing.T) {
	modules := map[string]string{
		"a":        "import { f, C } from './b.js'\nconst x = 1\nf(C, x)\n",
		"b":        "const x = 2\nexport function f() {}\nexport class C {}\n",
		"missing":  "import { g } from './b.js'\n",
		"default":  "export default 1\n",
		"all":      "import * as b from './b.js'\n",
		"circle":   "import { x } from './circle2.js'\nexport const y = 1\n",
		"circle2":  "import { y } from './circle.js'\nexport const x = 1\n",
		"variable": "export let x = 1\n",
	}
	bundled := func(entry string) (out string, refused any) {
		defer func() { refused = recover() }()
		return string(script(func(name string) []byte {
			return []byte(modules[strings.TrimSuffix(strings.TrimPrefix(name, "assets/"), ".js")])
		}, entry)), nil
	}
	out, refused := bundled("a")
	if d := cmp.Diff("const module_b = (() => {\nconst x = 2\nfunction f() {}\nclass C {}\n\n"+
		"return { f, C }\n})()\nconst module_a = (() => {\nconst { f, C } = module_b\n"+
		"const x = 1\nf(C, x)\n\nreturn {  }\n})()\n", out); d != "" || refused != nil {
		t.Errorf("%v\n%s", refused, d)
	}
	for _, entry := range []string{"missing", "default", "all", "circle", "variable"} {
		if out, refused := bundled(entry); refused == nil {
			t.Errorf("%s is bundled: %s", entry, out)
		}
	}
}

// Both languages have every word that the page uses, with the same holes, and no others.
func TestWords(t *testing.T) {
	en, zh := words(read, "en"), words(read, "zh-CN")
	holes := regexp.MustCompile(`\{\w+\}`)
	for key, word := range en {
		a, b := holes.FindAllString(word, -1), holes.FindAllString(zh[key], -1)
		slices.Sort(a)
		slices.Sort(b)
		if zh[key] == "" || !slices.Equal(a, b) {
			t.Errorf("%s: %q and %q", key, word, zh[key])
		}
	}
	for key := range zh {
		if en[key] == "" {
			t.Errorf("%s is in Chinese only", key)
		}
	}
	used := map[string]bool{}
	// put together from what rollcall says
	dynamic := []string{"state.", "type.", "b.", "h.", "r.", "n.", "f.", "t.verdict."}
	dynamic = append(dynamic, "e.left", "e.deleted", "day.unknown")
	for _, c := range []struct{ file, pattern string }{
		{"assets/*.js", `\bt\((?:[\w.!]+ \? )?'([\w.]+)'`},
		{"assets/*.js", `\bt\([^']*\? '([\w.]+)' : '[\w.]+'`},
		{"assets/*.js", `\bt\([^']*\? '[\w.]+' : '([\w.]+)'`},
		{"assets/page.html", `\.W\.(\w+)`}, {"assets/page.html", `index \.W "([\w.]+)"`},
		{"assets/*.js", `fact\('([\w.]+)'`},
		{"assets/*.js",
			`'(name|account|type|area|capacity|state|since|seenSince|removedAt|csvAtLeast|id|` +
				`revision|ascending|descending)'`},
	} {
		for _, name := range glob(t, c.file) {
			re := regexp.MustCompile(c.pattern)
			for _, m := range re.FindAllStringSubmatch(string(read(name)), -1) {
				used[m[1]] = true
				if en[m[1]] == "" && !slices.Contains(dynamic, m[1]) {
					t.Errorf("%s uses %q, which is no word", name, m[1])
				}
			}
		}
	}
	for key := range en {
		if !used[key] && !slices.ContainsFunc(dynamic,
			func(d string) bool { return strings.HasPrefix(key, d) }) &&
			!strings.HasPrefix(key, "d.") {
			t.Errorf("nobody uses the word %s", key)
		}
	}
	for _, f := range []string{"agentName", "areaName", "capacity", "entityName"} {
		if en["f."+f] == "" {
			t.Errorf("no word for the field %s", f)
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := fs.Glob(files, pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	return names
}
