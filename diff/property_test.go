package diff

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// What every run must keep: see [machine].
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
		m := newMachine(t, pick)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.step()
		}
		m.finish()
	})
}

// The same from the bytes of a script.
func FuzzRoster(f *testing.F) {
	for seed := range uint64(200) {
		script := make([]byte, 64<<(seed%5))
		rng := rand.New(rand.NewPCG(seed, 1))
		for i := range script {
			script[i] = byte(rng.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 4096 {
			return
		}
		pick := func(n int) int {
			if len(script) == 0 {
				return 0
			}
			b := int(script[0])
			script = script[1:]
			return b % n
		}
		m := newMachine(t, pick)
		for len(script) > 0 {
			m.step()
		}
		m.finish()
	})
}

// A machine is a vendor whose agents change, a roster that reads it, and a stream. It asks pick for
// every decision, holds every answer against the model's, and in the end looks at the stream as a
// whole.
type machine struct {
	t interface {
		Helper()
		Fatalf(string, ...any)
	}
	pick  func(int) int
	rules Rules

	// The vendor.
	now     time.Time
	agents  []schemas.Agent
	listed  []bool
	changed [][]time.Time // when what is significant about an agent changed
	// a complete sweep has every agent that is listed, and clocks never go back
	honest bool

	roster, twin *Roster // the twin is shown the same with the rows in another order
	model        *model
	sweep        uint64
	had          bool
	ends         []sweepEnd
	watermark    schemas.Watermark // the stream's
	log          []schemas.Event
	by           map[int64][]schemas.Event

	home []int // the page on which an agent mostly is

	// What was shown, for the end.
	epoch    int
	complete []shownSweep
	signs    map[int64]map[uint64]bool
	shown    map[uint64]map[int64][]string
}

// A sweepEnd may be published once left observations before it have been.
type sweepEnd struct {
	left      int
	watermark schemas.Watermark
}

type shownSweep struct {
	number   uint64
	epoch    int
	unusable bool
}

func newMachine(t interface {
	Helper()
	Fatalf(string, ...any)
}, pick func(int) int) *machine {
	m := &machine{t: t, pick: pick, now: start, by: make(map[int64][]schemas.Event),
		signs: make(map[int64]map[uint64]bool), shown: make(map[uint64]map[int64][]string)}
	m.honest = pick(2) == 0
	m.rules = Rules{
		RemoveAfter: 1 + pick(3),
		MaxMissing:  []float64{1, 0.5, 0.25, 0}[pick(4)],
		MissingHold: []time.Duration{0, 50 * time.Millisecond, time.Hour}[pick(3)],
	}
	for i := range 2 + pick(5) {
		a := schemas.Agent{AgentID: int64(10 - i), TenantID: tenant, Type: new("10"),
			OnlineStatus: int64(pick(2))}
		m.agents, m.listed = append(m.agents, a), append(m.listed, pick(3) > 0)
		m.signs[a.AgentID] = make(map[uint64]bool)
	}
	m.changed = make([][]time.Time, len(m.agents))
	m.home = make([]int, len(m.agents))
	for i := range m.home {
		m.home[i] = pick(3)
	}
	m.roster, m.twin, m.model = NewRoster(m.rules), NewRoster(m.rules), newModel(m.rules)
	return m
}

func (m *machine) tick() time.Time {
	m.now = m.now.Add(1_700_123 * time.Nanosecond)
	return m.now
}

func (m *machine) step() {
	switch m.pick(12) {
	case 0, 1:
		m.edit()
	case 2, 3, 4, 5, 6, 7:
		m.read()
	case 8:
		m.commit(m.pick(6))
	case 9:
		m.fold()
	case 10:
		m.now = m.now.Add(m.rules.MissingHold/2 + time.Millisecond)
	case 11:
		m.restart()
	}
}

// edit changes something at the vendor's.
func (m *machine) edit() {
	i := m.pick(len(m.agents))
	a := &m.agents[i]
	significant := true
	switch m.pick(13) {
	case 0, 1, 2:
		a.OnlineStatus = 1 - a.OnlineStatus&1
	case 3:
		a.OnlineStatus = 2
	case 4, 5:
		m.listed[i] = !m.listed[i]
	case 6, 7:
		if a.DeleteFlag = new(int64(1)); m.pick(2) == 0 {
			a.DeleteFlag = nil
		}
	case 8:
		a.AgentName = new(strconv.Itoa(m.pick(3)))
	case 9:
		a.AgentSignInTime, significant = new(int64(m.pick(3))), false
	case 10:
		a.Other, significant = nil, false
		if v := m.pick(3); v > 0 {
			a.Other = []schemas.Field{{Name: "mood", Value: json.RawMessage(strconv.Itoa(v))}}
		}
	case 11:
		a.Type = new([]string{"10", "0"}[m.pick(2)])
	case 12:
		if a.Capacity = nil; m.pick(3) > 0 {
			a.Capacity = new(int64(m.pick(5)))
		}
	}
	if m.tick(); significant {
		m.changed[i] = append(m.changed[i], m.now)
	}
}

// polled reports whether the agent is in the listing that is read.
func (m *machine) polled(a *schemas.Agent) bool {
	return len(m.rules.Types) == 0 || slices.Contains(m.rules.Types, *a.Type)
}

// read is a sweep, with whatever can be in one.
func (m *machine) read() {
	m.sweep++
	s := toldSweep{Number: m.sweep, StartedAt: m.tick()}
	complete := m.pick(4) > 0
	calm := m.pick(3) > 0 // nothing happens but by edits
	odd := func(n int) bool { return !calm && m.pick(n) == 0 }
	pages := make([][]int, 3)
	if !calm {
		pages = pages[:1+m.pick(3)]
	}
	for i := range m.agents {
		if !m.honest && odd(6) {
			continue // slips through between two pages
		}
		if odd(3) {
			m.home[i] = m.pick(3)
		}
		k := m.home[i] % len(pages)
		pages[k] = append(pages[k], i)
		if odd(5) && len(pages) > 1 {
			k = (k + 1) % len(pages)
			pages[k] = append(pages[k], i)
		}
	}
	if !m.honest && m.pick(6) == 0 {
		pages = pages[:len(pages)-1] // the listing seems to end early
	}
	type answer struct {
		toldPage
		unidentified int
	}
	for len(pages) > 0 {
		together := pages[:min(1+m.pick(2), len(pages))]
		pages = pages[len(together):]
		var answers []answer
		for range together {
			answers = append(answers,
				answer{toldPage: toldPage{Sweep: m.sweep, Sent: m.tick(), Baseline: !m.had}})
		}
		for k, page := range together {
			if odd(5) {
				m.edit()
			}
			a := &answers[k]
			for _, i := range page {
				row := m.agents[i]
				switch {
				case !m.listed[i] || !m.polled(&row):
				case !odd(8):
					a.Agents = append(a.Agents, packed.Pack(&row))
				case m.pick(3) == 0:
					a.unidentified++
				default:
					a.Rejected = append(a.Rejected, row.AgentID)
				}
			}
		}
		if odd(2) {
			slices.Reverse(answers)
		}
		for _, a := range answers {
			if !complete && m.pick(2) == 0 {
				continue // never arrives
			}
			a.Read = m.tick()
			s.Rejected += len(a.Rejected) + a.unidentified
			s.Unidentified += a.unidentified
			m.page(a.toldPage)
			if odd(4) { // asked for once more, before it had arrived
				again := a.Read.Add(-time.Nanosecond)
				if m.honest { // what it shows may have changed since the first request
					again = a.Sent.Add(time.Nanosecond)
				}
				a.Sent, a.Read = again, m.tick()
				m.page(a.toldPage)
			}
		}
		if m.pick(4) == 0 {
			m.commit(m.pick(4))
		}
	}
	if complete {
		s.EndedAt = m.tick()
		m.end(s)
	}
	if m.pick(2) == 0 {
		m.commit(m.roster.Pending())
	}
}

// readAll is a complete sweep of one page with everything that is listed.
func (m *machine) readAll() (observed int, missing int) {
	m.sweep++
	s := toldSweep{Number: m.sweep, StartedAt: m.tick()}
	p := toldPage{Sweep: m.sweep, Sent: m.tick(), Baseline: !m.had}
	for i, a := range m.agents {
		if m.listed[i] && m.polled(&a) {
			p.Agents = append(p.Agents, packed.Pack(&a))
		}
	}
	before := m.roster.Pending()
	p.Read = m.tick()
	m.page(p)
	s.EndedAt = m.tick()
	missing = m.end(s)
	observed = m.roster.Pending() - before
	m.commit(m.roster.Pending())
	return observed, missing
}

func (m *machine) page(p toldPage) {
	seen := m.shown[p.Sweep]
	if seen == nil {
		seen = make(map[int64][]string)
		m.shown[p.Sweep] = seen
	}
	for i := range p.Agents {
		a := p.Agents[i].Unpack()
		m.signs[a.AgentID][p.Sweep] = true
		seen[a.AgentID] = append(seen[a.AgentID], string(a.AppendJSON(nil)))
	}
	for _, id := range p.Rejected {
		m.signs[id][p.Sweep] = true
	}
	other := p
	other.Agents, other.Rejected = slices.Clone(p.Agents), slices.Clone(p.Rejected)
	rng := rand.New(rand.NewPCG(p.Sweep, uint64(len(p.Agents))))
	rng.Shuffle(len(other.Agents),
		func(i, j int) { other.Agents[i], other.Agents[j] = other.Agents[j], other.Agents[i] })
	slices.Reverse(other.Rejected)
	m.observed(observe(m.roster, p), observe(m.twin, other), m.model.page(p))
}

func (m *machine) end(s toldSweep) (missing int) {
	m.complete = append(m.complete, shownSweep{s.Number, m.epoch, s.Unidentified > 0})
	got, twin := complete(m.roster, s), complete(m.twin, s)
	gone, missing, held := m.model.end(s)
	m.observed(got.Removed, twin.Removed, gone)
	if got.Missing != missing || got.Held != held || got.Suspended != (s.Unidentified > 0) {
		m.t.Fatalf("sweep %d: %d missing, %d held, suspended %t, want %d, %d, %t", s.Number,
			got.Missing, got.Held, got.Suspended, missing, held, s.Unidentified > 0)
	}
	m.had = true
	m.ends = append(m.ends, sweepEnd{m.roster.Pending(), schemas.Watermark{
		Sweep: s.Number, StartedAt: schemas.FloorTime(s.StartedAt),
		CompletedAt: schemas.CeilTime(s.EndedAt), Missing: missing, Rejected: s.Rejected,
		Polled: m.rules.Types}})
	return missing
}

func (m *machine) observed(got, twin []change, want []modelObservation) {
	m.t.Helper()
	same := func(c change, w modelObservation) bool {
		return c.id == w.id && c.sweep == w.sweep && c.baseline == w.baseline &&
			c.notBefore.Equal(w.notBefore) && c.time.Equal(w.time) &&
			(c.agent == "") == (w.row == nil) &&
			(c.agent == "" || gocmp.Equal(objectOf(new(c.agent.Unpack())), w.row))
	}
	if !slices.EqualFunc(got, want, same) {
		m.t.Fatalf("sweep %d: observed\n%+v\nwant %+v", m.sweep, got, want)
	}
	if !slices.EqualFunc(twin, want, same) {
		m.t.Fatalf("sweep %d: in another order, observed\n%+v\nwant %+v", m.sweep, twin, want)
	}
}

// commit publishes the first n of what is pending.
func (m *machine) commit(n int) {
	pending := queued(m.roster, 0)
	n = min(n, len(pending))
	f, twin := commitSome(m.roster, n, all), commitSome(m.twin, n, all)
	var want []wireEvent
	for _, c := range pending[:n] {
		if w, ok := m.model.publish(c.id); ok {
			want = append(want, w)
		}
	}
	if len(f.Events) != len(want) || len(twin.Events) != len(want) || f.LeftOut > 0 {
		m.t.Fatalf("%d events, the twin %d, want %d, left out %d", len(f.Events), len(twin.Events),
			len(want), f.LeftOut)
	}
	for i := range want {
		if d := gocmp.Diff(want[i], wire(&f.Events[i])); d != "" {
			m.t.Fatalf("event (-want +got):\n%s", d)
		}
		if d := gocmp.Diff(want[i], wire(&twin.Events[i])); d != "" {
			m.t.Fatalf("the twin's event (-want +got):\n%s", d)
		}
		id := f.Events[i].Data.Agent.AgentID
		m.log, m.by[id] = append(m.log, f.Events[i]), append(m.by[id], f.Events[i])
	}
	for i := range m.ends {
		m.ends[i].left -= n
	}
	for len(m.ends) > 0 && m.ends[0].left <= 0 {
		m.watermark, m.ends = m.ends[0].watermark, m.ends[1:]
	}

	there, online := 0, 0
	types := make(map[string]schemas.TypeCounts)
	for _, s := range states(m.log) {
		if !s.Removed {
			there++
			online += boolToInt(s.Online)
			agent := s.Agent.Unpack()
			c := types[agent.TypeToken()]
			c.Agents++
			if s.Online {
				c.Online++
				if agent.Capacity != nil {
					c.Capacity += *agent.Capacity
				}
			}
			types[agent.TypeToken()] = c
		}
	}
	if d := gocmp.Diff(types, f.Watermark.Types); d != "" {
		m.t.Fatalf("by type (-want +got):\n%s", d)
	}
	for _, r := range []*Roster{m.roster, m.twin} {
		if d := gocmp.Diff(types, map[string]schemas.TypeCounts(r.Population())); d != "" {
			m.t.Fatalf("by type (-want +got):\n%s", d)
		}
	}
	if a, o := agents(m.roster); a != there || o != online || f.Watermark.Agents != there ||
		f.Watermark.Online != online {
		m.t.Fatalf("%d agents, %d online, formed %+v, want %d, %d", a, o, f.Watermark, there,
			online)
	}
	for _, r := range []*Roster{m.roster, m.twin} {
		if w := r.Watermark(); w.Sweep != m.watermark.Sweep ||
			!w.StartedAt.Equal(m.watermark.StartedAt) || w.Missing != m.watermark.Missing {
			m.t.Fatalf("the watermark is %+v, want %+v", w, m.watermark)
		}
	}
}

// fold folds the oldest pending observation that has a newer one of its agent.
func (m *machine) fold() {
	pending := queued(m.roster, 0)
	for i, c := range pending {
		j := slices.IndexFunc(pending[i+1:], func(n change) bool { return n.id == c.id })
		if j < 0 {
			continue
		}
		j += i + 1
		m.roster.foldOldest(1)
		m.twin.foldOldest(1)
		m.model.fold(c.id)
		// An end in between can't say that everything before it is published.
		m.ends = slices.DeleteFunc(m.ends,
			func(e sweepEnd) bool { return i < e.left && e.left <= j })
		for k := range m.ends {
			if i < m.ends[k].left {
				m.ends[k].left--
			}
		}
		return
	}
}

// restart forgets everything but the stream; or only reads the stream again.
func (m *machine) restart() {
	anew := m.pick(3) > 0
	known := states(m.log)
	m.ends = nil
	if anew {
		m.epoch++
		m.had = m.watermark.Sweep > 0
		if !m.honest {
			m.now = m.now.Add(
				[]time.Duration{time.Second, -100 * time.Millisecond, -time.Hour}[m.pick(3)])
			if m.rules.Types = nil; m.pick(2) == 0 {
				m.rules.Types = []string{"10"}
			}
		}
		m.roster, m.twin = NewRoster(m.rules), NewRoster(m.rules)
		m.model.rules = m.rules
	}
	m.model.read(m.watermark, anew)
	for _, r := range []*Roster{m.roster, m.twin} {
		want := 0
		if anew {
			want = len(known)
		}
		if moved := load(r, known, &m.watermark); len(moved) != want {
			m.t.Fatalf("moved: %v", moved)
		}
	}
}

// finish lets the vendor rest until everything is said, and looks at what was.
func (m *machine) finish() {
	m.commit(m.roster.Pending())
	for range 2 {
		for range m.rules.RemoveAfter {
			m.readAll()
		}
		m.now = m.now.Add(m.rules.MissingHold)
	}
	m.readAll()
	if observed, missing := m.readAll(); observed != 0 || missing != 0 {
		m.t.Fatalf("a snapshot against itself: %d observed, %d missing", observed, missing)
	}
	last := states(m.log)
	for i := range m.agents {
		a := &m.agents[i]
		s := last[a.AgentID]
		switch {
		case m.listed[i] && m.polled(a) && a.There():
			if s == nil || s.Removed ||
				objectOf(new(s.Agent.Unpack())).significant() != objectOf(a).significant() ||
				s.Online != a.Online() {
				m.t.Fatalf("agent %d is %s\npublished %+v", a.AgentID, a.AppendJSON(nil), s)
			}
		case s != nil && !s.Removed && m.polled(new(s.Agent.Unpack())):
			m.t.Fatalf("agent %d is not there, published %+v", a.AgentID, s)
		}
	}
	for i := range m.agents {
		m.checkLog(m.by[m.agents[i].AgentID], m.changed[i])
	}
}

// checkLog looks at all events of an agent.
func (m *machine) checkLog(log []schemas.Event, changed []time.Time) {
	online := false
	for i := range log {
		e := &log[i]
		d := &e.Data
		var prev *schemas.Event
		if i > 0 {
			prev = &log[i-1]
		}
		fail := func(what string) {
			m.t.Helper()
			m.t.Fatalf("%s: %s", what, e.AppendJSON(nil))
		}
		if d.Revision != uint64(i)+1 {
			fail("revisions are not contiguous")
		}
		if (e.Type == schemas.Online) != (d.Online && !online) ||
			(e.Type == schemas.Offline) != (!d.Online && online) {
			fail("online and offline do not alternate")
		}
		if d.NotBefore.After(e.Time) {
			fail("not before a time that has yet to come")
		}
		if prev == nil != (d.Reason == schemas.Baseline || d.Reason == schemas.Appeared &&
			d.Revision == 1) {
			fail("first seen")
		}
		if prev != nil {
			if e.Time.Before(prev.Time) {
				fail("time goes back")
			}
			if flip := d.Online != online; flip &&
				(!d.Since.Equal(e.Time) || !d.PreviousSince.Equal(prev.Data.Since)) ||
				!flip && (!d.Since.Equal(prev.Data.Since) || !d.PreviousSince.IsZero()) {
				fail("since")
			}
			was, err := schemas.Revert(&d.Agent, d.Changes)
			if err != nil ||
				string(was.AppendJSON(nil)) != string(prev.Data.Agent.AppendJSON(nil)) {
				fail("backwards it is not the previous agent")
			}
		} else if len(d.Changes) > 0 || !d.Since.Equal(e.Time) || !d.PreviousSince.IsZero() {
			fail("changes against nothing")
		}
		online = d.Online

		if d.Reason == schemas.Removed && d.Agent.There() {
			m.checkAbsence(e)
		} else if !slices.Contains(m.shown[d.Sweep][d.Agent.AgentID],
			string(d.Agent.AppendJSON(nil))) {
			fail("no sweep has shown this")
		} else if d.Reason != schemas.Removed && d.Online != (d.Agent.OnlineStatus == 1) {
			fail("no sweep has said so")
		}
		// Something did happen in the time that is named. (A state's own time, which a restart
		// falls back to, is no such bound.)
		if m.honest && !d.NotBefore.IsZero() && (prev == nil || !d.NotBefore.Equal(prev.Time)) &&
			!slices.ContainsFunc(changed,
				func(t time.Time) bool { return t.After(d.NotBefore) && !t.After(e.Time) }) {
			fail("nothing happened in that time")
		}
	}
}

// checkAbsence checks that an agent which was removed without saying so was missing from enough
// complete sweeps in a row.
func (m *machine) checkAbsence(e *schemas.Event) {
	id, n := e.Data.Agent.AgentID, 0
	at := slices.IndexFunc(m.complete, func(s shownSweep) bool { return s.number == e.Data.Sweep })
	if at >= 0 {
		epoch, next := m.complete[at].epoch, e.Data.Sweep
		for _, s := range slices.Backward(m.complete[:at+1]) {
			for number := s.number; number <= next; number++ {
				if m.signs[id][number] {
					s.unusable = true
				}
			}
			if s.unusable || s.epoch != epoch {
				break
			}
			next = s.number
			n++
		}
	}
	if n < m.rules.RemoveAfter {
		m.t.Fatalf("agent %d removed in sweep %d, missing from %d complete sweeps in a row only",
			id, e.Data.Sweep, n)
	}
}

func BenchmarkObserve(b *testing.B) {
	const size, page = 10_000, 50
	listing := func(status int64) (pages [][]packed.Agent) {
		for id := range int64(size) {
			if id%page == 0 {
				pages = append(pages, nil)
			}
			a := schemas.Agent{
				AgentID: id, TenantID: tenant, OnlineStatus: status, UserID: new(id),
				AgentCode:    new("d1a9a7d2-8d3c-4f7e-9f43-5c1f0f6f0001"),
				AgentAccount: new("account"),
				AgentName:    new("张伟"),
				Type:         new("10"), AreaName: new("area"), CityID: new(""),
				IsArea: new(int64(1)), Capacity: new(int64(5)), AgentSignInTime: new(id),
				CreatedBy: new(id), CreationTimestamp: new(id), LastUpdateTimestamp: new(id),
				CreationDate:   new("2021-03-23T08:04:54.000+00:00"),
				LastUpdateDate: new("2021-03-23T08:04:54.000+00:00"),
				Other:          []schemas.Field{{Name: "x", Value: json.RawMessage(`"y"`)}},
			}
			pages[len(pages)-1] = append(pages[len(pages)-1], packed.Pack(&a))
		}
		return pages
	}
	offline, online := listing(0), listing(1)
	for _, bc := range []struct {
		name  string
		other [][]packed.Agent
	}{{"unchanged", offline}, {"flipped", online}} {
		b.Run(bc.name, func(b *testing.B) {
			r := NewRoster(Rules{RemoveAfter: 2, MaxMissing: 0.5})
			now, sweep := start, uint64(0)
			read := func(pages [][]packed.Agent) (n int) {
				sweep++
				s := toldSweep{Number: sweep, StartedAt: now}
				for _, p := range pages {
					now = now.Add(time.Millisecond)
					n += len(observe(r, toldPage{Sweep: sweep, Sent: now, Read: now, Agents: p}))
				}
				s.EndedAt = now
				n += len(complete(r, s).Removed)
				commit(r, all)
				return n
			}
			read(offline)
			b.ReportAllocs()
			n, sweeps := 0, 0
			for b.Loop() {
				if sweeps++; sweeps%2 == 1 {
					n += read(bc.other)
				} else {
					n += read(offline)
				}
			}
			if want := map[string]int{"unchanged": 0,
				"flipped": size * sweeps}[bc.name]; n != want {
				b.Fatalf("%d observations, want %d", n, want)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sweeps)/size, "ns/agent")
		})
	}
}
