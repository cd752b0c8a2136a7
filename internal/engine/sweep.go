package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/schemas"
)

// A sweepState is the sweep under way, or the last one.
type sweepState struct {
	number  uint64
	running bool
	steps   chan sweepStep
	begun   time.Time
	next    *time.Timer // for the start of the next sweep

	// reloadedAt is when the stream was reloaded during this sweep; zero: it was not. Pages that
	// were asked for before were compared with a past that is no more.
	reloadedAt time.Time

	result   string // what became of the last sweep that ended; see [Status]
	dropped  int    // how many fields it dropped
	repaired int    // in how many values it marked what can't stay
}

// A sweepStep is a page, or at last the verdict.
type sweepStep struct {
	page    *listing.Page
	verdict *listing.Verdict
}

// startSweep starts the next sweep.
func (l *loop) startSweep(ctx context.Context) {
	l.stepClock(l.followClock())
	s := &l.sweep
	s.number++
	s.running, s.reloadedAt, s.begun = true, time.Time{}, l.now()
	steps := s.steps
	go func() {
		v := l.source.Sweep(ctx, func(p *listing.Page) { steps <- sweepStep{page: p} })
		steps <- sweepStep{verdict: &v}
	}()
}

// takeSteps takes what has arrived, so that it goes into the commit that is about to start.
func (l *loop) takeSteps() {
	for !l.commit.running && l.sweep.running {
		select {
		case s := <-l.sweep.steps:
			l.step(s)
		default:
			return
		}
	}
}

func (l *loop) step(s sweepStep) {
	if s.page != nil {
		l.page(s.page)
	} else {
		l.verdict(s.verdict)
	}
}

func (l *loop) page(p *listing.Page) {
	l.health.answered()
	l.answered(l.now())
	if p.Sent.Before(l.sweep.reloadedAt) {
		// The stream may know better. The next sweep compares with what it says now.
		l.roster.Alive(l.sweep.number, p)
		return
	}
	l.roster.Observe(l.sweep.number, p)
	// What a glance showed before the stream was read may have been dropped then. One that began
	// later than its last page was read has seen the clock set back.
	if at := p.GlancedAt; !at.IsZero() && !at.Before(l.commit.loadedAt) && !at.After(p.Read) {
		l.roster.Glanced(l.sweep.number, p.GlancedAt)
	}
}

// verdict ends a sweep.
func (l *loop) verdict(v *listing.Verdict) {
	s := &l.sweep
	s.running = false
	s.next.Reset(s.begun.Add(l.cfg.Interval).Sub(l.now()))
	log := l.logger.With("sweep", s.number, "agents", v.Agents, "pages", v.Pages,
		"rejected", v.Rejected, "dropped", v.Dropped, "repaired", v.Repaired,
		"took", v.EndedAt.Sub(v.StartedAt).Round(time.Millisecond))
	if v.Dropped > 0 && s.dropped == 0 {
		log.Warn("dropping fields with unexpected types; rollcall check names them")
	}
	if v.Repaired > 0 && s.repaired == 0 {
		log.Warn("marking values that not every JSON parser takes; rollcall check tells more")
	}
	s.dropped, s.repaired = v.Dropped, v.Repaired
	switch {
	case v.Complete:
		l.ended(sweepComplete)
		l.metrics.sweepTime.Observe(v.EndedAt.Sub(v.StartedAt).Seconds())
		if !s.reloadedAt.IsZero() {
			log.Info("sweep not counted: the stream was reloaded while it ran")
			return
		}
		l.complete(v, log)
	case errors.Is(v.Err, context.Canceled):
		log.Debug("sweep abandoned")
	default:
		class := listing.Unreachable
		var e *listing.Error
		if errors.As(v.Err, &e) {
			class = e.Class
		}
		l.ended(string(class))
		if l.health.incomplete(schemas.HealthReason(class), v.Err, l.now()) {
			log.Warn("sweep incomplete: changes on the pages that it read are published; "+
				"removals and the watermark wait for a complete sweep",
				"class", class, "err", v.Err)
		} else {
			log.Debug("sweep incomplete", "class", class, "err", v.Err)
		}
	}
}

func (l *loop) ended(result string) {
	l.sweep.result = result
	l.metrics.sweeps.WithLabelValues(result).Inc()
}

// complete ends a complete sweep: absence is judged, and the watermark moves when all is published.
func (l *loop) complete(v *listing.Verdict, log *slog.Logger) {
	started, ended := schemas.FloorTime(v.StartedAt), schemas.CeilTime(v.EndedAt)
	staleAfter := ended.Add(3 * max(l.cfg.Interval, ended.Sub(started)))
	absence := l.roster.Complete(l.sweep.number, v, staleAfter)
	l.metrics.missing.Set(float64(absence.Missing))
	l.answered(ended)
	if ids := absence.InTwoListings; len(ids) > 0 {
		l.logger.Warn("agents are listed under two of the polled types, in different states: "+
			"the type that the row names counts, else the first one polled; "+
			"ask the vendor why, or poll only one of these types",
			"count", len(ids), "agents", ids[:min(len(ids), mostNamed)])
	}
	if absence.First {
		log.Info("first complete sweep")
	}
	if n := l.health.failures; n > 0 {
		log.Info("sweeps are complete again", "incomplete", n)
	}
	l.health.complete(absence, v, staleAfter, ended)
	log.Debug("sweep complete", "missing", absence.Missing, "held", absence.Held)
}

// mostNamed is how many agents one line of log output names.
const mostNamed = 10
