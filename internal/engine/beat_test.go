package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// quietly is a script that reads a page every two seconds for a while. All show the same.
func quietly(d time.Duration, agents ...schemas.Agent) func(*sweep) error {
	return func(s *sweep) error {
		for end := s.now().Add(d); s.now().Before(end) && s.ctx.Err() == nil; {
			s.page(agents...)
			s.wait(1900 * time.Millisecond)
		}
		return nil
	}
}

// wantPunctual fails the test where a watermark from the n-th on came after the nextBy of the one
// before it, or has a nextBy of its own that is not what it says.
func wantPunctual(t *testing.T, m *memory, n int, within time.Duration) {
	t.Helper()
	for i := n; i < len(m.commits); i++ {
		w := m.commits[i].Watermark
		if left := w.NextBy.Sub(m.at[i]); left > within || left < within-time.Millisecond {
			t.Errorf("watermark %d is to be followed within %v, want %v", i, left, within)
		}
		if i > n && m.at[i].After(m.commits[i-1].Watermark.NextBy) {
			t.Errorf("watermark %d came %v after the one before it, whose nextBy was after %v", i,
				m.at[i].Sub(m.at[i-1]), within)
		}
	}
}

// While a sweep takes minutes in which nothing changes, watermarks come in time, each alone, and
// they repeat what the last complete sweep said.
func TestNextBy(t *testing.T) {
	for _, tc := range []struct{ interval, within time.Duration }{
		{5 * time.Second, 15 * time.Second},
		{100 * time.Millisecond, 15 * time.Second},
		{20 * time.Second, time.Minute},
	} {
		t.Run(fmt.Sprint(tc.interval), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config()
				cfg.Interval = tc.interval
				var told []schemas.Watermark
				cfg.Published = func(w schemas.Watermark) { told = append(told, w) }
				m := &memory{}
				v := &vendor{scripts: []func(*sweep) error{
					listed(on(1), off(2)), quietly(time.Hour, on(1), off(2)),
				}}
				if err := play(t, cfg, v, m, 30*time.Minute); err != nil {
					t.Fatal(err)
				}
				wantPunctual(t, m, 0, tc.within)
				last := m.commits[len(m.commits)-1].Watermark
				if left := time.Until(last.NextBy); left < 0 {
					t.Errorf("the last nextBy passed %v ago", -left)
				}
				if n, most := len(m.commits), int(30*time.Minute/(tc.within/2)); n > most {
					t.Errorf("%d watermarks, want at most %d", n, most)
				}
				for _, b := range m.commits[3:] {
					w := b.Watermark
					if b.Health != nil { // no sweep has completed in time
						continue
					}
					if len(b.Events) > 0 || w.InProgress == nil || w.Sweep != 1 ||
						w.Agents != 2 || w.Online != 1 || !w.StaleAfter.Equal(last.StaleAfter) {
						t.Fatalf("not a plain watermark: %+v", b)
					}
				}
				if len(told) != len(m.commits) {
					t.Errorf("told of %d watermarks, and %d are in the stream", len(told),
						len(m.commits))
				}
			})
		})
	}
}

// A vendor that is asked less often than watermarks have to come is not silent in between. Where no
// answer comes when it should, it is.
func TestNextByAtASlowPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pace = 32 * time.Second
		cfg := config()
		cfg.Pace = func() time.Duration { return pace }
		cfg.GiveUp = time.Second
		m := &memory{}
		var heard time.Time // the last answer
		v := &vendor{scripts: []func(*sweep) error{
			listed(on(1)),
			func(s *sweep) error {
				for range 10 {
					if s.wait(pace + time.Second); s.ctx.Err() != nil {
						t.Error("given up between two answers")
					}
					s.page(on(1))
				}
				heard = s.now()
				<-s.ctx.Done()
				return nil
			},
		}}
		if err := play(t, cfg, v, m, 10*time.Minute); !errors.Is(err, ErrNoAnswers) {
			t.Fatal(err)
		}
		wantPunctual(t, m, 0, 15*time.Second)
		last := m.at[len(m.at)-1]
		if d := last.Sub(heard); d < 0 || d > 2*pace+15*time.Second {
			t.Errorf("the last watermark came %v after the last answer", d)
		}
		if d := time.Since(heard); d > 3*pace {
			t.Errorf("given up %v after the last answer", d)
		}
	})
}

