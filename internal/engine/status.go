package engine

import (
	"github.com/rollcall-events/rollcall/schemas"
)

// Status is what the loop knows at the moment. All of it is zero while this replica does not lead.
type Status struct {
	Watermark schemas.Watermark // of the last complete sweep in the stream; sweep 0: there is none

	// State and Reason are what health is, also where the stream does not say so yet. Empty: not
	// known yet.
	State  schemas.HealthState
	Reason schemas.HealthReason

	Pending int // changes that were seen and are not known to be published

	// LastSweep is what became of the last sweep that ended: "complete", or the [listing.Class] of
	// its error. Empty: none has ended.
	LastSweep string
}

// Status returns what the loop knows at the moment. It may be called from any goroutine.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

// show tells others what the loop knows. It runs at every turn of the loop.
func (l *loop) show() {
	l.setStatus(Status{
		Watermark: l.roster.Watermark(), State: l.health.now.State, Reason: l.health.now.Reason,
		Pending: l.roster.Pending(), LastSweep: l.sweep.result,
	})
	if n := l.roster.Folded() - l.folded; n > 0 {
		l.folded += n
		l.metrics.folded.Add(float64(n))
		l.foldLog.Do(func() {
			l.logger.Warn("the buffer is full: folding the oldest changes into later ones "+
				"of the same agents; no end state is lost",
				"limit", l.cfg.BufferEvents, "folded", l.folded)
		})
	}
}

// standBack says that this replica leads no longer.
func (l *loop) standBack() {
	l.metrics.dropped.Add(float64(l.roster.Pending()))
	l.metrics.missing.Set(0)
	l.metrics.showAgents(nil)
	l.setStatus(Status{})
}

func (e *Engine) setStatus(s Status) {
	e.metrics.show(s)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status = s
}
