package engine

import (
	"sync"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/schemas"
)

// Status is what the loop knows at the moment. All of it is zero while this replica does not lead.
type Status struct {
	Watermark schemas.Watermark    // the figures of the last complete sweep that is in the log; sweep 0: none is
	State     schemas.HealthState  // what health is, also where the log does not say so yet; empty: not known yet
	Reason    schemas.HealthReason // why it is
	Pending   int                  // changes that were seen and are not known to be published
	LastSweep string               // what became of the last sweep: "complete", or the class of its error; empty: none has ended
}

// A noticeboard is where the loop's goroutine leaves its status for others.
type noticeboard struct {
	mu     sync.Mutex
	status Status // guarded by mu
}

func (n *noticeboard) change(do func(*Status)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	do(&n.status)
}

// Status returns what the loop knows at the moment. It may be called from any goroutine.
func (e *Engine) Status() Status {
	e.board.mu.Lock()
	defer e.board.mu.Unlock()
	return e.board.status
}

// measure brings the gauges and the status up to what the loop knows. It runs at every turn of the
// loop.
func (l *loop) measure() {
	l.metrics.pending.Set(float64(l.roster.Pending()))
	l.board.change(func(s *Status) { s.Pending = l.roster.Pending() })
	if f := l.roster.Folded(); f > l.counted {
		l.metrics.folded.Add(float64(f - l.counted))
		l.counted = f
	}
	if v := (condition{l.health.now.State, l.health.now.Reason}); v != l.metrics.shown {
		l.metrics.condition(v)
		l.board.change(func(s *Status) { s.State, s.Reason = v.state, v.reason })
	}
}

// standBack ends what measure and its like have told: this replica leads no longer.
func (l *loop) standBack() {
	l.metrics.dropped.Add(float64(l.roster.Pending()))
	l.metrics.reset()
	l.board.change(func(s *Status) { *s = Status{} })
}

// swept tells of a sweep that has ended.
func (l *loop) swept(result string) {
	l.metrics.sweeps.WithLabelValues(result).Inc()
	l.board.change(func(s *Status) { s.LastSweep = result })
}

// marked tells of the figures that the log has now.
func (l *loop) marked() {
	w := l.roster.Watermark()
	l.metrics.watermark(w)
	l.board.change(func(s *Status) { s.Watermark = w })
}

// advanced tells what a commit brought.
func (l *loop) advanced(c *diff.Commit) {
	now, removed, deleted := l.now(), 0, 0
	for i := range c.Events {
		l.metrics.moved(c.From[i], c.To[i])
		l.metrics.published(&c.Events[i], now)
		if d := &c.Events[i].Data; d.Reason == schemas.Removed {
			removed++
			if !d.Agent.There() {
				deleted++
			}
		}
	}
	if removed > few {
		l.logger.Info("many agents are removed at once: the listing does not show them any more, or shows them as deleted",
			"removed", removed, "deleted", deleted, "sweep", c.Events[len(c.Events)-1].Data.Sweep)
	}
	l.tooLarge(c)
}

// few is how many removals a commit may bring without a line of log output.
const few = 3

// toldAtOnce is how many agents one line of log output names.
const toldAtOnce = 10

// tooLarge tells of changes that no message can hold: once for each agent, until a change of its is
// published.
func (l *loop) tooLarge(c *diff.Commit) {
	l.metrics.dropped.Add(float64(c.LeftOut))
	if n := len(c.TooLarge); n > 0 {
		l.logger.Error("changes are too large to publish: their agents stay published as they were and count as rejected; "+
			"raise max_payload of the NATS server, or have the vendor send less of these agents",
			"count", n, "agents", c.TooLarge[:min(n, toldAtOnce)], "limit", l.limit)
	}
}
