package engine

import (
	"errors"
	"time"
)

// ErrNoAnswers says that this replica has had no usable answer from the vendor for as long as a
// watermark may be old, while NATS took everything that there was to publish. Another replica may
// be answered.
var ErrNoAnswers = errors.New(
	"the vendor has given no usable answer until the last complete sweep was stale")

// giveUpAgain is how long a replica keeps the lease that has given it up before, while it hears of
// no answer: replicas of which none is answered do not pass it to and fro, and one that is answered
// by now gets it in the end.
const giveUpAgain = 10 * time.Minute

// longPause is by how much the loop's wait may be longer than it was to be. Beyond that the process
// was paused, and the silence was its own.
const longPause = time.Second

// A turn is what a replica remembers from one time that it leads to the next.
type turn struct {
	gaveUp time.Time // when it last did, with the monotonic clock; zero: somebody was answered since
	sweep  uint64    // the last complete one then
}

// again begins another turn, with what the stream says now: a complete sweep since then means that
// somebody was answered.
func (t *turn) again(sweep uint64) {
	if sweep > t.sweep {
		t.gaveUp = time.Time{}
	}
}

// heard says that the vendor has given a usable answer.
func (l *loop) heard(at time.Time) {
	l.answered = at
	l.turn.gaveUp = time.Time{}
}

// silentAt is when the vendor has been silent for too long: when the last complete sweep is stale,
// and what a change of leader costs is less.
func (l *loop) silentAt() time.Time {
	w := l.roster.Watermark()
	stale := max(3*l.cfg.Interval, w.StaleAfter.Sub(w.CompletedAt))
	at := l.answered.Add(max(stale, l.cfg.GiveUp))
	if l.turn.gaveUp.IsZero() {
		return at
	}
	if again := l.now().Add(giveUpAgain - time.Since(l.turn.gaveUp)); again.After(at) {
		return again
	}
	return at
}

// silent reports whether to give up: nothing was heard for too long, and there is nothing left to
// publish.
func (l *loop) silent() bool {
	published := !l.busy && l.roster.Idle() && l.health.news() == nil
	return l.cfg.GiveUp > 0 && published && !l.now().Before(l.silentAt())
}

// wake is when the loop has to look at the time.
func (l *loop) wake() time.Time {
	at := l.health.deadline()
	if silent := l.silentAt(); l.cfg.GiveUp > 0 && silent.Before(at) && l.now().Before(silent) {
		at = silent // once it has passed, what is under way wakes the loop
	}
	l.due = at
	if now := l.now(); at.Before(now) {
		l.due = now
	}
	return at
}

// awake is called when the loop goes on. Where the process was paused meanwhile, the vendor had no
// chance to answer.
func (l *loop) awake() {
	if now := l.now(); !l.due.IsZero() && now.Sub(l.due) > longPause {
		l.answered = now
	}
}
