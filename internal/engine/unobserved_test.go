package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// unobserved tells the intervals in the stream, in seconds since start.
func (m *memory) unobserved(start time.Time) (told []string) {
	for _, b := range m.commits {
		if u := b.Unobserved; u != nil {
			words := append([]string{string(u.Health)}, u.Types...)
			told = append(told, fmt.Sprintf("%g-%g %s", u.From.Sub(start).Seconds(),
				u.To.Sub(start).Seconds(), strings.Join(words, " ")))
		}
	}
	return told
}

func wantUnobserved(t *testing.T, m *memory, start time.Time, want ...string) {
	t.Helper()
	m.judge(t)
	if got := m.unobserved(start); !slices.Equal(got, want) {
		t.Errorf("unobserved: %q, want %q; the stream says\n%s", got, want, m.story())
	}
}

// judge holds the intervals in the stream against its watermarks alone: each pair of complete
// sweeps with a lapse between them has one, and says which two.
func (m *memory) judge(t *testing.T) {
	t.Helper()
	var last schemas.Watermark // the last one of all
	lapsed := false
	for i, b := range m.commits {
		w := b.Watermark
		if w.NextBy.IsZero() {
			continue // another writer's, of a test
		}
		formed := w.NextBy.Add(-15 * time.Second)
		lapsed = lapsed || last.Sweep > 0 && formed.After(last.NextBy)
		if w.InProgress != nil || w.Sweep == last.Sweep {
			if b.Unobserved != nil {
				t.Errorf("commit %d ends an interval, and no sweep", i)
			}
			if b.Lapsed != lapsed {
				t.Errorf("commit %d says lapsed %t, want %t", i, b.Lapsed, lapsed)
			}
			last, lapsed = w, lapsed || m.late[i]
			continue
		}
		stale := last.Sweep > 0 && w.CompletedAt.After(last.StaleAfter)
		switch u := b.Unobserved; {
		case (stale || lapsed) != (u != nil && len(u.Types) == 0):
			t.Errorf("commit %d: stale %t, lapsed %t, and the interval is %+v", i, stale, lapsed, u)
		case u != nil && (!u.From.Equal(last.StartedAt) || !u.To.Equal(w.StartedAt) ||
			u.Sweep != w.Sweep):
			t.Errorf("commit %d: the interval is %+v, between\n%+v and\n%+v", i, *u, last, w)
		case b.Lapsed:
			t.Errorf("commit %d completes a sweep, and says lapsed", i)
		}
		last, lapsed = w, m.late[i]
	}
}

// torn is a script of a sweep that is answered and does not complete.
func torn(s *sweep) error {
	s.page(on(1))
	return &listing.Error{Class: listing.Inconsistent, Err: fmt.Errorf("torn")}
}

// kill runs an engine for d, and ends it without a chance to publish anything more.
func kill(t *testing.T, cfg Config, v *vendor, m *memory, d time.Duration) {
	t.Helper()
	cfg.Grace = time.Nanosecond
	v.begun = nil
	_ = play(t, cfg, v, m, d)
}

func TestUnobservedVendor(t *testing.T) {
	type scripts = []func(*sweep) error
	repeat := func(n int, script func(*sweep) error) scripts {
		return slices.Repeat(scripts{script}, n)
	}
	fails := func(n int, class listing.Class) scripts { return repeat(n, failing(class)) }
	good := listed(on(1), off(2))
	for name, c := range map[string]struct {
		scripts scripts
		want    []string
	}{
		"all is well": {repeat(9, good), nil},
		"not for long": {
			slices.Concat(repeat(1, good), fails(2, "unreachable"), repeat(6, good)), nil},
		"not from the start": {slices.Concat(fails(6, "unreachable"), repeat(3, good)), nil},
		"until it is stale": {
			slices.Concat(repeat(2, good), fails(3, "credentials"), repeat(4, good)),
			[]string{"5-25 credentials"}},
		"twice, for two reasons": {
			slices.Concat(repeat(1, good), fails(3, "unreachable"), fails(4, "unusable"),
				repeat(1, good), repeat(5, torn), repeat(2, good)),
			[]string{"0-40 unusable", "40-70 inconsistent"}},
		"a sweep takes too long": {scripts{good, func(s *sweep) error {
			s.wait(25 * time.Second)
			return good(s)
		}, good}, []string{"0-5 unreachable"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, m := time.Now(), &memory{}
				v := &vendor{scripts: c.scripts}
				if err := play(t, config(), v, m, 100*time.Second); err != nil {
					t.Fatal(err)
				}
				wantUnobserved(t, m, start, c.want...)
			})
		})
	}
}