// Who is not answered does not say that all is well: once the last answer is published, nothing
// comes.
func TestNextByPassesWithoutAnswers(t *testing.T) {
	for name, silent := range map[string]func(*sweep) error{
		"nothing comes": func(s *sweep) error { <-s.ctx.Done(); return nil },
		"errors come": func(s *sweep) error {
			s.wait(time.Second)
			return failing(listing.Unusable)(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				var heard time.Time // the last answer
				v := &vendor{scripts: []func(*sweep) error{
					listed(on(1)),
					func(s *sweep) error {
						defer func() { heard = s.now() }()
						return quietly(40*time.Second, on(1))(s)
					}, silent}}
				if err := play(t, config(), v, m, 10*time.Minute); err != nil {
					t.Fatal(err)
				}
				for i, b := range m.commits {
					if b.Health == nil && m.at[i].After(heard.Add(10*time.Second)) {
						t.Errorf("a watermark came %v after the last answer: %+v",
							m.at[i].Sub(heard), b.Watermark)
					}
				}
			})
		})
	}
}

// Who is stopping polls no more, and says nothing but what was seen.
func TestNoBeatWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.Grace = 2 * time.Minute
		m := &memory{}
		v := &vendor{scripts: []func(*sweep) error{
			listed(on(1)),
			func(s *sweep) error { // as if it did not end with its context
				s.ctx = context.WithoutCancel(s.ctx)
				_ = quietly(time.Minute, on(1))(s)
				return failing(listing.Inconsistent)(s)
			},
		}}
		begun := time.Now()
		if err := play(t, cfg, v, m, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < time.Minute {
			t.Fatalf("it ended after %v", took)
		}
		for i, b := range m.commits {
			if at := m.at[i].Sub(begun); b.Health == nil && at > 20*time.Second {
				t.Errorf("a watermark came %v after it was to end: %+v", at-20*time.Second,
					b.Watermark)
			}
		}
	})
}

// A broker that was away gets, first thing, a watermark that is not overdue.
func TestNextByAfterBrokerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, begun := &memory{}, time.Now()
		var back time.Time
		m.gate = func(context.Context) error {
			if s := time.Since(begun); s > 30*time.Second && back.IsZero() {
				time.Sleep(5 * time.Minute)
				back = time.Now()
			}
			return nil
		}
		v := &vendor{scripts: []func(*sweep) error{listed(on(1)), quietly(time.Hour, on(1))}}
		if err := play(t, config(), v, m, 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		late := 0
		for i, b := range m.commits {
			if !b.Watermark.NextBy.After(m.at[i]) {
				late = i
			}
		}
		switch {
		case late == 0 || !m.at[late].Equal(back):
			t.Errorf("the watermark that was held up is number %d", late)
		case m.at[late+1].Sub(back) > 2*time.Second: // the next answer
			t.Errorf("the first one in time came %v after the broker", m.at[late+1].Sub(back))
		}
		wantPunctual(t, m, late+1, 15*time.Second)
	})
}

// glance is a page of those who are online, after which a glance is over that began before.
func (s *sweep) glance(began time.Time, agents ...schemas.Agent) {
	s.wait(time.Millisecond) // it is sent after the page before it had been read
	page := &listing.Page{Listing: s.listing, Sent: s.now(), GlancedAt: began}
	s.wait(100 * time.Millisecond)
	for _, a := range agents {
		page.Agents = append(page.Agents, packed.Pack(&a))
	}
	page.Read = s.now()
	s.emit(page)
}

