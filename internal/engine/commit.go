package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// A commitState is the work on the stream under way: a commit, or reading it again.
type commitState struct {
	ctx     context.Context // of the work: it outlives Run's by the grace period
	running bool
	done    chan func() error // what the loop has to do when the work has ended

	maxChanges int // the most changes a commit
	maxBody    int // the most bytes an event, as last asked
}

// startCommit starts the next commit, where there is anything to publish and none is under way.
func (l *loop) startCommit() {
	if l.commit.running {
		return
	}
	limit := math.MaxInt
	if l.cfg.MaxBody != nil {
		limit = l.cfg.MaxBody()
	}
	if limit > l.commit.maxBody {
		l.roster.Retry()
	}
	l.commit.maxBody = limit
	var buf []byte
	fits := func(e *schemas.Event) bool {
		buf = e.AppendJSON(buf[:0])
		return len(buf) <= limit
	}
	for news := l.health.news(); news != nil || !l.roster.Idle(); {
		c := l.roster.Next(l.sweep.number, l.commit.maxChanges, fits)
		if c.Empty() && news == nil {
			l.roster.Skip(c)
			l.tooLarge(c)
			continue
		}
		b := publisher.Batch{Events: c.Events, Watermark: c.Watermark}
		if news != nil {
			b.Health = &news.message
		}
		l.commit.running = true
		go func() {
			err := l.stream.Commit(l.commit.ctx, b)
			l.commit.done <- func() error { return l.committed(c, news, err) }
		}()
		return
	}
}

// committed applies what became of a commit.
func (l *loop) committed(c *diff.Commit, news *healthNews, err error) error {
	var setup *publisher.SetupError
	switch {
	case err == nil || errors.Is(err, publisher.ErrTampered):
		l.roster.Committed(c)
		l.tellCommitted(c)
		if news != nil {
			l.health.said(news)
			h := &news.message
			l.logger.Info("health", "state", h.State, "reason", h.Reason, "detail", h.Detail)
		}
		if err != nil {
			l.logger.Error("somebody else wrote to the stream: reloading it to put it right; "+
				"find out who may publish on "+schemas.LogPrefix+">", "err", err)
			l.reload()
		}
	case errors.Is(err, publisher.ErrTooLarge) && l.commit.maxChanges > 1:
		l.roster.Requeue(c)
		l.commit.maxChanges = max(l.commit.maxChanges/2, 1)
		l.logger.Warn("the server takes smaller batches only: splitting commits",
			"changes", l.commit.maxChanges, "err", err)
	case errors.Is(err, publisher.ErrMaxBody):
		l.roster.Requeue(c)
		l.logger.Info("the server takes smaller messages now: forming the commit again", "err", err)
	case errors.Is(err, publisher.ErrSuperseded):
		l.roster.Requeue(c)
		l.logger.Warn("the stream has moved on without us: reloading it", "err", err)
		l.reload()
	case errors.As(err, &setup) || l.commit.ctx.Err() == nil:
		return err
	}
	return nil // where the work was abandoned, the grace period is over
}

// tellCommitted counts and logs what a commit brought.
func (l *loop) tellCommitted(c *diff.Commit) {
	now, removed, deleted := l.now(), 0, 0
	for i := range c.Events {
		l.metrics.published(&c.Events[i], now)
		if d := &c.Events[i].Data; d.Reason == schemas.Removed {
			removed++
			if !d.Agent.There() {
				deleted++
			}
		}
	}
	if removed > fewRemovals {
		l.logger.Info("many agents are removed at once: "+
			"the listing no longer shows them, or shows them as deleted",
			"removed", removed, "deleted", deleted, "sweep", c.Events[len(c.Events)-1].Data.Sweep)
	}
	l.tooLarge(c)
	l.logger.Debug("committed", "events", len(c.Events), "sweep", c.Watermark.Sweep)
}

// fewRemovals is how many removals a commit may bring without a line of log output.
const fewRemovals = 3

// tooLarge tells of changes that no message can hold: once for each agent, until a change of it is
// published.
func (l *loop) tooLarge(c *diff.Commit) {
	l.metrics.dropped.Add(float64(c.LeftOut))
	if n := len(c.TooLarge); n > 0 {
		l.logger.Error("changes are too large to publish: their agents keep their published state "+
			"and count as rejected; raise max_payload of the NATS server, "+
			"or have the vendor send less of these agents",
			"count", n, "agents", c.TooLarge[:min(n, mostNamed)], "limit", l.commit.maxBody)
	}
}

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
	lastSweep uint64 // the last sweep that our first watermark knows of
}

// takeOver reads the stream and shuts every earlier writer out, trying until ctx ends. sweep is the
// last one begun here.
func (e *Engine) takeOver(ctx context.Context, sweep uint64) (*takeover, error) {
	var t *takeover
	try := func() (err error) {
		t = &takeover{states: make(map[int64]*packed.State)}
		t.recovered, err = e.stream.TakeOver(ctx,
			func(s *packed.State) { t.states[s.Agent.AgentID()] = s },
			func(r *publisher.Recovered) schemas.Watermark {
				next := max(r.LastSweep+1, sweep)
				w := diff.FirstWatermark(t.states, r.Watermark, e.cfg.Types, next)
				t.lastSweep = w.LastSweep()
				return w
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

// load makes what the stream says the truth.
func (l *loop) load(t *takeover) {
	loaded := l.roster.Load(t.states, t.recovered.Watermark, t.lastSweep)
	if n := loaded.Lost; n > 0 {
		l.logger.Error("the broker has lost messages that it had acknowledged: "+
			"what still stands is published again, above every revision that was used; "+
			"find out why, and have durable readers read the states again", "agents", n)
		l.health.note(fmt.Sprintf("the broker has lost messages that it had acknowledged, "+
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
	l.sweep.number = max(l.sweep.number, t.recovered.LastSweep)
	w := l.roster.Watermark()
	l.health.load(t.recovered.Health, w)
	l.metrics.missing.Set(float64(w.Missing))
	all, _ := l.roster.Population()
	l.logger.Info("took over the stream", "tenant", l.cfg.Tenant,
		"agents", all.Agents, "online", all.Online, "sweep", w.Sweep)
}