// Rollcall itself was not there.
func TestUnobservedRollcall(t *testing.T) {
	good := []func(*sweep) error{listed(on(1), off(2))}
	for name, c := range map[string]struct {
		away time.Duration
		want []string
	}{
		"not for long": {8 * time.Second, nil},
		"for long":     {time.Hour, []string{"10-3612 "}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, m := time.Now(), &memory{}
				kill(t, config(), &vendor{scripts: good}, m, 12*time.Second)
				time.Sleep(c.away)
				kill(t, config(), &vendor{scripts: good}, m, 12*time.Second)
				kill(t, config(), &vendor{scripts: good}, m, 12*time.Second)
				wantUnobserved(t, m, start, c.want...)
			})
		})
	}
}

// That removals were held back before is no reason.
func TestUnobservedHolding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, m := time.Now(), &memory{}
		few := listed(on(1))
		all := listed(on(1), off(2), off(3), off(4), off(5))
		v := &vendor{scripts: []func(*sweep) error{all, few}}
		kill(t, config(), v, m, 17*time.Second)
		time.Sleep(time.Minute)
		kill(t, config(), &vendor{scripts: []func(*sweep) error{few}}, m, 12*time.Second)
		wantUnobserved(t, m, start, "15-77 ")
		if h := m.commits[2].Health; h == nil || h.Reason != schemas.MissingMany {
			t.Errorf("health said %+v", h)
		}
	})
}

// The replica that takes over dies before it has completed a sweep, and the one after it knows from
// the stream alone that a nextBy had passed. The last complete sweep is not stale yet.
func TestUnobservedThirdReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, m := time.Now(), &memory{}
		slow := func(s *sweep) error { // stale a minute after its end
			s.page(on(1))
			s.wait(19800 * time.Millisecond)
			s.page(off(2))
			return nil
		}
		cfg := config()
		kill(t, cfg, &vendor{scripts: []func(*sweep) error{slow}}, m, 21*time.Second)
		time.Sleep(20 * time.Second)
		kill(t, cfg, &vendor{scripts: []func(*sweep) error{slow}}, m, 3*time.Second)
		kill(t, cfg, &vendor{scripts: []func(*sweep) error{listed(on(1), on(2))}}, m, 8*time.Second)
		if w := m.commits[len(m.commits)-1].Watermark; w.CompletedAt.Sub(start) > time.Minute {
			t.Fatalf("the last sweep is complete at %v only", w.CompletedAt.Sub(start))
		}
		wantUnobserved(t, m, start, "0-44 ")
	})
}

// While the broker is away, what was seen waits in order. Then the first sweep that is published
// ends the interval: readers could not tell.
func TestUnobservedBroker(t *testing.T) {
	for name, c := range map[string]struct {
		flips bool
		want  []string
	}{
		"nothing changes":     {false, []string{"5-25 "}},
		"changes every sweep": {true, []string{"5-10 "}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, m := time.Now(), &memory{}
				m.gate = func(context.Context) error {
					if at := time.Since(start); at > 4*time.Second && at < 30*time.Second {
						time.Sleep(30*time.Second - at)
					}
					return nil
				}
				scripts := []func(*sweep) error{listed(on(1), off(2))}
				for i := range 6 {
					if c.flips && i%2 == 0 {
						scripts = append(scripts, listed(off(1), off(2)))
					} else {
						scripts = append(scripts, listed(on(1), off(2)))
					}
				}
				v := &vendor{scripts: scripts}
				if err := play(t, config(), v, m, 34*time.Second); err != nil {
					t.Fatal(err)
				}
				wantUnobserved(t, m, start, c.want...)
			})
		})
	}
}

