package engine

import "time"

// aStep is by how much the clock must have moved against the time that has passed to be worth a
// word. Less is a clock that is being adjusted.
const aStep = time.Second

// follow has the clock follow the machine's, and tells of a step. It returns the step, 0 where
// there was none.
func (e *Engine) follow() time.Duration {
	if e.cfg.Follow == nil {
		return 0
	}
	step := e.cfg.Follow()
	if step.Abs() < aStep {
		return 0
	}
	e.stepTold.Do(func() {
		way := "ahead: it was set, or the machine slept"
		if step < 0 {
			way = "back: it was set"
		}
		e.logger.Warn("the machine's clock has jumped; "+
			"times in events and watermarks follow it from this sweep on", "tenant", e.cfg.Tenant,
			"by", step.Abs().Round(time.Millisecond), "way", way, "now", e.now())
	})
	return step
}

// stepped has what the loop remembers follow a step of the clock: waits go on as if there had been
// none, and no figure says that something was read at a time that is yet to come.
func (l *loop) stepped(step time.Duration) {
	if step == 0 {
		return
	}
	l.roster.Stepped(step)
	l.health.stepped(step)
	l.answered = l.answered.Add(step)
	l.marked()
}
