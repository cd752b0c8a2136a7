package engine

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// A commitState is the work on the stream under way: a commit, or reading it again.
type commitState struct {
	ctx     context.Context // of the work: it outlives Run's by the grace period
	running bool
	done    chan func() error // what the loop has to do when the work has ended

	formedAt   time.Time // when the last one was formed, or the stream taken over
	loadedAt   time.Time // when what the stream says was taken in
	maxChanges int       // the most changes a commit
	maxBody    int       // the most bytes an event, as last asked
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
	var bodies [][]byte
	fits := func(e *schemas.Event) bool {
		body := e.AppendJSON(make([]byte, 0, usualSize))
		if len(body) > limit {
			return false
		}
		bodies = append(bodies, body)
		return true
	}
	beat := l.beatDue()
	for {
		news := l.health.news()
		if news == nil && !beat && l.roster.Idle() {
			return
		}
		bodies = nil
		c := l.roster.Next(l.sweep.number, l.commit.maxChanges, fits)
		if !c.Complete() && l.roster.Ending() {
			news = nil // what follows from a sweep comes with its end
		}
		if c.Empty() && news == nil && !beat {
			l.roster.Skip(c)
			l.tooLarge(c)
			continue
		}
		l.commit.formedAt = l.now()
		last := l.roster.Watermark()
		l.roster.Form(c, l.commit.formedAt, l.cfg.nextBy(l.commit.formedAt))
		if u := c.Unobserved; u != nil {
			u.Health = l.health.reasonSince(last.CompletedAt)
		}
		b := publisher.Batch{Events: c.Events, Bodies: bodies, Unobserved: c.Unobserved,
			Watermark: c.Watermark, Lapsed: c.Lapsed}
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

// usualSize is more than most events have, in bytes.
const usualSize = 2 << 10

// nextBy is when the next watermark is overdue after one that is formed now: in 15 seconds, or
// three intervals where that is longer.
func (c *Config) nextBy(now time.Time) time.Time {
	return schemas.FloorTime(now.Add(max(minNextBy, 3*c.Interval)))
}

const minNextBy = 15 * time.Second

// beatAt is when a watermark is due for no other reason than that readers wait for one: early
// enough for a slow broker.
func (l *loop) beatAt() time.Time {
	formed := l.commit.formedAt
	return formed.Add(2 * l.cfg.nextBy(formed).Sub(formed) / 3)
}

// beatDue reports whether it is due now. A vendor who does not answer is no reason to say that all
// is well, and who is stopping polls no more.
func (l *loop) beatDue() bool {
	return !l.health.stopping && l.heard() && !l.now().Before(l.beatAt())
}

// heard reports whether the vendor has given a usable answer since the last commit was formed, or
// can't have been asked for one.
func (l *loop) heard() bool {
	return l.silence.answered.Add(l.unasked()).After(l.commit.formedAt)
}

// committed applies what became of a commit.
func (l *loop) committed(c *diff.Commit, news *healthNews, err error) error {
	var setup *publisher.SetupError
	switch {
	case err == nil || errors.Is(err, publisher.ErrTampered):
		l.roster.Committed(c)
		if l.stream.Late() {
			l.roster.Lapse()
		}
		l.tellPublished(c.Watermark)
		l.tellCommitted(c)
		if news != nil {
			l.health.committed(news)
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

func (l *loop) tellPublished(w schemas.Watermark) {
	if l.cfg.Published != nil {
		l.cfg.Published(w)
	}
}

// tellCommitted counts and logs what a commit brought.
func (l *loop) tellCommitted(c *diff.Commit) {
	l.metrics.showAgents(l.roster.Population())
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
