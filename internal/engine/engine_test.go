package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

const tenant = 886

func config() Config {
	return Config{Tenant: tenant, Interval: 5 * time.Second,
		Rules: diff.Rules{RemoveAfter: 2, MaxMissing: 0.5, MissingHold: 15 * time.Minute,
			BufferEvents: 1000}}
}

// A vendor is a source whose sweeps are scripted: each runs the next script, and the last one for
// ever.
type vendor struct {
	scripts []func(s *sweep) error
	begun   []time.Time
	now     func() time.Time // nil: time.Now
}

type sweep struct {
	ctx  context.Context
	now  func() time.Time
	emit func(*listing.Page)
	ids  map[int64]bool

	listing  int            // of the pages that it reads
	rejected map[string]int // rows of the pages, by reason
}

func (v *vendor) Sweep(ctx context.Context, emit func(*listing.Page)) listing.Verdict {
	now := v.now
	if now == nil {
		now = time.Now
	}
	started := now()
	v.begun = append(v.begun, started)
	script := v.scripts[min(len(v.begun), len(v.scripts))-1]
	s := &sweep{ctx: ctx, now: now, emit: emit, ids: make(map[int64]bool)}
	err := script(s)
	if ctx.Err() != nil {
		err = &listing.Error{Class: listing.Unreachable, Err: ctx.Err()}
	}
	rejected := 0
	for _, n := range s.rejected {
		rejected += n
	}
	return listing.Verdict{Complete: err == nil, Err: err, StartedAt: started, EndedAt: now(),
		Agents:   len(s.ids),
		Rejected: rejected, Rejections: s.rejected}
}

// page reads a page, which takes a tenth of a second.
func (s *sweep) page(agents ...schemas.Agent) {
	sent := s.now()
	s.wait(100 * time.Millisecond)
	page := &listing.Page{Listing: s.listing, Sent: sent}
	for _, a := range agents {
		s.ids[a.AgentID] = true
		page.Agents = append(page.Agents, packed.Pack(&a))
	}
	page.Read = s.now()
	s.emit(page)
}

func (s *sweep) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
}

// listing is a script that reads one page.
func listed(agents ...schemas.Agent) func(*sweep) error {
	return func(s *sweep) error {
		s.page(agents...)
		return nil
	}
}

func failing(class listing.Class) func(*sweep) error {
	return func(*sweep) error { return &listing.Error{Class: class, Err: errors.New("no luck")} }
}

func on(id int64) schemas.Agent {
	return schemas.Agent{AgentID: id, TenantID: tenant, OnlineStatus: 1}
}
func off(id int64) schemas.Agent { return schemas.Agent{AgentID: id, TenantID: tenant} }

// A memory is a stream that keeps its commits in memory.
type memory struct {
	commits []publisher.Batch
	at      []time.Time
	gate    func(context.Context) error // called before each commit; nil: open
	foreign []schemas.Event             // events of another writer, put in before the next commit
	lost    bool                        // another replica has the lease
	slow    time.Duration               // how long it takes to be taken over
	now     func() time.Time            // the server's clock; nil: time.Now
	late    map[int]bool                // commits that came late, and do not say so
}

func (m *memory) Late() bool { return m.late[len(m.commits)-1] }

func (m *memory) store(b publisher.Batch) {
	now := time.Now
	if m.now != nil {
		now = m.now
	}
	n := len(m.commits)
	if n > 0 {
		last := m.commits[n-1].Watermark
		if m.late == nil {
			m.late = make(map[int]bool)
		}
		tells := b.Unobserved != nil && len(b.Unobserved.Types) == 0
		m.late[n] = last.Sweep > 0 && !tells && !last.NextBy.IsZero() && now().After(last.NextBy)
	}
	m.commits, m.at = append(m.commits, b), append(m.at, time.Now())
}

func (m *memory) TakeOver(_ context.Context, state func(*packed.State),
	first func(*publisher.Recovered) (w schemas.Watermark, lapsed bool),
) (*publisher.Recovered, error) {
	r := &publisher.Recovered{}
	for n, b := range m.commits {
		for i := range b.Events {
			state(packed.StateOf(&b.Events[i]))
		}
		w := b.Watermark
		r.Lapsed = b.Lapsed || m.late[n]
		r.Watermark, r.LastSweep = &w, max(r.LastSweep, w.LastSweep())
		if b.Health != nil {
			r.Health = b.Health
		}
	}
	w, lapsed := first(r)
	if m.lost {
		return nil, publisher.ErrLeaseLost
	}
	time.Sleep(m.slow)
	m.store(publisher.Batch{Watermark: w, Lapsed: lapsed})
	return r, nil
}