// A commit comes only after the nextBy of the watermark before it, and before its own: it was
// formed when all was well, and the next complete sweep has to say that readers could not tell. So
// has it where another replica takes over in between.
func TestUnobservedLate(t *testing.T) {
	for name, killed := range map[string]bool{"lives": false, "dies": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, m := time.Now(), &memory{}
				m.gate = func(context.Context) error {
					if at := time.Since(start); at > 4*time.Second && at < 17*time.Second {
						time.Sleep(17*time.Second - at)
					}
					return nil
				}
				v := &vendor{scripts: []func(*sweep) error{listed(on(1)), listed(off(1))}}
				want := "5-15 "
				if killed {
					kill(t, config(), v, m, 9*time.Second) // once the commit has come
					want = "5-17 "
				}
				kill(t, config(), &vendor{scripts: []func(*sweep) error{listed(off(1))}}, m,
					22*time.Second-time.Since(start))
				wantUnobserved(t, m, start, want)
			})
		})
	}
}

// A commit that ends an interval is not in the stream, or is there though its writer died before it
// knew: one message either way.
func TestUnobservedOnce(t *testing.T) {
	for name, stored := range map[string]bool{"stored": true, "not stored": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, m := time.Now(), &memory{}
				good := &vendor{scripts: []func(*sweep) error{listed(on(1), off(2))}}
				kill(t, config(), good, m, 2*time.Second)
				time.Sleep(time.Minute)
				if !stored {
					m.gate = func(ctx context.Context) error {
						<-ctx.Done()
						return ctx.Err()
					}
				}
				kill(t, config(), good, m, 2*time.Second)
				if n := len(m.unobserved(start)); n != map[bool]int{true: 1, false: 0}[stored] {
					t.Fatalf("%d intervals", n)
				}
				m.gate = nil
				kill(t, config(), good, m, 12*time.Second)
				want := "0-64 "
				if stored {
					want = "0-62 "
				}
				wantUnobserved(t, m, start, want)
			})
		})
	}
	t.Run("refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start, m := time.Now(), &memory{}
			good := &vendor{scripts: []func(*sweep) error{listed(on(1), off(2))}}
			kill(t, config(), good, m, 2*time.Second)
			time.Sleep(time.Minute)
			refusals := 1
			m.gate = func(context.Context) error {
				if refusals--; refusals >= 0 {
					return publisher.ErrSuperseded
				}
				return nil
			}
			kill(t, config(), good, m, 12*time.Second)
			wantUnobserved(t, m, start, "0-67 ")
		})
	})
}

// A recovery that takes several commits: health says ok with the last of them, so that whoever
// has to end the interval instead still knows why it was.
func TestUnobservedSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var before, after []schemas.Agent
		for id := range int64(2*publisher.MaxChanges + 100) {
			before, after = append(before, off(id+1)), append(after, on(id+1))
		}
		start, m := time.Now(), &memory{}
		scripts := slices.Concat([]func(*sweep) error{listed(before...)},
			slices.Repeat([]func(*sweep) error{failing(listing.Unusable)}, 4),
			[]func(*sweep) error{listed(after...)})
		kill(t, config(), &vendor{scripts: scripts}, m, 23*time.Second)
		n := len(m.commits)
		commits := 0
		m.gate = func(ctx context.Context) error {
			if commits++; commits <= 2 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		kill(t, config(), &vendor{scripts: scripts[5:]}, m, 3*time.Second)
		for _, b := range m.commits[n:] {
			if b.Health != nil {
				t.Errorf("before the sweep is published, health says %+v", *b.Health)
			}
		}
		m.gate = nil
		kill(t, config(), &vendor{scripts: scripts[5:]}, m, 3*time.Second)
		wantUnobserved(t, m, start, "0-26 unusable")
	})
}

// Types that are newly polled.
func TestUnobservedTypes(t *testing.T) {
	row := func(id int64, kind string) schemas.Agent { return typed(on(id), kind) }
	// run polls each type as a listing, or all in one.
	run := func(t *testing.T, m *memory, d time.Duration, types ...string) {
		cfg := config()
		cfg.Types = types
		all := []schemas.Agent{row(1, "10"), row(2, "0"), row(3, "7"), on(4)}
		kill(t, cfg, &vendor{scripts: []func(*sweep) error{func(s *sweep) error {
			if len(types) == 0 {
				s.page(all...)
			}
			for i, kind := range types {
				s.listing = i
				s.page(slices.DeleteFunc(slices.Clone(all),
					func(a schemas.Agent) bool { return a.Type == nil || *a.Type != kind })...)
			}
			return nil
		}}}, m, d)
	}
	for name, c := range map[string]struct {
		first, second []string
		away          time.Duration
		want          []string
	}{
		"one more":        {[]string{"10"}, []string{"0", "10"}, 0, []string{"0-2  0"}},
		"others":          {[]string{"10"}, []string{"7", "0"}, 0, []string{"0-2  7 0"}},
		"one nobody has":  {[]string{"10"}, []string{"10", "2"}, 0, []string{"0-2  2"}},
		"one less":        {[]string{"10", "0"}, []string{"10"}, 0, nil},
		"the same":        {[]string{"10", "0"}, []string{"0", "10"}, 0, nil},
		"from all to one": {nil, []string{"10"}, 0, nil},
		"from one to all": {[]string{"10"}, nil, 0, []string{"0-2  0 7 _"}},
		"nobody looked anyway": {[]string{"10"}, []string{"0", "10"}, time.Minute,
			[]string{"0-62 "}},
		"all, and all the same": {nil, nil, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, m := time.Now(), &memory{}
				run(t, m, 2*time.Second, c.first...)
				time.Sleep(c.away)
				run(t, m, 2*time.Second, c.second...)
				run(t, m, 2*time.Second, c.second...)
				wantUnobserved(t, m, start, c.want...)
			})
		})
	}
}