// glancedWith fails the test where a watermark says that a glance is over whose changes are not
// published by then: want are the agents that it has shown, with their revisions, by its beginning.
func glancedWith(t *testing.T, m *memory, want map[time.Time]map[int64]uint64) {
	t.Helper()
	published, said := make(map[int64]uint64), time.Time{}
	for i, b := range m.commits {
		for _, e := range b.Events {
			published[e.Data.Agent.AgentID] = e.Data.Revision
		}
		at := b.Watermark.GlancedAt
		if at.Before(said) {
			t.Errorf("watermark %d: glancedAt goes back from %v to %v", i, said, at)
		}
		if said = at; at.IsZero() {
			continue
		}
		shown, known := want[at]
		if !known {
			t.Errorf("watermark %d: no glance was over that began at %v", i, at)
		}
		for id, rev := range shown {
			if published[id] < rev {
				t.Errorf("watermark %d: glancedAt is %v, and of agent %d revision %d is "+
					"published, want %d", i, at, id, published[id], rev)
			}
		}
	}
}

// A watermark says that a glance is over when what was observed before that is published: not
// before, also where it takes several commits, and those after it go on saying so.
func TestGlancedAt(t *testing.T) {
	for name, gate := range map[string]func(publisher.Batch) error{
		"at once": nil,
		"one change a commit": func(b publisher.Batch) error {
			if len(b.Events) > 1 {
				return publisher.ErrTooLarge
			}
			return nil
		},
		"slowly": func(publisher.Batch) error { time.Sleep(700 * time.Millisecond); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := schemas.FloorTime(time.Now())
				first, second := begun.Add(time.Second), begun.Add(2*time.Second)
				m := &gated{check: gate}
				v := &vendor{scripts: []func(*sweep) error{
					listed(on(1), off(2), off(3), off(4)),
					func(s *sweep) error {
						s.page(on(1), off(2))
						s.glance(time.Time{}, on(2))
						s.glance(first, on(3), on(4))
						s.wait(time.Millisecond)
						s.page(off(3), off(4))
						s.glance(time.Time{}, on(3))
						s.glance(second, off(1))
						s.glance(begun.Add(time.Hour), on(3)) // the clock was set back
						s.wait(20 * time.Second)
						return nil
					},
					listed(off(1), on(2), on(3), off(4)),
				}}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := New(config(), v, m).Run(ctx); err != nil {
					t.Fatal(err)
				}
				glancedWith(t, &m.memory, map[time.Time]map[int64]uint64{
					first:  {1: 1, 2: 2, 3: 2, 4: 2},
					second: {1: 2, 2: 2, 3: 4, 4: 3},
				})
				said := map[time.Time]int{}
				for _, b := range m.commits {
					said[b.Watermark.GlancedAt]++
				}
				if said[time.Time{}] < 2 || said[second] < 5 {
					t.Errorf("watermarks by glancedAt: %v", said)
				}
			})
		})
	}
}

// A gated memory refuses commits.
type gated struct {
	memory
	check func(publisher.Batch) error // nil: takes all
}

func (g *gated) Commit(ctx context.Context, b publisher.Batch) error {
	if g.check != nil {
		if err := g.check(b); err != nil {
			return err
		}
	}
	return g.memory.Commit(ctx, b)
}