func (m *memory) Commit(ctx context.Context, b publisher.Batch) error {
	if m.gate != nil {
		if err := m.gate(ctx); err != nil {
			return err
		}
	}
	if m.foreign != nil {
		m.store(publisher.Batch{Events: m.foreign})
		m.foreign = nil
		return publisher.ErrSuperseded
	}
	m.store(b)
	return nil
}

// theirs is the event that another writer makes of an agent, after its last one (nil: none).
func theirs(last *schemas.Event, a schemas.Agent, sweep uint64, at time.Time) schemas.Event {
	r := diff.NewRoster(diff.Rules{})
	states := make(map[int64]*packed.State)
	if last != nil {
		states[a.AgentID] = packed.StateOf(last)
	}
	r.Load(states, &schemas.Watermark{Sweep: 1, StartedAt: at}, 1)
	r.Observe(sweep, &listing.Page{Sent: at, Read: at, Agents: []packed.Agent{packed.Pack(&a)}})
	return r.Next(sweep, 1, func(*schemas.Event) bool { return true }).Events[0]
}

// story tells the commits, one a line: the events, the health, the watermark. Whether the end of a
// sweep goes into the commit of what was read last or into one of its own, at the same instant, is
// the scheduler's business: both are told as the one.
func (m *memory) story() string {
	var lines []string
	var last publisher.Batch             // of what was read last
	preset := len(m.commits) - len(m.at) // commits that were there before
	for i, b := range m.commits {
		b.Events = append(last.Events, b.Events...)
		b.Health = cmp.Or(b.Health, last.Health)
		last = publisher.Batch{}
		if of := b.Watermark.InProgress; of != nil && len(b.Events) > 0 && i >= preset &&
			i+1 < len(m.commits) &&
			m.at[i-preset].Equal(m.at[i+1-preset]) && m.commits[i+1].Watermark.Sweep == of.Sweep {
			last = b
			continue
		}
		var parts []string
		for _, e := range b.Events {
			parts = append(parts,
				fmt.Sprintf("%s:%d/%d(%s)", strings.TrimPrefix(string(e.Type), "agent."),
					e.Data.Agent.AgentID, e.Data.Revision, e.Data.Reason))
		}
		if b.Health != nil {
			parts = append(parts,
				strings.TrimSuffix(fmt.Sprintf("%s:%s", b.Health.State, b.Health.Reason), ":"))
		}
		w := b.Watermark
		mark := fmt.Sprintf("[%d %d/%d", w.Sweep, w.Online, w.Agents)
		if w.Missing > 0 {
			mark += fmt.Sprintf(" -%d", w.Missing)
		}
		if w.InProgress != nil {
			mark += fmt.Sprintf(" +%d", w.InProgress.Sweep)
		}
		lines = append(lines, strings.Join(append(parts, mark+"]"), " "))
	}
	return strings.Join(lines, "\n")
}

// last returns an agent's last event.
func (m *memory) last(agent int64) (last schemas.Event) {
	for _, b := range m.commits {
		for _, e := range b.Events {
			if e.Data.Agent.AgentID == agent {
				last = e
			}
		}
	}
	return last
}

// play runs an engine for d in a bubble of virtual time.
func play(t *testing.T, cfg Config, v *vendor, m *memory, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return New(cfg, v, m).Run(ctx)
}

func wantStory(t *testing.T, m *memory, want ...string) {
	t.Helper()
	if got := m.story(); got != strings.Join(want, "\n") {
		t.Errorf("the stream says\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// Whoever loses the lease while it ends says how much it did not get to publish.
func TestLeaseLostInGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, begun := &memory{}, time.Now()
		ctx, stop := context.WithCancel(t.Context())
		m.gate = func(work context.Context) error {
			if time.Since(begun) < 5*time.Second { // before the second sweep
				return nil
			}
			stop()
			select {
			case <-work.Done():
				return work.Err()
			case <-time.After(2 * time.Second):
				m.lost = true
				return publisher.ErrSuperseded
			}
		}
		v := &vendor{scripts: []func(*sweep) error{listed(off(1), off(2)), listed(on(1), on(2))}}
		err := New(config(), v, m).Run(ctx)
		var unpublished *UnpublishedError
		if !errors.As(err, &unpublished) || unpublished.Changes != 2 {
			t.Errorf("it ends with %v, and the stream says\n%s", err, m.story())
		}
	})
}

func TestWatermarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		v := &vendor{scripts: []func(*sweep) error{
			func(s *sweep) error { s.page(on(1), off(2)); s.page(off(3)); return nil },
			listed(on(1), off(2), off(3)), // nothing new
			func(s *sweep) error { // incomplete: what it read counts, and the rest means nothing
				s.page(on(1), on(2))
				return &listing.Error{Class: listing.Inconsistent, Err: errors.New("torn")}
			},
			listed(on(1), on(2)), // misses 3
			listed(on(1), on(2), off(4)),
		}}
		if err := play(t, config(), v, m, 24*time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m,
			"[0 0/0 +1]", // take-over
			"online:1/1(baseline) updated:2/1(baseline) [0 1/2 +1]",
			"updated:3/1(baseline) ok [1 1/3]",
			"[2 1/3]",
			"online:2/2(status) [2 2/3 +3]",
			"[4 2/3 -1]",
			"updated:4/1(appeared) updated:3/2(removed) [5 2/3]",
		)
		for i, begun := range v.begun {
			if want := v.begun[0].Add(time.Duration(i) * 5 * time.Second); !begun.Equal(want) {
				t.Errorf("sweep %d began at %v, want %v", i+1, begun, want)
			}
		}
		w := m.commits[slices.IndexFunc(m.commits,
			func(b publisher.Batch) bool { return b.Watermark.Sweep == 2 })].Watermark
		if w.CompletedAt.Sub(w.StartedAt) != 100*time.Millisecond ||
			w.StaleAfter.Sub(w.CompletedAt) != 15*time.Second {
			t.Errorf("times of the watermark: %+v", w)
		}
	})
}

// A change is in the stream while the sweep is still under way, and a sweep longer than the
// interval is followed by the next at once.
func TestChangesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		v := &vendor{scripts: []func(*sweep) error{
			func(s *sweep) error {
				s.page(on(1))
				s.wait(10 * time.Second)
				s.page(on(2))
				return nil
			},
		}}
		if err := play(t, config(), v, m, 12*time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "online:1/1(baseline) [0 1/1 +1]",
			"online:2/1(baseline) ok [1 2/2]")
		if delay := m.at[1].Sub(v.begun[0]); delay != 100*time.Millisecond {
			t.Errorf("the first change was committed %v after the sweep began, want at once "+
				"when its page was read", delay)
		}
		if gap := v.begun[1].Sub(v.begun[0]); gap != 10200*time.Millisecond {
			t.Errorf("the second sweep began %v after the first", gap)
		}
	})
}

// What is observed while a commit is on its way goes into the next one, as one commit.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{gate: func(context.Context) error { time.Sleep(time.Second); return nil }}
		v := &vendor{scripts: []func(*sweep) error{func(s *sweep) error {
			for id := range int64(5) {
				s.page(on(id + 1))
			}
			return nil
		}}}
		if err := play(t, config(), v, m, 4*time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "online:1/1(baseline) [0 1/1 +1]",
			"online:2/1(baseline) online:3/1(baseline) online:4/1(baseline) "+
				"online:5/1(baseline) ok [1 5/5]")
	})
}

func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agents := make([]schemas.Agent, 2*publisher.MaxChanges+1)
		for i := range agents {
			agents[i] = on(int64(i + 1))
		}
		m := &memory{}
		if err := play(t, config(), &vendor{scripts: []func(*sweep) error{listed(agents...)}}, m,
			4*time.Second); err != nil {
			t.Fatal(err)
		}
		var sizes []int
		for _, b := range m.commits {
			sizes = append(sizes, len(b.Events))
		}
		if !slices.Equal(sizes, []int{0, 498, 498, 1}) {
			t.Errorf("commits of %v events", sizes)
		}
		for i, want := range []string{"[0 0/0 +1]", "[0 498/498 +1]", "[0 996/996 +1]",
			"[1 997/997]"} {
			w := publisher.Batch{Watermark: m.commits[i].Watermark}
			if got := (&memory{commits: []publisher.Batch{w}}).story(); got != want {
				t.Errorf("watermark %d is %s, want %s", i, got, want)
			}
		}
	})
}