// The machine slept: nobody looked meanwhile. A clock that was set back makes no interval, and
// hides none.
func TestUnobservedClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := newStepping(t)
		s.v.scripts = []func(*sweep) error{listed(on(1)), s.step(time.Hour, on(1)), listed(on(1))}
		s.run(14 * time.Second)
		wantUnobserved(t, s.m, start, "5-3610 ")
	})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := newStepping(t)
		s.v.scripts = slices.Concat(
			[]func(*sweep) error{listed(on(1)), s.step(-time.Hour, on(1)), listed(on(1))},
			slices.Repeat([]func(*sweep) error{failing(listing.Unreachable)}, 4),
			[]func(*sweep) error{listed(on(1))})
		s.run(39 * time.Second)
		wantUnobserved(t, s.m, start, "-3590--3565 unreachable")
	})
}

// A nextBy passes after the clock was set back: that the stream's is yet to come hides nothing.
func TestUnobservedClockBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := newStepping(t)
		s.v.scripts = []func(*sweep) error{func(sw *sweep) error {
			sw.page(on(1))
			sw.wait(19900 * time.Millisecond) // stale a minute after its end
			return nil
		}, func(sw *sweep) error {
			s.set -= time.Hour
			return failing(listing.Unreachable)(sw)
		}, func(sw *sweep) error {
			sw.wait(16 * time.Second)
			sw.page(on(1))
			return nil
		}}
		s.run(42 * time.Second)
		if got := s.m.unobserved(start); !slices.Equal(got, []string{"-3600--3575 "}) {
			t.Errorf("unobserved: %q; the stream says\n%s", got, s.m.story())
		}
	})
}

// Whatever fails, and whoever dies: the watermarks in the stream and the intervals agree.
func TestUnobservedAlways(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 15))
			sweeps, commits := rand.New(rand.NewPCG(seed, 16)), rand.New(rand.NewPCG(seed, 17))
			m := &memory{}
			state := on(1)
			script := func(s *sweep) error {
				switch sweeps.IntN(12) {
				case 0:
					return &listing.Error{Class: listing.Unreachable, Err: fmt.Errorf("away")}
				case 1:
					s.wait(time.Duration(sweeps.IntN(30)) * time.Second)
				case 2:
					return torn(s)
				case 3:
					for range 1 + sweeps.IntN(5) {
						s.wait(5 * time.Second)
					}
					return &listing.Error{Class: listing.Unusable, Err: fmt.Errorf("odd")}
				case 4, 5, 6:
					state.OnlineStatus = 1 - state.OnlineStatus
				}
				s.page(state, off(2))
				return nil
			}
			m.gate = func(ctx context.Context) error {
				if commits.IntN(20) > 0 {
					return nil
				}
				if commits.IntN(4) == 0 {
					return publisher.ErrSuperseded
				}
				select {
				case <-time.After(time.Duration(commits.IntN(60)) * time.Second):
				case <-ctx.Done():
					return ctx.Err()
				}
				return nil
			}
			for range 12 {
				kill(t, config(), &vendor{scripts: []func(*sweep) error{script}}, m,
					time.Duration(r.IntN(120_000))*time.Millisecond)
				if r.IntN(3) == 0 {
					time.Sleep(time.Duration(r.IntN(40)) * time.Second)
				}
			}
			m.judge(t)
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
}
