package engine

import "time"

// smallStep is by how much the clock must have moved against the time that has passed to be worth a
// word. Less is a clock that is being adjusted.
const smallStep = time.Second

// followClock has the clock follow the machine's, and tells of a step. It returns the step, 0 where
// there was none.
func (e *Engine) followClock() time.Duration {
	if e.cfg.Follow == nil {
		return 0
	}
	step := e.cfg.Follow()
	if step.Abs() < smallStep {
		return 0
	}
	e.stepLog.Do(func() {
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

// stepClock has what the loop remembers follow a step of the clock: waits go on as if there had
// been none, and nothing says that something was read at a time that is yet to come.
func (l *loop) stepClock(step time.Duration) {
	if step != 0 {
		l.roster.Stepped(step)
		l.health.stepped(step)
		l.silence.answered = l.silence.answered.Add(step)
		l.commit.formedAt = l.commit.formedAt.Add(step)
		l.commit.loadedAt = l.commit.loadedAt.Add(step)
	}
}