// A server that takes smaller batches gets them.
func TestTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusals := 2
		m := &memory{gate: func(context.Context) error {
			if refusals--; refusals >= 0 {
				return publisher.ErrTooLarge
			}
			return nil
		}}
		agents := make([]schemas.Agent, 200)
		for i := range agents {
			agents[i] = on(int64(i + 1))
		}
		if err := play(t, config(), &vendor{scripts: []func(*sweep) error{listed(agents...)}}, m,
			4*time.Second); err != nil {
			t.Fatal(err)
		}
		if n := len(m.commits[1].Events); n != 124 {
			t.Errorf("the first commit has %d events, want 124", n)
		}
		if w := m.commits[len(m.commits)-1].Watermark; w.Agents != 200 || w.Sweep != 1 {
			t.Errorf("the last watermark is %+v", w)
		}
	})
}

// While the broker is away polling goes on, and afterwards everything is published in order, flips
// included.
func TestBrokerAway(t *testing.T) {
	flips := []func(*sweep) error{listed(on(1), on(2)), listed(off(1), on(2)), listed(on(1), on(2)),
		listed(off(1), off(2))}
	away := func() *memory {
		back := time.Now().Add(18 * time.Second)
		return &memory{
			gate: func(context.Context) error { time.Sleep(time.Until(back)); return nil }}
	}
	synctest.Test(t, func(t *testing.T) {
		m := away()
		if err := play(t, config(), &vendor{scripts: flips}, m, 19*time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "online:1/1(baseline) online:2/1(baseline) ok [1 2/2]",
			"offline:1/2(status) [2 1/2]", "online:1/3(status) [3 2/2]",
			"offline:1/4(status) offline:2/2(status) [4 0/2]")
	})
	synctest.Test(t, func(t *testing.T) {
		m := away()
		cfg := config()
		cfg.BufferEvents = 2 // as many as agents: 1's flips fold
		if err := play(t, cfg, &vendor{scripts: flips}, m, 19*time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "online:1/1(baseline) online:2/1(baseline) ok [1 2/2]",
			"offline:1/2(status) offline:2/2(status) [4 0/2]")
		e := m.last(1)
		if !e.Data.NotBefore.Before(e.Time.Add(-10 * time.Second)) {
			t.Errorf("a folded change lies between %v and %v, want its first notBefore and "+
				"its last time", e.Data.NotBefore, e.Time)
		}
	})
}

// Somebody else has written: the stream is read again, what it has of other agents goes on, and
// what it has otherwise counts.
func TestSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{foreign: []schemas.Event{theirs(nil, on(1), 0, time.Now())}}
		v := &vendor{scripts: []func(*sweep) error{
			func(s *sweep) error { s.page(off(1), on(2)); s.page(on(3)); return nil },
			listed(off(1), on(2), on(3)),
		}}
		if err := play(t, config(), v, m, 9*time.Second); err != nil {
			t.Fatal(err)
		}
		// The first sweep was compared with a past that is no more: it moves no figure.
		wantStory(t, m, "[0 0/0 +1]", "online:1/1(appeared) [0 0/0]", "[0 1/1 +2]",
			"online:2/1(baseline) [0 2/2 +2]", "online:3/1(baseline) [0 3/3 +2]",
			"offline:1/2(status) ok [2 2/3]")
	})
}

func TestHealth(t *testing.T) {
	bad, good := failing(listing.Unusable), listed(on(1), on(2), on(3), on(4), on(5))
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		v := &vendor{scripts: []func(*sweep) error{
			good, bad, good, // one is not yet a failure
			bad, bad, bad, // three are
			failing(listing.Credentials),
			good,
			listed(on(1)), listed(on(1)), listed(on(1)), // four of five go missing together
			good,
		}}
		if err := play(t, config(), v, m, 59*time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]",
			"online:1/1(baseline) online:2/1(baseline) online:3/1(baseline) "+
				"online:4/1(baseline) online:5/1(baseline) ok [1 5/5]",
			"[3 5/5]",
			"failing:unusable [3 5/5 +6]",
			"failing:credentials [3 5/5 +7]",
			"ok [8 5/5]",
			"holding:missing [9 5/5 -4]", "[10 5/5 -4]", "[11 5/5 -4]",
			"ok [12 5/5]",
		)
	})
	// A start at which the vendor never answers is told after three intervals.
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		v := &vendor{
			scripts: []func(*sweep) error{
				func(s *sweep) error { s.wait(time.Hour); return s.ctx.Err() }}}
		start := time.Now()
		if err := play(t, config(), v, m, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "failing:unreachable [0 0/0 +1]")
		if after := m.commits[1].Health.Since.Sub(start); after != 15*time.Second {
			t.Errorf("failing after %v", after)
		}
	})
	// A first sweep that is slow but gets answers is not failing.
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		v := &vendor{
			scripts: []func(*sweep) error{
				func(s *sweep) error { s.page(on(1)); s.wait(time.Minute); return nil }}}
		if err := play(t, config(), v, m, 70*time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "online:1/1(baseline) [0 1/1 +1]", "ok [1 1/1]")
	})
}