// A glance of which a page was left out, since the stream was read again meanwhile, does not count:
// neither in the sweep in which that was nor in the next.
func TestGlancedAtAfterReload(t *testing.T) {
	for _, next := range []bool{false, true} {
		t.Run(fmt.Sprintf("next sweep %t", next), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				var before, after time.Time
				end := func(s *sweep) error {
					s.glance(before, on(4)) // of the glance that showed agent 3 as online
					s.wait(time.Second)
					after = s.now()
					s.glance(after, on(3), on(4))
					return nil
				}
				v := &vendor{scripts: []func(*sweep) error{
					listed(on(1), off(2), off(3), off(4)),
					func(s *sweep) error {
						before = s.now()
						s.wait(50 * time.Millisecond)
						m.foreign = []schemas.Event{theirs(nil, on(9), 1, s.now())}
						sent := s.now()
						s.page(on(1), on(2)) // the commit is refused, and the stream read again
						s.wait(time.Second)
						a := on(3)
						s.emit(&listing.Page{Sent: sent, Read: s.now(),
							Agents: []packed.Agent{packed.Pack(&a)}})
						if !next {
							return end(s)
						}
						return nil
					},
					func(s *sweep) error {
						s.page(on(1), on(2))
						if next {
							_ = end(s)
						}
						s.page(on(3), on(4), on(9))
						return nil
					},
					listed(on(1), on(2), on(3), on(4), on(9)),
				}}
				if err := play(t, config(), v, m, 20*time.Second); err != nil {
					t.Fatal(err)
				}
				glancedWith(t, m, map[time.Time]map[int64]uint64{
					schemas.FloorTime(after): {1: 1, 2: 2, 3: 2, 4: 2},
				})
				if last := m.commits[len(m.commits)-1].Watermark; !last.GlancedAt.Equal(
					schemas.FloorTime(after)) {
					t.Errorf("at last glancedAt is %v, want %v", last.GlancedAt, after)
				}
			})
		})
	}
}

// What another writer's watermark said of glances, the ones that follow it repeat.
func TestGlancedAtTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		glanced := schemas.FloorTime(time.Now().Add(-time.Minute))
		m := &memory{commits: []publisher.Batch{{Watermark: schemas.Watermark{Sweep: 7,
			StartedAt: glanced, CompletedAt: glanced, StaleAfter: time.Now().Add(time.Minute),
			GlancedAt: glanced, NextBy: time.Now()}}}}
		v := &vendor{scripts: []func(*sweep) error{listed(on(1))}}
		if err := play(t, config(), v, m, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		for i, b := range m.commits {
			if !b.Watermark.GlancedAt.Equal(glanced) {
				t.Errorf("watermark %d: glancedAt is %v", i, b.Watermark.GlancedAt)
			}
		}
	})
}

// Where the buffer is full and the oldest changes are folded, no glance is over before what is
// folded of it is published.
func TestGlancedAtFolded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.Rules = diff.Rules{RemoveAfter: 2, MaxMissing: 0.5, MissingHold: time.Hour,
			BufferEvents: 3}
		m, away := &memory{}, false
		m.gate = func(ctx context.Context) error {
			if away {
				away = false
				time.Sleep(5 * time.Second)
			}
			return nil
		}
		var glances [4]time.Time
		v := &vendor{scripts: []func(*sweep) error{
			listed(off(1), off(2), off(3)),
			func(s *sweep) error {
				away = true
				for i := range glances {
					glances[i] = schemas.FloorTime(s.now())
					a, b, c := on(1), off(2), off(3)
					if i%2 == 1 {
						a, b, c = off(1), on(2), on(3)
					}
					s.glance(glances[i], a, b, c)
				}
				return errors.New("torn")
			},
			listed(off(1), on(2), on(3)),
		}}
		// The second script's error has to be one of a listing's.
		second := v.scripts[1]
		v.scripts[1] = func(s *sweep) error {
			return &listing.Error{Class: listing.Inconsistent, Err: second(s)}
		}
		if err := play(t, cfg, v, m, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		// Revisions depend on what is folded; states do not.
		says := make(map[int64]bool)
		var said []time.Time
		for i, b := range m.commits {
			for _, e := range b.Events {
				says[e.Data.Agent.AgentID] = e.Data.Online
			}
			at := b.Watermark.GlancedAt
			said = append(said, at)
			if at.Equal(glances[3]) && (says[1] || !says[2] || !says[3]) {
				t.Errorf("watermark %d: the last glance is over, and the stream says %v", i, says)
			}
			if i > 0 && at.Before(said[i-1]) {
				t.Errorf("glancedAt goes back: %v", said)
			}
		}
		if last := said[len(said)-1]; !last.Equal(glances[3]) {
			t.Errorf("at last glancedAt is %v, want %v", last, glances[3])
		}
	})
}
