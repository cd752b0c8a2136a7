package engine

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/clock"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// A stepping is an engine on a machine whose clock is set, by d, while a sweep is under way.
type stepping struct {
	t    *testing.T
	set  time.Duration // how far the machine's clock is off
	cfg  Config
	v    *vendor
	m    *memory
	said bytes.Buffer
}

func newStepping(t *testing.T) *stepping {
	s := &stepping{t: t, cfg: config(), v: &vendor{}, m: &memory{}}
	c := clock.New(func() time.Time { return time.Now().Add(s.set) })
	s.cfg.Now, s.cfg.Follow, s.v.now, s.m.now = c.Now, c.Follow, c.Now, s.wall
	s.cfg.Logger = slog.New(slog.NewTextHandler(&s.said, nil))
	return s
}

// step is a script that reads the page while the clock is set by d.
func (s *stepping) step(d time.Duration, agents ...schemas.Agent) func(*sweep) error {
	return func(sw *sweep) error {
		s.set += d
		sw.page(agents...)
		return nil
	}
}

// wall is what the machine's clock says.
func (s *stepping) wall() time.Time { return time.Now().Add(s.set).Round(0) }

func (s *stepping) run(d time.Duration) {
	s.t.Helper()
	if err := play(s.t, s.cfg, s.v, s.m, d); err != nil {
		s.t.Fatal(err)
	}
}

// A clock that is set is followed with the next sweep, is told once, and nothing that was seen
// before claims to be of a time that is yet to come.
func TestClockSteps(t *testing.T) {
	for name, d := range map[string]time.Duration{"ahead": 2 * time.Hour, "back": -2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStepping(t)
				start := s.wall()
				s.v.scripts = []func(*sweep) error{
					listed(on(1), on(2), off(3)),
					listed(on(1), on(2), off(3)),
					s.step(d, off(1), on(2), off(3)), // at 10 s
					listed(off(1), off(2), off(3)),   // at 15 s
					listed(on(1), off(2), off(3)),    // at 20 s
				}
				s.run(23 * time.Second)
				// Agent 2 was seen online at 10 s, by the old clock, and offline at 15 s, by the
				// new one.
				e := s.m.last(2)
				if got, want := e.Data.NotBefore.Sub(start), 10*time.Second+min(d, 0); got != want {
					t.Errorf("notBefore is %v after the start, want %v", got, want)
				}
				if got, want := e.Time.Sub(start), 15100*time.Millisecond+d; d > 0 && got != want {
					t.Errorf("time is %v after the start, want %v", got, want)
				}
				// Per agent time never goes back, whatever the clock does.
				latest := map[int64]time.Time{}
				for _, b := range s.m.commits {
					for _, e := range b.Events {
						id := e.Data.Agent.AgentID
						if e.Time.Before(latest[id]) || e.Data.NotBefore.After(e.Time) {
							t.Errorf("agent %d: from %v the time goes to %v, not before %v", id,
								latest[id], e.Time, e.Data.NotBefore)
						}
						latest[id] = e.Time
					}
					if h := b.Health; h != nil && h.State != schemas.HealthOK {
						t.Errorf("a clock that is set makes health %s: %s", h.State, h.Detail)
					}
				}
				w := s.m.commits[len(s.m.commits)-1].Watermark
				if got := s.wall().Sub(w.StartedAt); w.Sweep != 5 || got != 3*time.Second {
					t.Errorf("the watermark of sweep %d says that it began %v ago, by the "+
						"clock as it is", w.Sweep, got)
				}
				told := s.said.String()
				if strings.Count(told, "clock has jumped") != 1 ||
					!strings.Contains(told, "by=2h0m0s") || !strings.Contains(told, `way="`+name) {
					t.Errorf("told: %s", told)
				}
			})
		})
	}
}

// The watermark that is repeated while the vendor is away says what is true by the clock as it is:
// a rollcall that can't read does not look fresh for as long as the clock was set back.
func TestClockBackVendorAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStepping(t)
		s.v.scripts = []func(*sweep) error{s.step(0, on(1)), s.step(-time.Hour, on(1)),
			failing("unreachable")}
		begun := time.Now()
		s.run(40 * time.Second)
		last := s.m.commits[len(s.m.commits)-1]
		first := slices.IndexFunc(s.m.commits, func(b publisher.Batch) bool {
			return b.Health != nil && b.Health.State == schemas.HealthFailing
		})
		if first < 0 {
			t.Fatalf("the last commit is %+v", last)
		}
		if at := s.m.at[first].Sub(begun); at != 20*time.Second {
			t.Errorf("health is failing %v after the start, want it with the third sweep "+
				"that failed", at)
		}
		if w := last.Watermark; w.StaleAfter.After(s.wall()) ||
			s.wall().Sub(w.StartedAt) != 35*time.Second {
			t.Errorf("it is %v, and the watermark says %+v", s.wall(), w)
		}
	})
}

// What the guard holds it holds for as long as it is told to, by the time that passes.
func TestClockStepsDoNotEndAHold(t *testing.T) {
	for _, d := range []time.Duration{time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := newStepping(t)
			s.cfg.MissingHold = time.Minute
			all := listed(on(1), on(2), on(3), on(4), on(5))
			s.v.scripts = []func(*sweep) error{all, listed(on(1)), s.step(d, on(1)), listed(on(1))}
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			if err := New(s.cfg, s.v, s.m).Run(ctx); err != nil {
				t.Fatal(err)
			}
			for i, b := range s.m.commits {
				if len(b.Events) == 0 || b.Events[0].Data.Reason != schemas.Removed {
					continue
				}
				// First missed by the sweep that ended at 5.1 s.
				if at := s.m.at[i].Sub(begun); at != 65100*time.Millisecond {
					t.Errorf("a step of %v: removed after %v", d, at)
				}
				return
			}
			t.Errorf("a step of %v: nobody was removed", d)
		})
	}
}