// healths tells the health messages of the stream, with their details.
func (m *memory) healths() (out []string) {
	for _, b := range m.commits {
		if h := b.Health; h != nil {
			out = append(out,
				strings.TrimSpace(fmt.Sprintf("%s %s %s", h.State, h.Reason, h.Detail)))
		}
	}
	return out
}

// A complete sweep that rejects more than a tenth of its rows is a failure of the vendor's answers,
// which it takes three incomplete sweeps to outweigh.
func TestHealthOfRejectedRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nine []schemas.Agent
		for id := range int64(9) {
			nine = append(nine, on(id+1))
		}
		reject := func(reasons map[string]int) func(*sweep) error {
			return func(s *sweep) error { s.rejected = reasons; s.page(nine...); return nil }
		}
		good, bad := listed(nine...), failing(listing.Unreachable)
		m := &memory{}
		v := &vendor{scripts: []func(*sweep) error{
			good, reject(map[string]int{"syntax": 1}), // a tenth
			// goes on
			reject(map[string]int{"syntax": 1, "onlineStatus": 2}),
			reject(map[string]int{"onlineStatus": 3}), bad, bad,
			bad,
			reject(map[string]int{"onlineStatus": 2}),
			good,
		}}
		if err := play(t, config(), v, m, 44*time.Second); err != nil {
			t.Fatal(err)
		}
		const cant, stay = "failing unusable %d of the %d rows of the listing can't be used " +
			"(%s), so the agents they belong to stay as they were", "onlineStatus 2"
		want := []string{"ok", fmt.Sprintf(cant, 3, 12, "onlineStatus 2, syntax 1"),
			"failing unreachable poller: no luck", fmt.Sprintf(cant, 2, 11, stay), "ok"}
		if got := m.healths(); !slices.Equal(got, want) {
			t.Errorf("health was\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// The detail follows the cause, but for numbers, and not at every sweep where causes take turns.
func TestHealthDetailFollows(t *testing.T) {
	because := func(text string) func(*sweep) error {
		return func(*sweep) error {
			return &listing.Error{Class: listing.Unreachable, Err: errors.New(text)}
		}
	}
	details := func(t *testing.T, d time.Duration, scripts ...func(*sweep) error) (m *memory) {
		m = &memory{}
		if err := play(t, config(),
			&vendor{scripts: append([]func(*sweep) error{listed(on(1))}, scripts...)}, m,
			d); err != nil {
			t.Fatal(err)
		}
		return m
	}
	synctest.Test(t, func(t *testing.T) {
		var scripts []func(*sweep) error
		for n := range 8 {
			scripts = append(scripts, because(fmt.Sprintf("port %d refuses", n)))
		}
		// Not to the second at which a sweep begins.
		m := details(t, 5*time.Minute-time.Second, append(scripts, because("no such host"))...)
		want := []string{"ok", "failing unreachable poller: port 2 refuses",
			"failing unreachable poller: no such host"}
		if got := m.healths(); !slices.Equal(got, want) {
			t.Errorf("health was\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		first, second := *m.commits[len(m.commits)-2].Health, *m.commits[len(m.commits)-1].Health
		if !first.Since.Equal(second.Since) {
			t.Errorf("failing since %v, and then since %v", first.Since, second.Since)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var scripts []func(*sweep) error
		for range 60 {
			scripts = append(scripts, because("refused"), because("silent"))
		}
		if n := len(details(t, 10*time.Minute, scripts...).healths()); n < 4 || n > 45 {
			t.Errorf("%d messages in ten minutes of two causes by turns", n)
		}
	})
}

// What a page showed that came while the stream was reloaded keeps its agents from being missing.
func TestDroppedPageIsASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{slow: 500 * time.Millisecond}
		all := []schemas.Agent{on(1), on(2), on(3), on(4)}
		v := &vendor{scripts: []func(*sweep) error{
			listed(all...),
			listed(all[1:]...), // misses 1
			// another one has written; the page that shows 1 was asked for before that was noticed
			func(s *sweep) error {
				m.foreign = []schemas.Event{}
				page := &listing.Page{Sent: time.Now()}
				s.page(off(2), on(3), on(4))
				s.wait(2 * time.Second)
				page.Agents, page.Read = []packed.Agent{packed.Pack(new(off(1)))}, time.Now()
				s.emit(page)
				return nil
			},
			listed(all[1:]...),
		}}
		if err := play(t, config(), v, m, 18*time.Second); err != nil {
			t.Fatal(err)
		}
		for _, b := range m.commits {
			for _, e := range b.Events {
				if e.Data.Agent.AgentID == 1 && e.Data.Revision > 1 {
					t.Errorf("agent 1: %s in sweep %d", e.Data.Reason, e.Data.Sweep)
				}
			}
		}
		if w := m.commits[len(m.commits)-1].Watermark; w.Missing != 1 {
			t.Errorf("the last watermark says %d missing, want 1:\n%s", w.Missing, m.story())
		}
	})
}

// Watermarks say which types were polled; those that repeat an earlier sweep, which it polled. And
// what two listings show of the same agent is told once.
func TestPolledTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		run := func(types []string, scripts ...func(*sweep) error) string {
			cfg := config()
			cfg.Types = types
			var logged bytes.Buffer
			cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
			if err := play(t, cfg, &vendor{scripts: scripts}, m, 12*time.Second); err != nil {
				t.Fatal(err)
			}
			return logged.String()
		}
		both := func(s *sweep) error {
			s.page(typed(on(1), "0"))
			s.listing = 1
			s.page(typed(off(1), "10"), typed(on(2), "10"))
			return nil
		}
		logged := run([]string{"0", "10"}, both)
		if n := strings.Count(logged, "listed under two of the polled types"); n != 1 {
			t.Errorf("told %d times:\n%s", n, logged)
		}
		run([]string{"10"}, failing(listing.Unreachable), listed(typed(off(2), "10")))
		run(nil, listed(typed(on(2), "10"), typed(on(1), "0")))
		var got []string
		for _, b := range m.commits {
			w := b.Watermark
			got = append(got, fmt.Sprintf("%d:%s", w.Sweep, strings.Join(w.Polled, ",")))
		}
		want := "0:0,10 1:0,10 2:0,10 3:0,10 5:10 6:10 7: 8: 9:"
		if got := strings.Join(slices.Compact(got), " "); got != want {
			t.Errorf("watermarks are of %s, want %s", got, want)
		}
		if e := m.last(1); e.Data.Revision != 1 || !e.Data.Online {
			t.Errorf("agent 1 is at revision %d, online %t", e.Data.Revision, e.Data.Online)
		}
	})
}

