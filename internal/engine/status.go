package engine

import (
	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/schemas"
)

// Status is what the loop knows at the moment. All of it is zero while this replica does not lead.
type Status struct {
	Watermark schemas.Watermark    // the figures of the last complete sweep that is in the stream; sweep 0: none is
	State     schemas.HealthState  // what health is, also where the stream does not say so yet; empty: not known yet
	Reason    schemas.HealthReason // why it is
	Pending   int                  // changes that were seen and are not known to be published
	LastSweep string               // what became of the last sweep: "complete", or the [listing.Class] of its error; empty: none has ended
}

// Status returns what the loop knows at the moment. It may be called from any goroutine.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

// show tells others what the loop knows. It runs at every turn of the loop.
func (l *loop) show() {
	_, byType := l.roster.Population()
	l.setStatus(Status{
		Watermark: l.roster.Watermark(), State: l.health.now.State, Reason: l.health.now.Reason,
		Pending: l.roster.Pending(), LastSweep: l.sweep.result,
	}, byType)
	if n := l.roster.Folded() - l.folded; n > 0 {
		l.folded += n
		l.metrics.folded.Add(float64(n))
		l.foldLog.Do(func() {
			l.logger.Warn("the buffer is full: the oldest detail is folded into its net effect",
				"limit", l.cfg.BufferEvents, "folded", l.folded)
		})
	}
}

// standBack says that this replica leads no longer.
func (l *loop) standBack() {
	l.metrics.dropped.Add(float64(l.roster.Pending()))
	l.metrics.missing.Set(0)
	l.setStatus(Status{}, nil)
}

func (e *Engine) setStatus(s Status, byType map[string]diff.Population) {
	e.metrics.show(s, byType)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status = s
}
