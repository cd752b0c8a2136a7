package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// reload reads the stream again, beside the loop.
func (l *loop) reload() {
	if l.commit.ctx.Err() != nil {
		return // the next start does
	}
	l.commit.running = true
	sweep := l.sweep.number
	go func() {
		t, err := l.takeOver(l.commit.ctx, sweep)
		l.commit.done <- func() error {
			switch {
			case err == nil:
				l.load(t)
			case l.commit.ctx.Err() == nil:
				return err
			}
			return nil
		}
	}()
}

// A takeover is what the stream said when it was taken over.
type takeover struct {
	states    map[int64]*packed.State
	recovered *publisher.Recovered
	first     diff.First // ours, which shuts earlier writers out
	formedAt  time.Time  // when that was formed
}

// takeOver reads the stream and shuts every earlier writer out, trying until ctx ends. sweep is the
// last one begun here.
func (e *Engine) takeOver(ctx context.Context, sweep uint64) (*takeover, error) {
	var t *takeover
	try := func() (err error) {
		t = &takeover{states: make(map[int64]*packed.State)}
		t.recovered, err = e.stream.TakeOver(ctx,
			func(s *packed.State) { t.states[s.Agent.AgentID()] = s },
			func(r *publisher.Recovered) (schemas.Watermark, bool) {
				next := max(r.LastSweep+1, sweep)
				t.formedAt = e.now()
				t.first = diff.TakeOver(t.states, r.Watermark, r.Lapsed, e.cfg.Types, next,
					t.formedAt, e.cfg.nextBy(t.formedAt))
				return t.first.Watermark, t.first.Lapsed
			})
		var setup *publisher.SetupError
		if errors.As(err, &setup) || errors.Is(err, publisher.ErrLeaseLost) {
			return backoff.Permanent(err) // trying again does not mend it
		}
		return err
	}
	wait := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0)) // without the stream there is nothing to do; ctx ends this
	err := backoff.RetryNotify(try, backoff.WithContext(wait, ctx),
		func(err error, in time.Duration) {
			e.logger.Warn("could not take over the stream: trying again",
				"in", in.Round(time.Millisecond), "err", err)
		})
	if err != nil {
		if leaseLost(ctx) {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("take over the stream of tenant %d: %w", e.cfg.Tenant, err)
	}
	return t, nil
}

// load takes over what the stream said.
func (l *loop) load(t *takeover) {
	loaded := l.roster.Load(t.states, t.recovered.Watermark, t.first.Watermark.LastSweep())
	l.roster.Resume(t.first)
	if l.stream.Late() {
		l.roster.Lapse()
	}
	l.tellPublished(t.first.Watermark)
	if n := loaded.Lost; n > 0 {
		l.logger.Error("the broker has lost messages that it had acknowledged: "+
			"what still stands is published again, above every revision that was used; "+
			"find out why, and have durable readers read the states again", "agents", n)
		l.health.addNotice(fmt.Sprintf("the broker has lost messages that it had acknowledged, "+
			"of %d agents: durable readers do best to read the states anew", n), l.now())
	}
	if n := loaded.Dropped; n > 0 {
		l.metrics.dropped.Add(float64(n))
		l.logger.Warn("dropping changes that were seen: the stream has others of the same agents; "+
			"the next sweep publishes what still stands", "dropped", n)
	}
	switch {
	case l.sweep.running:
		l.sweep.reloadedAt = l.now()
	case l.cfg.Expect != nil:
		l.cfg.Expect(l.roster.Listed())
	}
	l.commit.formedAt, l.commit.loadedAt = t.formedAt, l.now()
	l.sweep.number = max(l.sweep.number, t.recovered.LastSweep)
	w := l.roster.Watermark()
	l.health.load(t.recovered.Health, w)
	l.metrics.missing.Set(float64(w.Missing))
	population := l.roster.Population()
	l.metrics.showAgents(population)
	all := population.Total()
	l.logger.Info("took over the stream", "tenant", l.cfg.Tenant,
		"agents", all.Agents, "online", all.Online, "sweep", w.Sweep)
}