// Many removals at once leave a line.
func TestManyRemovalsAreTold(t *testing.T) {
	for removed, want := range map[int]int{3: 0, 4: 1} {
		synctest.Test(t, func(t *testing.T) {
			var logged bytes.Buffer
			cfg, m := config(), &memory{}
			cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
			var all []schemas.Agent
			for id := range int64(10) {
				all = append(all, on(id+1))
			}
			if err := play(t, cfg,
				&vendor{scripts: []func(*sweep) error{listed(all...), listed(all[removed:]...)}}, m,
				14*time.Second); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(logged.String(),
				"level=INFO msg=\"many agents are removed"); n != want {
				t.Errorf("%d removed, told %d times:\n%s", removed, n, &logged)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		if err := play(t, config(), &vendor{scripts: []func(*sweep) error{listed(on(1), off(2))}},
			m, time.Second); err != nil {
			t.Fatal(err)
		}
		started := m.commits[len(m.commits)-1].Watermark.StartedAt
		time.Sleep(time.Hour)
		m.commits = slices.Clip(m.commits)
		n := len(m.commits)
		if err := play(t, config(),
			&vendor{scripts: []func(*sweep) error{listed(on(1), on(2), off(3))}}, m,
			time.Second); err != nil {
			t.Fatal(err)
		}
		m.commits = m.commits[n:]
		wantStory(t, m, "[1 1/2 +2]", "online:2/2(status) updated:3/1(appeared) [2 2/3]")
		if nb := m.last(2).Data.NotBefore; !nb.Equal(started) {
			t.Errorf("notBefore after a restart is %v, want the last watermark's startedAt %v", nb,
				started)
		}
	})
}

// A stop publishes what was seen; what can't be published in time is counted.
func TestStop(t *testing.T) {
	halfway := []func(*sweep) error{
		func(s *sweep) error { s.page(on(1), on(2)); s.wait(time.Hour); return nil }}
	synctest.Test(t, func(t *testing.T) {
		m := &memory{gate: func(context.Context) error { time.Sleep(3 * time.Second); return nil }}
		if err := play(t, config(), &vendor{scripts: halfway}, m, time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "online:1/1(baseline) online:2/1(baseline) [0 2/2 +1]")
	})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		m := &memory{gate: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		err := play(t, config(), &vendor{scripts: halfway}, m, time.Second)
		var unpublished *UnpublishedError
		if !errors.As(err, &unpublished) || unpublished.Changes != 2 {
			t.Errorf("Run returned %v, want two unpublished changes", err)
		}
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("the stop took %v, want a second of running and six of grace", took)
		}
	})
}

