package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// lead runs the engine for d at the most, and says how long it led.
func lead(t *testing.T, e *Engine, d time.Duration) (time.Duration, error) {
	t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	err := e.Run(ctx)
	return time.Since(begun), err
}

// A leader whom the vendor does not answer gives up once, when the last complete sweep is stale and
// health has said so, and again only after somebody has been answered.
func TestGivesUpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, m := config(), &memory{}
		cfg.GiveUp = time.Second
		v := &vendor{
			scripts: []func(*sweep) error{listed(on(1), off(2)), failing(listing.Unreachable)}}
		e := New(cfg, v, m)
		// Complete after 100 ms, stale 15 s later.
		if took, err := lead(t, e, time.Hour); !errors.Is(err, ErrNoAnswers) ||
			took != 15100*time.Millisecond {
			t.Fatalf("it led for %v: %v", took, err)
		}
		if h := m.commits[len(m.commits)-1].Health; h == nil || h.State != schemas.HealthFailing {
			t.Errorf("before it gave up, the last commit's health was %+v", h)
		}
		// Nobody else fares better: it keeps the lease, but not for ever.
		if took, err := lead(t, e, time.Hour); !errors.Is(err, ErrNoAnswers) ||
			took != giveUpAgain {
			t.Errorf("with the vendor away for all, it led for %v: %v", took, err)
		}
		// Another replica was answered meanwhile.
		last := m.commits[len(m.commits)-1].Watermark
		last.Sweep, last.InProgress = last.Sweep+1, nil
		m.commits = append(m.commits, publisher.Batch{Watermark: last})
		if took, err := lead(t, e, time.Hour); !errors.Is(err, ErrNoAnswers) || took > time.Minute {
			t.Errorf("after another one was answered, it led for %v: %v", took, err)
		}
		// It is answered itself, by a page only, and then no more.
		v.begun = nil
		v.scripts = []func(*sweep) error{func(s *sweep) error {
			s.page(on(1))
			return &listing.Error{Class: listing.Inconsistent, Err: errors.New("torn")}
		}, failing(listing.Unreachable)}
		if took, err := lead(t, e, time.Hour); !errors.Is(err, ErrNoAnswers) ||
			took != 15100*time.Millisecond {
			t.Errorf("after a page, it led for %v: %v", took, err)
		}
	})
}

// Nobody gives up who is answered, though no sweep is complete; who has something to publish; who
// is not asked to.
func TestDoesNotGiveUp(t *testing.T) {
	torn := func(s *sweep) error {
		s.page(on(1))
		return &listing.Error{Class: listing.Inconsistent, Err: errors.New("torn")}
	}
	for name, c := range map[string]struct {
		scripts []func(*sweep) error
		gate    func(context.Context) error
		alone   bool
	}{
		"answered": {scripts: []func(*sweep) error{listed(on(1)), torn}},
		"something to publish": {
			scripts: []func(*sweep) error{torn, failing(listing.Unreachable)},
			gate:    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		},
		"alone": {scripts: []func(*sweep) error{listed(on(1)), failing(listing.Unreachable)},
			alone: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config()
				if !c.alone {
					cfg.GiveUp = time.Second
				}
				took, err := lead(t, New(cfg, &vendor{scripts: c.scripts}, &memory{gate: c.gate}),
					time.Hour)
				if errors.Is(err, ErrNoAnswers) || took < time.Hour {
					t.Errorf("it led for %v: %v", took, err)
				}
			})
		})
	}
}

// A process that was paused has not been kept waiting by the vendor.
func TestPauseIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.GiveUp = time.Second
		var paused atomic.Int64 // for so long nothing of the process ran
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(paused.Load())) }
		answers := listed(on(1))
		v := &vendor{scripts: []func(*sweep) error{answers, func(s *sweep) error {
			s.wait(time.Second)
			paused.Store(int64(time.Hour))
			s.wait(20 * time.Second) // the loop goes on first
			return answers(s)
		}, answers}, now: cfg.Now}
		if took, err := lead(t, New(cfg, v, &memory{}), time.Minute); err != nil ||
			took != time.Minute {
			t.Errorf("it led for %v: %v", took, err)
		}
	})
}

// A silence that is shorter than what it takes to pass the lease on is no reason to do so, however
// often the vendor is asked.
func TestGivesUpNotAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.Interval, cfg.GiveUp = 10*time.Millisecond, 10*time.Second
		slow := func(s *sweep) error {
			s.wait(5 * time.Second)
			s.page(on(1))
			return nil
		}
		e := New(cfg, &vendor{scripts: []func(*sweep) error{slow}}, &memory{})
		if took, err := lead(t, e, time.Hour); errors.Is(err, ErrNoAnswers) {
			t.Errorf("slow answers: it gave up after %v", took)
		}
		e = New(cfg, &vendor{scripts: []func(*sweep) error{failing(listing.Unreachable)}},
			&memory{})
		if took, err := lead(t, e, time.Hour); !errors.Is(err, ErrNoAnswers) || took != cfg.GiveUp {
			t.Errorf("no answers: it led for %v: %v", took, err)
		}
	})
}