// Where another replica leads nothing more is written, neither when a commit finds out nor when the
// lease's keeper does.
func TestLeaseLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		m.gate = func(context.Context) error { m.lost = true; return publisher.ErrSuperseded }
		if err := play(t, config(), &vendor{scripts: []func(*sweep) error{listed(on(1))}}, m,
			time.Minute); !errors.Is(err, publisher.ErrLeaseLost) {
			t.Errorf("Run returned %v", err)
		}
		wantStory(t, m, "[0 0/0 +1]")
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(publisher.ErrLeaseLost) })
		m := &memory{gate: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		start := time.Now()
		err := New(config(), &vendor{scripts: []func(*sweep) error{listed(on(1))}}, m).Run(ctx)
		if !errors.Is(err, publisher.ErrLeaseLost) || time.Since(start) != time.Second {
			t.Errorf("Run returned %v after %v", err, time.Since(start))
		}
	})
}

// Where every change is published, a watermark that is not is no reason for a failure.
func TestStopWithoutChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		m := &memory{gate: func(ctx context.Context) error {
			if time.Since(start) < time.Second { // the first sweep's
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		if err := play(t, config(), &vendor{scripts: []func(*sweep) error{listed(on(1))}}, m,
			6*time.Second); err != nil {
			t.Error(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "online:1/1(baseline) ok [1 1/1]")
	})
}

// A stop that takes longer than a watermark may be old is no trouble of the vendor's.
func TestSlowStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, m := config(), &memory{}
		cfg.Interval = time.Second
		ctx, stop := context.WithCancel(t.Context())
		m.gate = func(context.Context) error {
			if len(m.commits) == 2 {
				stop()
				m.slow = 5 * time.Second
				return publisher.ErrSuperseded
			}
			return nil
		}
		if err := New(cfg, &vendor{scripts: []func(*sweep) error{listed(on(1)), listed(off(1))}},
			m).Run(ctx); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "online:1/1(baseline) ok [1 1/1]", "[1 1/1 +2]",
			"offline:1/2(status) [1 0/1 +2]")
	})
}

// A commit of which a server stored a part: what it had not taken in yet of the same agents goes on
// from there.
func TestTornCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		var second time.Time // when the page that showed both online had been read
		v := &vendor{scripts: []func(*sweep) error{
			listed(off(1), off(2)),
			func(s *sweep) error {
				second = time.Now().Add(100 * time.Millisecond)
				s.page(on(1), on(2))
				return nil
			},
			listed(off(1), off(2)), listed(on(1), off(2)),
		}}
		stored := false
		m.gate = func(context.Context) error {
			if m.commits[len(m.commits)-1].Watermark.Sweep == 1 && !stored {
				stored = true
				time.Sleep(11 * time.Second) // meanwhile both go off, and 1 on again
				// 1's half of the commit
				m.foreign = []schemas.Event{theirs(&m.commits[1].Events[0], on(1), 2, second)}
			}
			return nil
		}
		if err := play(t, config(), v, m, 24*time.Second); err != nil {
			t.Fatal(err)
		}
		got := m.story()
		for _, want := range []string{"online:1/2(status)", "offline:1/3(status)",
			"online:1/4(status)", "online:2/2(status)", "offline:2/3(status)"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s is not in the stream:\n%s", want, got)
			}
		}
	})
}

// A stream that refuses for good ends the run.
func TestSetupError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := &publisher.SetupError{Err: errors.New("atomic publish was turned off")}
		m := &memory{gate: func(context.Context) error { return broken }}
		if err := play(t, config(), &vendor{scripts: []func(*sweep) error{listed(on(1))}}, m,
			time.Minute); !errors.Is(err, broken) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// An event that no message can hold is left out, and keeps nobody else from being published.
func TestTooLargeToPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.MaxBody = func() int { return 4000 }
		big := on(1)
		big.Other = []schemas.Field{
			{Name: "note", Value: []byte(`"` + strings.Repeat("x", 5000) + `"`)}}
		m := &memory{}
		if err := play(t, cfg, &vendor{scripts: []func(*sweep) error{listed(big, on(2))}}, m,
			time.Second); err != nil {
			t.Fatal(err)
		}
		wantStory(t, m, "[0 0/0 +1]", "online:2/1(baseline) ok [1 1/1]")
	})
}

// What was too large to publish counts as rejected in every complete sweep, is told once, and is
// published when it fits.
func TestTooLargeUntilItFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		var limit atomic.Int64
		limit.Store(4000)
		var logged bytes.Buffer
		cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		cfg.MaxBody = func() int { return int(limit.Load()) }
		big := on(1)
		big.Other = []schemas.Field{
			{Name: "note", Value: []byte(`"` + strings.Repeat("x", 5000) + `"`)}}
		raise := func(s *sweep) error { limit.Store(20_000); return listed(big, on(2))(s) }
		m := &memory{}
		v := &vendor{
			scripts: []func(*sweep) error{listed(off(1), on(2)), listed(big, on(2)),
				listed(big, on(2)), raise, listed(big, on(2))}}
		if err := play(t, cfg, v, m, 21*time.Second); err != nil {
			t.Fatal(err)
		}
		rejected := map[uint64]int{}
		for _, b := range m.commits {
			if w := b.Watermark; w.InProgress == nil {
				rejected[w.Sweep] = w.Rejected
			}
		}
		if want := map[uint64]int{1: 0, 2: 1, 3: 1, 4: 1, 5: 0}; !maps.Equal(rejected, want) {
			t.Errorf("rejected by sweep: %v, want %v", rejected, want)
		}
		if e := m.last(1); e.Data.Revision != 2 || e.Data.Sweep != 5 ||
			!e.Data.NotBefore.Equal(schemas.FloorTime(v.begun[0])) {
			t.Errorf("published at last: revision %d of sweep %d, not before %v", e.Data.Revision,
				e.Data.Sweep, e.Data.NotBefore)
		}
		if n := strings.Count(logged.String(), "too large to publish"); n != 1 {
			t.Errorf("told %d times:\n%s", n, &logged)
		}
	})
}

// A watermark that has told of a sweep is followed by none that knows of fewer, also where there is
// something to say before that sweep has begun.
func TestWatermarksNeverGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{foreign: []schemas.Event{}}
		if err := play(t, config(), &vendor{scripts: []func(*sweep) error{listed(on(1))}}, m,
			6*time.Second); err != nil {
			t.Fatal(err)
		}
		// Whether health is told with the change or with the sweep behind it is the scheduler's
		// business.
		want := strings.Join(
			[]string{"[0 0/0 +1]",
				"[0 0/0]", // another writer's
				"[0 0/0 +2]", "online:1/1(baseline) [0 1/1 +2]", "[2 1/1]"}, "\n")
		if got := strings.ReplaceAll(m.story(), "ok ", ""); got != want {
			t.Errorf("the stream says\n%s\nwant\n%s", got, want)
		}
	})
}

// Time during which the stream could not be taken over is nobody's failure.
func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{slow: time.Minute}
		if err := play(t, config(), &vendor{scripts: []func(*sweep) error{listed(on(1))}}, m,
			62*time.Second); err != nil {
			t.Fatal(err)
		}
		// The first watermark was overdue by the time it was there.
		wantStory(t, m, "[0 0/0 +1]", "[0 0/0 +1]", "online:1/1(baseline) ok [1 1/1]")
	})
}

// A notice is told once, also where the state changes before it could be.
func TestNotice(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	h := newHealth(tenant, time.Second, at)
	h.addNotice("lost", at)
	h.set(schemas.HealthFailing, schemas.Unreachable, at, "no answer")
	n := h.news()
	if n == nil || n.message.State != schemas.HealthFailing ||
		n.message.Detail != "lost; no answer" {
		t.Fatalf("the news are %+v", n)
	}
	h.committed(n)
	if n := h.news(); n != nil {
		t.Errorf("told twice: %+v", n)
	}
}
